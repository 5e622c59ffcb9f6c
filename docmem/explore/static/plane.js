// The DocRep plane with a point to move: draws, and asks a model for every number.
//
// The model is anywidget's, with the kernel behind it (docmem.explore.key_plane), or one with the
// same four methods whose answers were prepared (baked.js).
//
// Questions are numbered upwards; an answer to an older one is dropped. While the point moves at
// most one question is on its way, and the newest place is asked about next.

import {
  add,
  addBar,
  asksFor,
  asText,
  draw,
  drawCells,
  markAs,
  signed,
  writePieces,
} from "./draw.js";

const REST_MS = 120; // without movement for so long, the point is at rest
const WALK_MS = 4000; // a walk from one document to another
const SILENT_MS = 1500; // without an answer for so long, say that the kernel is busy
const [LEFT, TOP, SIDE, WIDTH, HEIGHT] = [34, 10, 400, 444, 436]; // the map in its SVG
const KEYS = "Arrow keys move it, with Shift in fine steps.";
const HINT = `Drag the point. ${KEYS} Click a number to go to a document.`;
const UNIT = 4000; // steps across the map in which its lines are drawn
const PLATE = "var(--docmem-plate, #ffffff)"; // around what lies on the map
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

const STRIP = "Memory selection: one cell per entry, red above zero, blue below";
const PAGE = `
  <div class="docmem-plane__parts">
    <svg class="docmem-plane__map" viewBox="0 0 ${WIDTH} ${HEIGHT}" tabindex="0"
      role="application" aria-label="DocRep plane with a point to move. ${KEYS}"></svg>
    <div class="docmem-plane__best">
      <div class="docmem-plane__label">
        <span class="docmem-plane__coordinates"></span><span class="docmem-plane__how"></span>
      </div>
      <div class="docmem-plane__title"><span class="docmem-badge"></span><span></span></div>
    </div>
    <div class="docmem-plane__walk">
      <span>From</span><select aria-label="Walk from"></select>
      <span>to</span><select aria-label="Walk to"></select>
      <button type="button">▶ Walk</button>
    </div>
    <div class="docmem-plane__prompt">
      <span>Prompt</span><input aria-label="Prompt" spellcheck="false">
      <span>The LM writes</span><div class="docmem-plane__text"></div>
    </div>
    <div class="docmem-plane__selection">
      <div class="docmem-plane__label">${STRIP}</div>
      <canvas class="docmem-plane__strip" height="1" role="img" aria-label="${STRIP}"></canvas>
    </div>
    <div class="docmem-plane__side">
      <div class="docmem-plane__label">Perplexity of each document there, log scale</div>
      <div class="docmem-plane__bars" tabindex="0" role="group" aria-label="Perplexities"></div>
      <div class="docmem-plane__axis" aria-hidden="true"></div>
    </div>
  </div>
  <div class="docmem-plane__note"></div>
  <div class="docmem-plane__heard" aria-live="polite"></div>`;

let last = 0;
const nextNumber = () =>
  (last = Math.max(last + 1, Math.round(1000 * (performance.timeOrigin + performance.now()))));

/** Where points of the plane lie in the SVG, and the way back. @returns {any} */
function projection({ axis }) {
  const extent = axis.at(-1);
  const reach = extent + (axis[1] - axis[0]) / 2; // the map's cells reach half a cell further
  const scale = SIDE / (2 * reach);
  return {
    extent,
    toPage: ([x, y]) => [LEFT + (x + reach) * scale, TOP + (reach - y) * scale],
    toPlane: ([left, top]) => [(left - LEFT) / scale - reach, reach - (top - TOP) / scale],
  };
}

/** The map, its axes, the documents' numbers; returns the ring that marks the point. */
function drawMap(map, scene, { extent, toPage }) {
  const drawn = draw(map, "g", { "aria-hidden": "true" }); // read out, it is a heap of numbers
  for (const theme of scene.dark ? ["light", "dark"] : [""]) {
    const href = theme === "dark" ? scene.dark : scene.map;
    draw(drawn, "image", { href, x: LEFT, y: TOP, width: SIDE, height: SIDE, class: theme });
  }
  const over = draw(drawn, "g", { transform: `translate(${LEFT} ${TOP}) scale(${SIDE / UNIT})` });
  const lines = [...(scene.lines ?? [])].sort((a, b) => b.kind.localeCompare(a.kind)); // borders last
  for (const { kind, d } of lines) draw(over, "path", { d, class: kind });
  for (const { x, y, angle, text } of scene.labels ?? []) {
    const at = `translate(${LEFT + SIDE * x} ${TOP + SIDE * y}) rotate(${-angle})`;
    draw(drawn, "text", { transform: at, class: "label", dy: "0.35em" }, text);
  }
  for (const tick of [-extent, 0, extent]) {
    const text = signed(tick).replace(/\.?0+$/, "");
    const [left, top] = toPage([tick, tick]);
    draw(drawn, "text", { x: left, y: HEIGHT - 8, "text-anchor": "middle" }, text);
    draw(drawn, "text", { x: LEFT - 7, y: top, "text-anchor": "end", dy: "0.35em" }, text);
  }
  const r = 9 * Math.min(1, Math.sqrt(20 / scene.points.length)); // smaller where there are many
  map.style.setProperty("--docmem-disc", `${r}px`);
  scene.points.forEach((place, index) => {
    const [x, y] = toPage(place);
    draw(drawn, "circle", { cx: x, cy: y, class: "disc", fill: scene.colors[index] });
    const style = `fill: ${scene.inks[index]}`;
    draw(drawn, "text", { x, y, dy: "0.35em", class: "number", style }, scene.numbers[index]);
  });
  const ring = draw(map, "g", { fill: "none" });
  for (const [stroke, width] of Object.entries({ [PLATE]: 6, currentColor: 2.6 })) {
    draw(ring, "circle", { class: "ring", stroke, "stroke-width": width });
  }
  return ring;
}

/** Where the prompt is given: any text, or one of those that were prepared. */
function promptFor(input, { prompts, live }) {
  if (!prompts) return input;
  if (live) {
    const list = add(input.parentElement, "datalist");
    list.id = "docmem-prompts";
    for (const prompt of prompts) add(list, "option").value = prompt;
    input.setAttribute("list", list.id);
    return input;
  }
  const select = document.createElement("select");
  select.setAttribute("aria-label", "Prompt");
  for (const prompt of prompts) add(select, "option", "", prompt).value = prompt;
  input.replaceWith(select);
  return select;
}

/** @param {{model: any, el: Element}} where */
export function render({ model, el }) {
  const scene = model.get("scene");
  const root = el.appendChild(document.createElement("div"));
  root.className = "docmem-plane";
  root.innerHTML = PAGE; // without data: titles and texts are set as text below
  root.style.setProperty("--docmem-ink", scene.ink);
  root.dataset.lmSuppressShortcuts = "true"; // arrow keys are the point's, not the notebook's
  /** @returns {any} */
  const part = (name) => root.querySelector(`.docmem-plane__${name}`);
  const [map, how, bars, text, note] = ["map", "how", "bars", "text", "note"].map(part);
  const play = root.querySelector("button");
  const [from, to] = root.querySelectorAll("select");
  const input = promptFor(root.querySelector("input"), scene);
  const [bestBadge, bestTitle] = part("title").children;

  const rows = scene.titles.map((title, index) => {
    for (const select of [from, to]) {
      add(select, "option", "", `${scene.numbers[index]}  ${title}`).value = index;
    }
    const { row, badge, bar, number } = addBar(bars, title, scene.colors[index]);
    markAs(badge, index, scene);
    return { row, bar, number };
  });
  to.value = String(Math.min(1, scene.titles.length - 1));
  const shareOf = (value) => (100 * Math.log(Math.max(1, value))) / Math.log(scene.highest);
  for (let tick = 1; tick <= scene.highest; tick *= 10) {
    add(part("axis"), "span", "", asText(tick, 0)).style.left = `${shareOf(tick)}%`;
  }
  const { extent, toPage, toPlane } = projection(scene);
  const ring = drawMap(map, scene, { extent, toPage });

  let shown = model.get("state");
  let point = [shown.x, shown.y];
  let newest = 0; // the number of the last question
  let moving = false; // a question about a move is on its way
  let pending = false; // the point has moved on since
  let pressed = null; // where the pointer went down, while it is down
  let dragged = false; // it has moved since
  let scrolls = false; // it is a finger that may scroll the page
  let grip = [0, 0]; // from the pointer to the point that it took hold of
  let unit = 1; // a pixel of the screen in the SVG
  let walking = null;
  let restTimer = null;
  let silentTimer = null;
  input.value = shown.prompt;

  const placeRing = () => ring.setAttribute("transform", `translate(${toPage(point)})`);
  const say = (sentence, isError = false) => {
    note.textContent = sentence;
    note.dataset.error = isError;
  };

  const show = (state) => {
    shown = state;
    const best = state.nearest;
    const place = state.doc_rep.map((value) => signed(value)).join(", ");
    part("coordinates").textContent = `DocRep (${place}) recalls best`;
    how.textContent = state.measured ? "measured" : "interpolated";
    how.dataset.measured = state.measured;
    bars.classList.toggle("docmem-plane__moving", !state.measured);
    markAs(bestBadge, best, scene);
    bestTitle.textContent = scene.titles[best];
    rows.forEach(({ row, bar, number }, index) => {
      const value = state.perplexity[index];
      row.dataset.best = index === best;
      bar.style.width = `${Math.max(0.6, Math.min(100, shareOf(value)))}%`;
      number.textContent = asText(value);
    });
    text.replaceChildren();
    add(text, "b", "", state.prompt);
    writePieces(text, state.pieces ?? [[state.text, -1]], scene);
    if (state.measured || state.resting) {
      const { row } = rows[best]; // among many bars it may be out of sight
      bars.scrollTop = row.offsetTop - (bars.clientHeight - row.offsetHeight) / 2;
      part("heard").textContent =
        `Recalled best: ${scene.titles[best]}, perplexity ${asText(state.perplexity[best])}`;
    }
    drawCells(part("strip"), scene.signed, state.selection, state.selection.length, {
      limit: scene.limit,
      dark: scene.dark && asksFor("color-scheme: dark"),
    });
    placeRing();
  };

  const ask = (kind, more = {}) => {
    newest = nextNumber();
    moving = kind === "move";
    pending = false;
    clearTimeout(silentTimer);
    silentTimer = setTimeout(() => say("Waiting for the kernel …"), SILENT_MS);
    model.send({ kind, number: newest, x: point[0], y: point[1], ...more }); // may answer at once
  };

  const rest = (write) => {
    clearTimeout(restTimer);
    ask("rest", { write, prompt: input.value });
  };

  const moveTo = (place) => {
    point = place.map((value) => Math.max(-extent, Math.min(extent, value)));
    text.dataset.stale = true;
    clearTimeout(restTimer);
    if (!walking) restTimer = setTimeout(() => rest(!pressed), REST_MS);
    if (moving) pending = true;
    else ask("move");
    placeRing();
  };

  const onAnswer = (message) => {
    if (message.number < newest) return; // to an older question
    newest = message.number;
    moving = false;
    clearTimeout(silentTimer);
    if (message.kind === "error") return say(message.sentence, true);
    say(scene.hint ?? HINT);
    if (pending) ask("move");
    else if (!pressed && !walking) point = [message.x, message.y]; // set by another view, or by code
    text.dataset.stale = !message.written || message.prompt !== input.value;
    show(message);
  };

  const stopWalk = (write = true) => {
    if (!walking) return;
    cancelAnimationFrame(walking);
    walking = null;
    play.textContent = "▶ Walk";
    rest(write);
  };

  if (scene.titles.length < 2) part("walk").style.display = "none";
  const keepApart = () => {
    for (const one of from.options) one.disabled = one.value === to.value;
    for (const one of to.options) one.disabled = one.value === from.value;
  };
  const startWalk = () => {
    const [start, end] = [from, to].map((select) => scene.points[select.value]);
    let began = null;
    play.textContent = "❚❚ Stop";
    const step = (now) => {
      began ??= now;
      let share = Math.min(1, (now - began) / WALK_MS);
      if (asksFor("reduced-motion: reduce")) share = Math.floor(4 * share) / 4; // four steps
      moveTo(start.map((value, axis) => value + share * (end[axis] - value)));
      if (share === 1) stopWalk();
      else walking = requestAnimationFrame(step);
    };
    walking = requestAnimationFrame(step);
  };

  const placeOf = (event) => {
    // of the pointer, in the SVG
    const { left, top, width } = map.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top].map((pixels) => (pixels * WIDTH) / width);
  };
  const distance = (one, two) => Math.hypot(one[0] - two[0], one[1] - two[1]);
  const nearestBadge = (place) => {
    const distances = scene.points.map((own) => distance(toPage(own), place));
    const away = Math.min(...distances);
    return { index: distances.indexOf(away), away };
  };
  const goTo = (place) => {
    stopWalk(false);
    moveTo(place);
    rest(true);
  };
  const snap = (index) => goTo(scene.points[index]);
  const isOnRing = (place, finger) =>
    distance(toPage(point), place) < (finger ? Math.max(16, 24 * unit) : 16);

  map.addEventListener("pointerdown", (event) => {
    if (event.button || !event.isPrimary) return;
    pressed = placeOf(event);
    dragged = false;
    const finger = event.pointerType !== "mouse";
    const [at, onRing] = [toPage(point), isOnRing(pressed, finger)];
    scrolls = finger && !onRing;
    if (scrolls) return;
    stopWalk(false);
    map.setPointerCapture(event.pointerId);
    grip = onRing ? [at[0] - pressed[0], at[1] - pressed[1]] : [0, 0];
    if (!onRing && nearestBadge(pressed).away > 11) moveTo(toPlane(pressed));
  });
  const holdPage = (event) => {
    const [finger, more] = event.touches;
    if (!more && isOnRing(placeOf(finger), true)) event.preventDefault(); // else it scrolls
  };
  map.addEventListener("touchstart", holdPage, { passive: false });
  map.addEventListener("pointermove", (event) => {
    if (!pressed) return;
    const place = placeOf(event);
    dragged ||= distance(place, pressed) > (event.pointerType === "mouse" ? 2 : 6 * unit);
    if (dragged && !scrolls) moveTo(toPlane([place[0] + grip[0], place[1] + grip[1]]));
  });
  const release = (event) => {
    if (!pressed) return;
    pressed = null;
    const place = placeOf(event);
    const { index, away } = nearestBadge(place);
    const taps = event.type === "pointerup" && !dragged;
    if (taps && away < 11 * Math.max(1, unit)) snap(index);
    else if (!scrolls) rest(true);
    else if (taps) goTo(toPlane(place));
  };
  for (const end of ["pointerup", "pointercancel"]) map.addEventListener(end, release);
  map.addEventListener("dblclick", (event) => snap(nearestBadge(placeOf(event)).index));
  map.addEventListener("keydown", (event) => {
    const direction = ARROWS[event.key];
    if (!direction) return;
    event.preventDefault();
    stopWalk(false);
    const step = extent * (event.shiftKey ? 0.005 : 0.04);
    moveTo(point.map((value, axis) => value + step * direction[axis]));
  });
  for (const select of [from, to]) select.addEventListener("input", keepApart);
  play.addEventListener("click", () => (walking ? stopWalk() : startWalk()));
  input.addEventListener("keydown", (event) => event.key === "Enter" && rest(true));
  input.addEventListener("blur", () => input.value !== shown.prompt && rest(true));
  input.addEventListener("input", () => (text.dataset.stale = true));
  if (input.tagName === "SELECT") input.addEventListener("input", () => rest(true));
  const size = new ResizeObserver(([{ contentRect }]) => {
    unit = WIDTH / contentRect.width;
    map.style.setProperty("--docmem-unit", `${unit}`);
  });
  size.observe(map);
  keepApart();
  model.on("msg:custom", onAnswer);
  say(scene.hint ?? HINT);
  show(shown);

  return () => {
    // listeners end with the elements that they listen to
    model.off("msg:custom", onAnswer);
    size.disconnect();
    cancelAnimationFrame(walking);
    clearTimeout(restTimer);
    clearTimeout(silentTimer);
  };
}

export default { render };
