// The embedded LM with a document memory, in plain JavaScript: nothing leaves the page.

import { makeGPTNeoX } from "./gpt_neox.js";
import { makeMemory } from "./memory.js";
import { unpackTensors } from "./tensors.js";
import { makeTokenizer } from "./tokenizer.js";

const TURN_MS = 25; // after so much work, others have their turn

/** To call after every token: now and then others have their turn; throws after an abort. */
function turns(signal) {
  let since = performance.now();
  return async () => {
    if (performance.now() - since > TURN_MS) {
      await new Promise((resolve) => setTimeout(resolve));
      since = performance.now();
    }
    signal?.throwIfAborted();
  };
}

const largest = (x) => x.reduce((most, one) => Math.max(most, one));

/** The cross entropy of token `id` under these logits, in nats. */
function crossEntropy(logits, id) {
  const most = largest(logits);
  return most - logits[id] + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - most), 0));
}

/**
 * @typedef {number[] | null} DocRep key_dim numbers; null: all entries are open
 * @typedef {object} PageLM
 * @property {(ids: number[], docRep: DocRep) => Float32Array} logits after every token, row by row
 * @property {(request: {prompt: string, docRep: DocRep, maxNewTokens: number,
 *   onPart?: (text: string) => void, signal?: AbortSignal}) => Promise<string>} write
 *   greedily; `onPart` gets all that is written so far, and an abort rejects with its reason
 * @property {(request: {docRep: DocRep, order: number[], onPart: (measured: {index: number,
 *   ce: number}) => void, signal?: AbortSignal}) => Promise<void>} measure the bundle's texts,
 *   one after the other in this order, in nats per token
 */

/**
 * @param {{config: any, tensors: any, tokenizer: any, memory: any, layer: number,
 *   texts: number[][]}} bundle what docmem/explore/lm_bundle.py made
 * @returns {Promise<PageLM>}
 */
export async function loadLM({ config, tensors, tokenizer, memory, layer, texts }) {
  const { encode, decode } = makeTokenizer(tokenizer);
  const lm = makeGPTNeoX(config, await unpackTensors(tensors));
  const { select, update } = await makeMemory(memory);
  const isLast = layer === config.layers - 1;

  /** What the memory does after each block, under a DocRep. */
  function memoryUnder(docRep) {
    const selection = select(docRep);
    return (block, h) => block === layer && update(h, selection);
  }

  /** A function that reads the next token and gives its hidden state. */
  function reader(length, after) {
    if (length > config.context) {
      throw new Error(`${length} tokens are more than the LM's context of ${config.context}.`);
    }
    const cache = lm.newCache(length);
    let position = 0;
    return (id) => lm.read(id, cache, position++, after);
  }

  const kept = new Map(); // of each text: its hidden states without the memory

  /** As `reader`, of a text that the LM's blocks read only once: the memory follows on them all. */
  async function rereader(index, after, takeTurns) {
    if (!kept.has(index)) {
      const [states, read] = [[], reader(texts[index].length, () => {})];
      for (const id of texts[index]) {
        states.push(Float32Array.from(read(id)));
        await takeTurns();
      }
      kept.set(index, states);
    }
    let position = 0;
    return () => {
      const h = Float32Array.from(kept.get(index)[position++]);
      after(layer, h);
      return h;
    };
  }

  async function measure({ docRep, order, onPart, signal }) {
    const takeTurns = turns(signal);
    const after = memoryUnder(docRep);
    for (const index of order) {
      const ids = texts[index];
      const read = isLast ? await rereader(index, after, takeTurns) : reader(ids.length, after);
      let total = 0;
      for (let at = 0; at < ids.length - 1; at++) {
        total += crossEntropy(lm.head(read(ids[at])), ids[at + 1]);
        await takeTurns();
      }
      onPart({ index, ce: total / (ids.length - 1) });
    }
  }

  function logits(ids, docRep) {
    const read = reader(ids.length, memoryUnder(docRep));
    const rows = new Float32Array(ids.length * config.vocabulary);
    ids.forEach((id, at) => rows.set(lm.head(read(id)), at * config.vocabulary));
    return rows;
  }

  async function write({ prompt, docRep, maxNewTokens, onPart, signal }) {
    const ids = encode(prompt);
    const [given, all] = [ids.length, ids.length + maxNewTokens];
    if (!given || !prompt.trim()) {
      throw new Error("The prompt is empty; give the LM at least one word to continue.");
    }
    const read = reader(all, memoryUnder(docRep));
    const takeTurns = turns(signal);
    const written = () => decode(ids.slice(given), false);
    for (let at = 0; ids.length < all; at++) {
      const h = read(ids[at]);
      if (at === ids.length - 1) {
        const scores = lm.head(h);
        const next = scores.indexOf(largest(scores));
        ids.push(next);
        onPart?.(written());
        if (config.eos.includes(next)) break;
      }
      await takeTurns();
    }
    return written();
  }

  return { logits, measure, write };
}
