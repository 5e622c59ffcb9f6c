// What the LM writes after a prompt under four conditions, and whose text a passage is.

import { add, addBar, asText, markAs, signed, writePieces } from "./draw.js";

const DARKEST_NATS = 8; // the loss of a token that is shaded darkest
const MOST_BARS = 12; // of many documents, those with the lowest cross entropy

/** A choice with its label. @returns {HTMLSelectElement} */
function choice(parent, label, options) {
  const field = add(parent, "label", "docmem-field", label);
  const select = add(field, "select");
  options.forEach((text, index) => (add(select, "option", "", text).value = index));
  return select;
}

/** Tokens on grey that is darker the less each was expected. */
function writeShaded(parent, tokens, losses) {
  tokens.forEach((token, index) => {
    const shaded = add(parent, "span", "docmem-token", token);
    const share = Math.min(1, Math.max(0, losses[index] / DARKEST_NATS));
    shaded.style.setProperty("--docmem-share", `${share}`);
    shaded.title = `${signed(losses[index])} nats`;
  });
}

/** A document, a prompt of its own, four answers. @param {Element} parent
 * @returns a function that tells what is chosen, to be given as `before` */
export function mountRecall(parent, { recall }, scene, before) {
  const controls = add(parent, "div", "docmem-controls");
  const titles = scene.titles.map((title, index) => `${scene.numbers[index]}  ${title}`);
  const whose = choice(controls, "Document", titles);
  const which = choice(controls, "Prompt", []);
  const answers = add(parent, "div", "docmem-answers");
  answers.setAttribute("aria-live", "polite");
  const show = () => {
    const { prompt, truth, rows } = recall[whose.value][which.value];
    answers.replaceChildren();
    for (const { label, documents, pieces, verbatim, ce, losses } of rows) {
      const row = add(answers, "section", "docmem-answer");
      const head = add(row, "h3");
      for (const index of documents) {
        markAs(add(head, "span", "docmem-badge"), index, scene).title = scene.titles[index];
      }
      add(head, "span", "", label);
      const written = add(row, "p");
      add(written, "span", "docmem-soft", prompt);
      writePieces(written, pieces, scene);
      const share = `${Math.round(100 * verbatim)}\u00a0%`;
      add(written, "small", "docmem-soft", `${share} word for word from the document asked for`);
      const shaded = add(row, "p", "docmem-truth");
      if (truth.length) {
        add(shaded, "span", "docmem-soft", "… ");
        writeShaded(shaded, truth, losses);
        add(shaded, "small", "docmem-soft", `${asText(Math.exp(ce))} perplexity of the true text`);
      }
    }
  };
  const chosen = () => {
    which.replaceChildren();
    recall[whose.value].forEach(
      ({ prompt }, index) => (add(which, "option", "", `${prompt} …`).value = index),
    );
    show();
  };
  whose.addEventListener("change", chosen);
  which.addEventListener("change", show);
  const [document, prompt] = before ?? ["0", "0"];
  whose.value = document;
  chosen();
  if (which.options[prompt]) which.value = prompt; // a memory of fewer segments has fewer prompts
  show();
  return () => [whose.value, which.value];
}

/** Passages with a bar under every document and the base LM. @param {Element} parent
 * @returns a function that tells which is chosen, to be given as `before` */
export function mountAttribution(parent, { passages }, scene, before) {
  const picks = add(parent, "div", "docmem-picks");
  picks.setAttribute("role", "group");
  picks.setAttribute("aria-label", "Passages");
  const says = add(parent, "p", "docmem-verdict");
  says.setAttribute("aria-live", "polite");
  const bars = add(parent, "div", "docmem-bars");
  const highest = Math.max(...passages.flatMap(({ ce, base }) => [...ce, base]));
  const drawRow = (name, value, color, least) => {
    const { row, badge, bar, number } = addBar(bars, name, color);
    bar.style.width = `${(100 * value) / highest}%`;
    number.textContent = asText(value);
    row.dataset.best = String(value === least);
    return badge;
  };
  let chosen;
  const show = (which) => {
    chosen = which;
    const { ce, base, from } = passages[chosen];
    const least = Math.min(...ce, base),
      best = ce.indexOf(least);
    [...picks.children].forEach((pick, index) =>
      pick.setAttribute("aria-pressed", String(index === chosen)),
    );
    const verdict =
      best < 0
        ? "The base LM reads it best: none of these documents."
        : `Read best under ${scene.numbers[best]} ${scene.titles[best]}.`;
    const truth =
      from < 0
        ? "In truth it is from none of them."
        : `In truth it is from ${scene.numbers[from]} ${scene.titles[from]}.`;
    says.textContent = `${verdict} ${truth}`;
    bars.replaceChildren();
    const shown = [...ce.keys()]
      .sort((one, two) => ce[one] - ce[two])
      .slice(0, MOST_BARS)
      .sort((one, two) => one - two);
    for (const index of shown) {
      markAs(drawRow(scene.titles[index], ce[index], scene.colors[index], least), index, scene);
    }
    drawRow("base LM, without memory", base, "var(--docmem-soft)", least);
  };
  passages.forEach(({ text, kind }, index) => {
    const pick = add(picks, "button", "docmem-pick");
    add(pick, "small", "docmem-soft", kind);
    add(pick, "span", "", `“${text}”`);
    pick.addEventListener("click", () => show(index));
  });
  const again = passages.findIndex(({ text }) => text === before);
  show(Math.max(0, again));
  return () => passages[chosen].text;
}
