// The page's side of docmem.explore.key_plane: draws, and asks the kernel for every number.
//
// A question carries a number that only grows; an answer to an older one is dropped. While the
// point moves at most one question is on its way, and the newest place is asked about next.

const REST_MS = 120; // without movement for so long, the point is at rest
const WALK_MS = 4000; // a walk from one document to another
const SILENT_MS = 1500; // without an answer for so long, say that the kernel is busy
const MARGIN = { left: 34, right: 10, top: 10, bottom: 26 }; // of the map, for its axes
const HINT =
  "Drag the point, or use the arrow keys (Shift for fine steps). Click a number to go to a document.";

let last = 0;
const nextNumber = () => (last = Math.max(last + 1, Math.round(1000 * (performance.timeOrigin + performance.now()))));

const element = (parent, tag, name, text = "") => {
  const made = document.createElement(tag);
  if (name) made.className = `docmem-plane__${name}`;
  made.textContent = text;
  parent.append(made);
  return made;
};

const rgb = (color) => `rgb(${color.join(" ")})`;

// White on dark colours, ink on light ones: the rule of the figures' badges.
const onColor = (color, ink) => {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16) / 255);
  return 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 ? "#ffffff" : ink;
};

const written = (value) => value.toLocaleString("en", value < 100
  ? { minimumFractionDigits: 2, maximumFractionDigits: 2 } : { maximumFractionDigits: 0 });

/** The map as an image of one pixel a cell, row 0 at the top. */
function mapImage(rows) {
  const image = document.createElement("canvas");
  image.width = image.height = rows.length;
  const pixels = new ImageData(rows.length, rows.length);
  [...rows].reverse().flat().forEach((color, index) => pixels.data.set([...color, 255], 4 * index));
  image.getContext("2d").putImageData(pixels, 0, 0);
  return image;
}

/** A canvas with as many pixels as the screen shows of it; its context in CSS pixels. */
function sharp(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { context, width, height };
}

/** Where the plane lies in a canvas of this size, and the way there and back. */
function projection(scene, width, height) {
  const { axis } = scene;
  const extent = axis[axis.length - 1];
  const reach = extent + (axis[1] - axis[0]) / 2;
  const wide = width - MARGIN.left - MARGIN.right;
  const high = height - MARGIN.top - MARGIN.bottom;
  return {
    extent, wide, high,
    toPage: ([x, y]) => [
      MARGIN.left + ((x + reach) / (2 * reach)) * wide,
      MARGIN.top + ((reach - y) / (2 * reach)) * high,
    ],
    toPlane: ([left, top]) => [
      ((left - MARGIN.left) / wide) * 2 * reach - reach,
      reach - ((top - MARGIN.top) / high) * 2 * reach,
    ],
  };
}

function drawMap(canvas, scene, image, point) {
  const { context, width, height } = sharp(canvas);
  if (!width) return;
  const { extent, wide, high, toPage } = projection(scene, width, height);
  context.clearRect(0, 0, width, height);
  context.imageSmoothingEnabled = false;
  context.drawImage(image, MARGIN.left, MARGIN.top, wide, high);
  context.fillStyle = "#555555";
  context.font = "11px system-ui, sans-serif";
  for (const tick of [-extent, 0, extent]) {
    const text = String(Math.round(100 * tick) / 100).replace("-", "−");
    const [left, top] = toPage([tick, tick]);
    context.textAlign = "center";
    context.textBaseline = "top";
    context.fillText(text, left, height - MARGIN.bottom + 7);
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillText(text, MARGIN.left - 7, top);
  }
  scene.points.forEach((place, index) => {
    const [left, top] = toPage(place);
    context.beginPath();
    context.arc(left, top, 10, 0, 2 * Math.PI);
    context.fillStyle = scene.colors[index];
    context.fill();
    context.strokeStyle = "#ffffff";
    context.lineWidth = 1.6;
    context.stroke();
    context.fillStyle = onColor(scene.colors[index], scene.ink);
    context.font = "bold 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(String(index + 1), left, top + 0.5);
  });
  const [left, top] = toPage(point);
  for (const [color, line] of [["#ffffff", 7], [scene.ink, 3]]) {
    context.beginPath();
    context.arc(left, top, 14, 0, 2 * Math.PI);
    context.strokeStyle = color;
    context.lineWidth = line;
    context.stroke();
  }
}

function drawStrip(canvas, scene, selection) {
  const { context, width, height } = sharp(canvas);
  const middle = (scene.signed.length - 1) / 2;
  selection.forEach((value, index) => {
    const share = Math.max(-1, Math.min(1, value / scene.limit));
    const [from, to] = [index, index + 1].map((at) => (at / selection.length) * width);
    context.fillStyle = rgb(scene.signed[Math.round(middle + share * middle)]);
    context.fillRect(from, 0, to - from + 0.3, height);
  });
}

/** Everything on the page, once; returns the parts that change. */
function build(el, scene) {
  const root = element(el, "div", "");
  root.className = "docmem-plane";
  root.style.setProperty("--docmem-ink", scene.ink);
  root.dataset.lmSuppressShortcuts = "true"; // arrow keys are the point's, not the notebook's
  const columns = element(root, "div", "columns");

  const left = element(columns, "div", "");
  const canvas = element(element(left, "div", "map"), "canvas", "");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label",
    "DocRep plane with a point to move. Arrow keys move it, with Shift in fine steps.");
  const walk = element(left, "div", "walk");
  const choice = (label, chosen) => {
    const select = element(walk, "select", "");
    select.setAttribute("aria-label", label);
    scene.titles.forEach((title, index) => {
      const option = element(select, "option", "", `${index + 1}  ${title}`);
      option.value = index;
    });
    select.value = chosen;
    return select;
  };
  element(walk, "span", "", "From");
  const from = choice("Walk from", 0);
  element(walk, "span", "", "to");
  const to = choice("Walk to", Math.min(1, scene.titles.length - 1));
  const play = element(walk, "button", "", "▶ Walk");
  play.type = "button";

  const side = element(columns, "div", "side");
  const label = element(side, "div", "label");
  const where = element(label, "span", "coordinates");
  const how = element(label, "span", "how");
  const best = element(side, "div", "best");
  const bestBadge = element(best, "span", "badge");
  const bestTitle = element(best, "span", "");
  element(element(side, "div", "label"), "span", "", "Perplexity of each document there, log scale");
  const bars = element(side, "div", "bars");
  const rows = scene.titles.map((title, index) => {
    const row = element(bars, "div", "row");
    const badge = element(row, "span", "badge", String(index + 1));
    badge.style.background = scene.colors[index];
    badge.style.color = onColor(scene.colors[index], scene.ink);
    const middle = element(row, "div", "");
    element(middle, "div", "name", title).title = title;
    const bar = element(element(middle, "div", "track"), "div", "bar");
    bar.style.background = scene.colors[index];
    return { row, bar, number: element(row, "span", "number") };
  });
  const axis = element(side, "div", "axis");
  for (let tick = 1; tick <= scene.highest; tick *= 10) {
    const mark = element(axis, "span", "", tick.toLocaleString("en"));
    mark.style.left = `${(100 * Math.log(tick)) / Math.log(scene.highest)}%`;
  }

  const wide = element(root, "div", "wide");
  element(element(wide, "div", "label"), "span", "",
    "Memory selection: an entry a cell, red above zero, blue below");
  const strip = element(wide, "canvas", "strip");
  strip.setAttribute("role", "img");
  strip.setAttribute("aria-label", "Memory selection at the point");

  const prompt = element(element(root, "div", "wide"), "div", "prompt");
  const promptLabel = element(prompt, "label", "", "Prompt");
  const input = element(promptLabel.parentElement, "input", "");
  input.setAttribute("aria-label", "Prompt");
  input.spellcheck = false;
  element(prompt, "label", "", "The LM writes");
  const text = element(prompt, "div", "text");
  const noteLine = element(root, "div", "note", HINT);
  const heard = element(root, "div", "heard");
  heard.setAttribute("aria-live", "polite");
  return {
    root, canvas, from, to, play, where, how, bestBadge, bestTitle, bars, rows, strip, input,
    text, note: noteLine, heard,
  };
}

function render({ model, el }) {
  const scene = model.get("scene");
  const page = build(el, scene);
  const image = mapImage(scene.map);
  const extent = scene.axis[scene.axis.length - 1];
  const clamp = (value) => Math.max(-extent, Math.min(extent, value));
  let shown = model.get("state");
  let point = [shown.x, shown.y];
  let newest = 0; // the number of the last question
  let moving = false; // a question about a move is on its way
  let pending = null; // the place to ask about next
  let holding = false;
  let walking = null;
  let restTimer = null;
  let silentTimer = null;
  let frame = null;
  page.input.value = shown.prompt;

  const redraw = () => {
    frame ??= requestAnimationFrame(() => {
      frame = null;
      drawMap(page.canvas, scene, image, point);
      drawStrip(page.strip, scene, shown.selection);
    });
  };

  const say = (sentence, isError = false) => {
    page.note.textContent = sentence;
    page.note.dataset.error = isError;
  };

  const show = (state) => {
    shown = state;
    const best = state.nearest;
    page.where.textContent = `DocRep (${state.doc_rep.map((value) =>
      value.toFixed(2).replace("-", "−")).join(", ")}) recalls best`;
    page.how.textContent = state.measured ? "measured" : "interpolated";
    page.how.dataset.measured = state.measured;
    page.bars.classList.toggle("docmem-plane__moving", !state.measured);
    page.bestBadge.textContent = String(best + 1);
    page.bestBadge.style.background = scene.colors[best];
    page.bestBadge.style.color = onColor(scene.colors[best], scene.ink);
    page.bestTitle.textContent = scene.titles[best];
    page.rows.forEach(({ row, bar, number }, index) => {
      const value = state.perplexity[index];
      const share = Math.log(Math.max(1, value)) / Math.log(scene.highest);
      row.dataset.best = index === best;
      bar.style.width = `${Math.max(0.6, Math.min(100, 100 * share))}%`;
      number.textContent = written(value);
    });
    page.text.replaceChildren();
    element(page.text, "b", "", state.prompt);
    page.text.append(state.text);
    if (state.measured) {
      page.heard.textContent =
        `Recalled best: ${scene.titles[best]}, perplexity ${written(state.perplexity[best])}`;
    }
    redraw();
  };

  const ask = (kind, more = {}) => {
    newest = nextNumber();
    moving = kind === "move";
    model.send({ kind, number: newest, x: point[0], y: point[1], ...more });
    clearTimeout(silentTimer);
    silentTimer = setTimeout(() => say("Waiting for the kernel …"), SILENT_MS);
  };

  const rest = (write) => {
    clearTimeout(restTimer);
    pending = null;
    ask("rest", { write, prompt: page.input.value });
  };

  const moveTo = (x, y) => {
    point = [clamp(x), clamp(y)];
    page.text.dataset.stale = true;
    clearTimeout(restTimer);
    if (!walking) restTimer = setTimeout(() => rest(!holding), REST_MS);
    if (!moving) ask("move");
    else pending = point;
    redraw();
  };

  const onAnswer = (message) => {
    if (message.number < newest) return; // overtaken
    newest = message.number;
    moving = false;
    clearTimeout(silentTimer);
    if (message.kind === "error") return say(message.sentence, true);
    say(HINT);
    if (pending) {
      pending = null;
      ask("move");
    } else if (!holding && !walking) {
      point = [message.x, message.y]; // as another view, or the kernel, has set it
    }
    page.text.dataset.stale = !message.written || message.prompt !== page.input.value;
    show(message);
  };

  const stopWalk = (write = true) => {
    if (!walking) return;
    cancelAnimationFrame(walking);
    walking = null;
    page.play.textContent = "▶ Walk";
    rest(write);
  };

  const startWalk = () => {
    const [start, end] = [page.from, page.to].map((select) => scene.points[Number(select.value)]);
    let began = null;
    page.play.textContent = "❚❚ Stop";
    const step = (now) => {
      began ??= now;
      const share = Math.min(1, (now - began) / WALK_MS);
      moveTo(...start.map((value, axis) => value + share * (end[axis] - value)));
      if (share === 1) stopWalk();
      else walking = requestAnimationFrame(step);
    };
    walking = requestAnimationFrame(step);
  };

  const place = (event) => {
    const box = page.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const toPage = (at) => {
    const box = page.canvas.getBoundingClientRect();
    return projection(scene, box.width, box.height).toPage(at);
  };
  const toPlane = (at) => {
    const box = page.canvas.getBoundingClientRect();
    return projection(scene, box.width, box.height).toPlane(at);
  };
  const nearestBadge = (at) => {
    const distances = scene.points.map((own) => {
      const [left, top] = toPage(own);
      return Math.hypot(left - at[0], top - at[1]);
    });
    const index = distances.indexOf(Math.min(...distances));
    return { index, distance: distances[index] };
  };
  const snap = (index) => {
    moveTo(...scene.points[index]);
    rest(true);
  };

  let pressed = null; // where the pointer went down
  let grip = [0, 0]; // from the pointer to the point that it took hold of
  const listeners = [
    [page.canvas, "pointerdown", (event) => {
      if (event.button) return;
      stopWalk(false);
      page.canvas.setPointerCapture(event.pointerId);
      holding = true;
      pressed = place(event);
      const [left, top] = toPage(point);
      const onPoint = Math.hypot(left - pressed[0], top - pressed[1]) < 18;
      grip = onPoint ? [left - pressed[0], top - pressed[1]] : [0, 0];
      if (!onPoint && nearestBadge(pressed).distance > 12) moveTo(...toPlane(pressed));
    }],
    [page.canvas, "pointermove", (event) => {
      if (!holding) return;
      const at = place(event);
      if (Math.hypot(at[0] - pressed[0], at[1] - pressed[1]) > 2) pressed = [-99, -99];
      if (pressed[0] === -99) moveTo(...toPlane([at[0] + grip[0], at[1] + grip[1]]));
    }],
    [page.canvas, "pointerup", (event) => {
      if (!holding) return;
      holding = false;
      const { index, distance } = nearestBadge(place(event));
      if (pressed[0] !== -99 && distance < 12) snap(index);
      else rest(true);
    }],
    [page.canvas, "pointercancel", () => {
      if (!holding) return;
      holding = false;
      rest(true);
    }],
    [page.canvas, "dblclick", (event) => snap(nearestBadge(place(event)).index)],
    [page.canvas, "keydown", (event) => {
      const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!direction) return;
      event.preventDefault();
      stopWalk(false);
      const step = extent * (event.shiftKey ? 0.005 : 0.04);
      moveTo(point[0] + step * direction[0], point[1] + step * direction[1]);
    }],
    [page.play, "click", () => (walking ? stopWalk() : startWalk())],
    [page.input, "keydown", (event) => event.key === "Enter" && rest(true)],
    [page.input, "blur", () => page.input.value !== shown.prompt && rest(true)],
    [page.input, "input", () => (page.text.dataset.stale = true)],
  ];
  for (const [target, kind, listener] of listeners) target.addEventListener(kind, listener);
  const resized = new ResizeObserver(redraw);
  resized.observe(page.canvas);
  model.on("msg:custom", onAnswer);
  show(shown);

  return () => {
    model.off("msg:custom", onAnswer);
    resized.disconnect();
    for (const [target, kind, listener] of listeners) target.removeEventListener(kind, listener);
    cancelAnimationFrame(frame);
    cancelAnimationFrame(walking);
    clearTimeout(restTimer);
    clearTimeout(silentTimer);
  };
}

export default { render };
