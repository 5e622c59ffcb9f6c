// The training, forwards and backwards: heat maps of the selections on one clock for all runs.

import { add, asksFor, draw, drawCells, markAs, signed } from "./draw.js";
import { unpack } from "./baked.js";

const FRAME_MS = 110;
const OPEN = 0.5; // an entry is open above this share of the document's largest selection
const SCALE = Array.from({ length: 33 }, (_, at) => at / 16 - 1);

/** The last of some ascending epochs that is not after `epoch`; else the first. */
export const tickOf = (epochs, epoch) =>
  epochs.findLastIndex((one, at) => one <= epoch || at === 0);

/** Which documents open an entry: indices, the largest selection first.
 * @param {ArrayLike<number>} selection documents × entries @param {number} entries */
export function openers(selection, entries, entry) {
  const row = (_, index) => Array.from({ length: entries }, (_, at) => size(index * entries + at));
  const size = (at) => Math.abs(selection[at]);
  const rows = Array.from({ length: selection.length / entries }, row);
  return [...rows.keys()]
    .filter((index) => rows[index][entry] > OPEN * Math.max(...rows[index]))
    .sort((one, two) => rows[two][entry] - rows[one][entry]);
}

/** The losses with a cursor; returns a function that moves it. */
function drawLosses(parent, { history, tau, negative, epochs }, name, highest) {
  const [width, height, left, top, bottom] = [420, 128, 28, 8, 22];
  const svg = draw(parent, "svg", {
    viewBox: `0 0 ${width} ${height}`,
    class: "docmem-losses",
    role: "img",
    "aria-label":
      `Cross entropy over the epochs, ${name}: under the own DocRep from ` +
      `${signed(history[0][0])} to ${signed(history.at(-1)[0])}, under ${negative} from ` +
      `${signed(history[0][1])} to ${signed(history.at(-1)[1])} nats per token`,
  });
  const last = epochs.at(-1) || 1;
  const across = (epoch) => left + ((width - left - 4) * epoch) / last;
  const up = (loss) => height - bottom - ((height - top - bottom) * loss) / highest;
  for (let loss = 0; loss <= highest; loss += 2) {
    draw(svg, "line", { x1: left, x2: width, y1: up(loss), y2: up(loss), class: "grid" });
    draw(svg, "text", { x: left - 6, y: up(loss), dy: "0.35em", "text-anchor": "end" }, loss);
  }
  for (const epoch of [0, Math.round(last / 2), last]) {
    const anchor = epoch === last ? "end" : "middle";
    draw(svg, "text", { x: across(epoch), y: height - 6, "text-anchor": anchor }, epoch);
  }
  draw(svg, "line", { x1: left, x2: width, y1: up(tau), y2: up(tau), class: "target" });
  for (const [kind, at] of Object.entries({ negative: 1, own: 0 })) {
    const points = history.map((losses, index) => `${across(index + 1)},${up(losses[at])}`);
    draw(svg, "polyline", { class: kind, points: points.join(" ") });
  }
  const cursor = draw(svg, "line", { y1: top, y2: height - bottom, class: "cursor" });
  return (epoch) => cursor.setAttribute("transform", `translate(${across(epoch)} 0)`);
}

/** One run's heat maps; returns what shows an epoch and a focus. */
function drawRun(parent, run, scene, highest, onFocus) {
  const root = add(parent, "section", "docmem-run");
  const head = add(root, "h3", "", `${run.name} memory`);
  const [own, others] = ["own", "negative"].map((kind) => add(head, "span", `docmem-${kind}`));
  const panels = run.panels.map(({ name, limit, values }) => {
    const label = add(root, "div", "docmem-panel", name);
    const scale = add(label, "span", "docmem-scale");
    scale.append(`−${limit.toPrecision(2)} `);
    const bar = add(scale, "canvas");
    scale.append(` ${limit.toPrecision(2)}`);
    const frame = add(root, "div", "docmem-heat");
    frame.style.setProperty("--docmem-rows", scene.titles.length);
    const badges = add(frame, "div", "docmem-rows");
    badges.setAttribute("aria-hidden", "true");
    scene.titles.forEach((_, index) => markAs(add(badges, "span"), index, scene));
    const cells = add(frame, "div", "docmem-cells");
    const canvas = add(cells, "canvas");
    canvas.setAttribute("role", "img");
    const shown = `${name}, ${run.name} memory: documents down, ${run.entries} memory entries across`;
    canvas.setAttribute("aria-label", shown);
    const column = add(cells, "div", "docmem-column");
    const cellOf = (event) => {
      const box = canvas.getBoundingClientRect();
      const at = (value, length, count) =>
        Math.max(0, Math.min(count - 1, Math.floor((count * value) / length)));
      return {
        run,
        entry: at(event.clientX - box.left, box.width, run.entries),
        index: at(event.clientY - box.top, box.height, scene.titles.length),
      };
    };
    for (const type of ["pointermove", "pointerdown"]) {
      canvas.addEventListener(type, (event) => onFocus(cellOf(event)));
    }
    const leave = (event) => event.pointerType === "mouse" && onFocus(null);
    canvas.addEventListener("pointerleave", leave);
    return { canvas, column, bar, limit, values: unpack(values) };
  });
  const moveCursor = drawLosses(root, run, run.name, highest);
  const size = scene.titles.length * run.entries;
  return (epoch, focus) => {
    const tick = tickOf(run.epochs, epoch),
      dark = asksFor("color-scheme: dark");
    const done = run.history[Math.floor(run.epochs[tick]) - 1];
    const begun = run.epochs[tick] > 0 ? "in the first epoch" : "before training";
    own.textContent = done ? `own address ${signed(done[0])}` : begun;
    others.textContent = done ? `${run.negative.replace("'", "’")} ${signed(done[1])}` : "";
    moveCursor(run.epochs[tick]);
    const fade = (row) => (!focus || focus.index === row ? 1 : 0.3);
    for (const { canvas, column, bar, values } of panels) {
      const cells = values.subarray(tick * size, (tick + 1) * size);
      drawCells(canvas, scene.signed, cells, run.entries, { limit: 127, dark, fade });
      drawCells(bar, scene.signed, SCALE, SCALE.length, { dark });
      column.hidden = focus?.run !== run;
      column.style.left = `${(100 * (focus?.entry ?? 0)) / run.entries}%`;
      column.style.width = `${100 / run.entries}%`;
    }
    const reader =
      ({ values, limit }) =>
      (at) =>
        (values[tick * size + at] / 127) * limit;
    return panels.map(reader);
  };
}

/** The scrubber. @param {Element} parent @param {{runs: any[], scene: any}} baked */
export function mountTraining(parent, { runs, scene }) {
  const clock = [...new Set(runs.flatMap((run) => run.epochs))].sort((one, two) => one - two);
  const controls = add(parent, "div", "docmem-controls");
  const play = add(controls, "button", "", "▶ Play");
  const back = add(controls, "button", "", "‹");
  const slider = add(controls, "input");
  const on = add(controls, "button", "", "›");
  back.setAttribute("aria-label", "one snapshot back");
  on.setAttribute("aria-label", "one snapshot on");
  slider.type = "range";
  slider.max = slider.value = clock.length - 1;
  slider.setAttribute("aria-label", "Snapshot of the training");
  const says = add(controls, "output");
  const chips = add(parent, "div", "docmem-chips");
  const readout = add(parent, "p", "docmem-readout");
  readout.setAttribute("aria-live", "polite");
  const columns = add(parent, "div", "docmem-columns");
  let focus = null, // what is pointed at
    pinned = null, // a document that was clicked on: shown where nothing is pointed at
    playing = null;
  const highest = 1.1 * Math.max(...runs.flatMap(({ tau, history }) => [tau, ...history.flat()]));
  const pictures = runs.map((run) => drawRun(columns, run, scene, highest, look));

  const named = (index) => `${scene.numbers[index]} ${scene.titles[index]}`;
  const sentence = (values) => {
    if (!focus) return "Point at or tap a cell to see which documents open that entry.";
    if (!focus.run) return `The rows of ${named(focus.index)}.`;
    const { run, entry, index } = focus,
      reads = values[runs.indexOf(run)];
    const [token, document, product] = reads.map((read) =>
      signed(read(index * run.entries + entry)),
    );
    const selection = Float32Array.from({ length: scene.titles.length * run.entries }, (_, at) =>
      reads[1](at),
    );
    const open = openers(selection, run.entries, entry).map(named);
    return (
      `${run.name}, entry ${entry}, ${named(index)}: token selection ${token} × document ` +
      `selection ${document} gives ${product}. Opened by ${open.join(", ") || "no document"}.`
    );
  };
  function show() {
    const epoch = clock[slider.value];
    says.textContent = `epoch ${+epoch.toFixed(2)} of ${clock.at(-1)}`;
    slider.setAttribute("aria-valuetext", says.textContent);
    readout.textContent = sentence(pictures.map((picture) => picture(epoch, focus)));
  }
  function look(at) {
    focus = at ?? pinned;
    show();
  }
  const stop = () => {
    clearInterval(playing);
    playing = null;
    play.textContent = "▶ Play";
  };
  const step = (by) => {
    slider.value = +slider.value + by;
    show();
  };
  play.addEventListener("click", () => {
    if (playing) return stop();
    if (+slider.value === clock.length - 1) slider.value = 0;
    play.textContent = "❚❚ Stop";
    playing = setInterval(() => (+slider.value === clock.length - 1 ? stop() : step(1)), FRAME_MS);
  });
  back.addEventListener("click", () => step(-1));
  on.addEventListener("click", () => step(1));
  slider.addEventListener("input", () => {
    stop();
    show();
  });
  scene.titles.forEach((title, index) => {
    const chip = add(chips, "button", "docmem-chip");
    markAs(add(chip, "span", "docmem-badge"), index, scene).setAttribute("aria-hidden", "true");
    add(chip, "span", "", title);
    chip.setAttribute("aria-pressed", "false");
    const leave = () => focus?.run || look(null); // not from a cell that was tapped since
    for (const type of ["pointerenter", "focus"])
      chip.addEventListener(type, () => look({ index }));
    for (const type of ["pointerleave", "blur"]) chip.addEventListener(type, leave);
    chip.addEventListener("click", () => {
      pinned = pinned?.index === index ? null : { index };
      [...chips.children].forEach((one, at) =>
        one.setAttribute("aria-pressed", String(at === pinned?.index)),
      );
      look(pinned);
    });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}
