// What every picture on a page is drawn with: elements, badges, colours, numbers.

/** A number as text: two decimals below 100, none above. */
export const asText = (value, digits = value < 100 ? 2 : 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** With a minus sign in place of a hyphen. */
export const signed = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

/** A new element at the end of `parent`; `text` is only ever text.
 * @param {Element} parent @param {string} tag @param {string} [name] @param {string} [text]
 * @returns {any} */
export const add = (parent, tag, name = "", text = "") => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = text;
  return parent.appendChild(made);
};

/** The same in an SVG, with attributes.
 * @param {Element} parent @param {string} tag @param {Object<string, any>} attributes
 * @param {any} [text] */
export const draw = (parent, tag, attributes, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return parent.appendChild(made);
};

/** Make `badge` the number of a document on its colour. */
export const markAs = (badge, index, { numbers, colors, inks }) => {
  badge.textContent = numbers[index];
  badge.style.background = colors[index];
  badge.style.color = inks[index];
  return badge;
};

/** A row of a bar chart: a badge that is still empty, a name, a bar, a number.
 * @param {Element} parent @param {string} name @param {string} color */
export const addBar = (parent, name, color) => {
  const row = add(parent, "div", "docmem-row");
  const badge = add(row, "span", "docmem-badge");
  const middle = add(row, "div");
  add(middle, "div", "docmem-name", name).title = name;
  const bar = add(add(middle, "div", "docmem-track"), "div", "docmem-bar");
  bar.style.background = color;
  return { row, badge, bar, number: add(row, "span", "docmem-number") };
};

/** Text in pieces [words, index of the document they stand in word for word, or -1]. */
export const writePieces = (parent, pieces, { colors, titles }) => {
  for (const [words, index] of pieces) {
    if (index < 0) {
      parent.append(words);
      continue;
    }
    const mark = add(parent, "mark", "docmem-mark", words);
    mark.style.setProperty("--docmem-color", colors[index]);
    mark.title = `word for word in ${titles[index]}`;
  }
};

/** The colour of a share from -1 to 1 of the scale: white at zero; in the dark, dark at zero. */
export const colorOf = (palette, share, dark = false) => {
  const middle = (palette.length - 1) / 2,
    size = Math.min(1, Math.abs(share));
  const place = dark ? Math.sign(share) * (1 - 0.72 * size) : Math.sign(share) * size;
  const alpha = dark ? Math.min(1, 2.5 * size) : 1;
  return [...palette[Math.round(middle * (1 + place))], Math.round(255 * alpha)];
};

/** One pixel per value; CSS makes them large. */
export function drawCells(canvas, palette, values, width, options) {
  const { limit = 1, dark = false, fade = null } = options;
  const pixels = new ImageData(width, values.length / width);
  values.forEach((value, index) => {
    const color = colorOf(palette, value / limit, dark);
    color[3] *= fade?.(Math.floor(index / width)) ?? 1;
    pixels.data.set(color, 4 * index);
  });
  canvas.width = width;
  canvas.height = pixels.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** Does the reader ask for dark pages, or for no motion? A notebook's widgets are always light. */
export const asksFor = (what) => matchMedia(`(prefers-${what})`).matches;
