// The DocRep plane without a kernel: what a page holds of a run, with the methods of a model.
//
// The memory selection is computed here (memory.js). Cross entropies are interpolated in the
// measured map, and what the LM writes was prepared at many places; an LM in the page does better.

import { makeSelect } from "./memory.js";

/** @type {(message: any) => void} */
const IGNORE = () => {};
const LIVE =
  "Type any prompt and press Enter: the model in this file writes at the ring, then measures the " +
  "perplexities there, and nothing leaves your machine. Drag the ring, or use the arrow keys, with Shift in fine steps.";
const SHAPES = { float32: Float32Array, int8: Int8Array, uint32: Uint32Array };

/** An array that Python packed. @param {{type: string, data: string}} packed */
export const unpack = ({ type, data }) =>
  new SHAPES[type](Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)).buffer);

const lowest = (values) => values.indexOf(Math.min(...values));
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

/** The memory selection, a function of a DocRep. @param {any} generator what _baked.py made of it
 * @returns {(docRep: number[]) => Float32Array} */
export function selectionOf({ config, weights }) {
  const unpacked = Object.entries(weights).map(([name, weight]) => [name, unpack(weight)]);
  return makeSelect(config, Object.fromEntries(unpacked));
}

/** Every document's value at a point, bilinear between four points of a grid [document, up, across].
 * @param {ArrayLike<number>} grid @param {number[]} axis @param {number[]} point */
export function bilinear(grid, axis, [x, y]) {
  const count = axis.length,
    last = count - 1;
  const place = (value) => clamp(((value - axis[0]) / (axis[last] - axis[0])) * last, 0, last);
  const [across, up] = [place(x), place(y)];
  const [left, low] = [across, up].map((at) => Math.min(Math.floor(at), last - 1));
  const [right, high] = [across - left, up - low];
  return Array.from({ length: grid.length / count ** 2 }, (_, index) => {
    const at = index * count ** 2 + low * count + left;
    return (
      (1 - high) * ((1 - right) * grid[at] + right * grid[at + 1]) +
      high * ((1 - right) * grid[at + count] + right * grid[at + count + 1])
    );
  });
}

/** The index of the place nearest to a point. @param {ArrayLike<number>} places x, y, x, y, … */
export function nearest(places, [x, y]) {
  const away = (_, at) => (places[2 * at] - x) ** 2 + (places[2 * at + 1] - y) ** 2;
  return lowest(Array.from({ length: places.length / 2 }, away));
}

/** A model for plane.js: answers at once from what `baked` holds; an LM writes and measures live. */
export class BakedPlane {
  /** @param {any} baked one run's plane, as docmem.explore.page bakes it
   * @param {Promise<any> | null} [lm] of lm_worker.js; it writes after any prompt, and measures
   * @param {any} [before] the model of another memory: point and prompt stay */
  constructor(baked, lm = null, before = null) {
    this.baked = baked;
    this.lm = lm;
    this.ce = unpack(baked.ce);
    this.ownCe = baked.own_ce ? unpack(baked.own_ce) : null; // [DocRep][document], off the plane
    this.places = unpack(baked.places);
    this.written = baked.written.map(unpack); // [prompt][place]: which text
    this.select = selectionOf(baked.generator);
    const hint = lm ? LIVE : baked.scene.hint;
    this.scene = { ...baked.scene, hint, prompts: baked.prompts, live: Boolean(lm) };
    this.prompt = before?.prompt ?? baked.prompts[0];
    const own = before?.documentAt(...before.at) ?? baked.begin;
    const within = (value) => clamp(value, baked.axis[0], baked.axis.at(-1));
    this.at = own < 0 ? before.at.map(within) : this.scene.points[own];
    this.listener = IGNORE;
  }

  get(name) {
    return name === "scene" ? this.scene : this.read(...this.at);
  }

  on(_, listener) {
    this.listener = listener;
  }

  off() {
    this.listener = IGNORE;
  }

  /** Answers a question of the view. */
  send({ kind, number, x, y, prompt = this.prompt, write = false }) {
    this.prompt = prompt;
    this.at = [x, y];
    this.stop?.abort();
    const reading = { kind: "reading", number, ...this.read(x, y), resting: kind === "rest" };
    this.listener(reading);
    if (kind === "rest" && this.lm) this.answerLive(reading, write);
  }

  /** At rest the LM in the page writes, and then measures each document, the best ones first. */
  async answerLive(reading, write) {
    const { signal } = (this.stop = new AbortController());
    const { prompt, doc_rep: docRep } = reading;
    let shown = reading;
    const show = (more) => signal.aborted || this.listener((shown = { ...shown, ...more }));
    const showText = (text) => show({ text, pieces: [[text, -1]], written: true });
    const perplexity = [...reading.perplexity];
    const showMeasured = ({ index, ce }) => {
      perplexity[index] = Math.exp(ce);
      show({ perplexity: [...perplexity], nearest: lowest(perplexity), resting: false });
    };
    try {
      const lm = await this.lm;
      const request = { prompt, docRep, maxNewTokens: this.baked.newTokens, signal };
      if (write) showText(await lm.write({ ...request, onPart: showText }));
      const order = [...perplexity.keys()].sort((a, b) => perplexity[a] - perplexity[b]);
      await lm.measure({ docRep, order, onPart: showMeasured, signal });
      show({ measured: true });
    } catch (error) {
      show({ kind: "error", sentence: error.message });
    }
  }

  /** The document at whose place a point is; else -1. */
  documentAt(x, y) {
    return this.scene.points.findIndex((point) => point[0] === x && point[1] === y);
  }

  /** The DocRep of a point; of a document's point its own, which may lie off the plane. */
  docRep([x, y], own) {
    if (own >= 0) return this.baked.doc_reps[own];
    const [first, second] = this.baked.axes;
    return this.baked.origin.map((start, at) => start + x * first[at] + y * second[at]);
  }

  /** What is read at a point. */
  read(x, y) {
    const own = this.ownCe ? this.documentAt(x, y) : -1; // what was measured off the plane
    const docRep = this.docRep([x, y], own);
    const count = this.ce.length / this.baked.axis.length ** 2;
    const ce =
      own < 0
        ? bilinear(this.ce, this.baked.axis, [x, y])
        : [...this.ownCe.subarray(own * count, (own + 1) * count)];
    const perplexity = ce.map(Math.exp);
    const prepared = this.written[this.baked.prompts.indexOf(this.prompt)];
    const pieces = prepared ? this.baked.texts[prepared[nearest(this.places, [x, y])]] : [];
    return {
      x,
      y,
      perplexity,
      pieces,
      prompt: this.prompt,
      measured: own >= 0,
      written: Boolean(prepared),
      doc_rep: docRep,
      selection: this.select(docRep),
      nearest: lowest(perplexity),
      text: pieces.map(([words]) => words).join(""),
    };
  }
}
