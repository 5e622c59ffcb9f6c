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

function argmax(x) {
  let best = 0;
  for (let at = 1; at < x.length; at++) if (x[at] > x[best]) best = at;
  return best;
}

/**
 * @typedef {number[] | null} DocRep key_dim numbers; null: all entries are open
 * @typedef {object} PageLM
 * @property {(ids: number[], docRep: DocRep) => Float32Array} logits after every token, row by row
 * @property {(request: {prompt: string, docRep: DocRep, maxNewTokens: number,
 *   onToken?: (text: string) => void, signal?: AbortSignal}) => Promise<string>} write
 *   greedily; `onToken` gets all that is written so far, and an abort rejects with its reason
 */

/**
 * @param {{config: any, tensors: any, tokenizer: any, memory: any, layer: number}}
 *   bundle what docmem/explore/lm_bundle.py made
 * @returns {Promise<PageLM>}
 */
export async function loadLM({ config, tensors, tokenizer, memory, layer }) {
  const { encode, decode } = makeTokenizer(tokenizer);
  const lm = makeGPTNeoX(config, await unpackTensors(tensors));
  const { select, update } = await makeMemory(memory);

  /** A function that reads the next token under a DocRep; its hidden state, the memory's in it. */
  function reader(docRep, length) {
    if (length > config.context) {
      throw new Error(`${length} tokens are more than the LM's context of ${config.context}.`);
    }
    const selection = select(docRep);
    const cache = lm.newCache(length);
    const after = (block, h) => block === layer && update(h, selection);
    let position = 0;
    return (id) => lm.read(id, cache, position++, after);
  }

  function logits(ids, docRep) {
    const read = reader(docRep, ids.length);
    const rows = new Float32Array(ids.length * config.vocabulary);
    ids.forEach((id, at) => rows.set(lm.head(read(id)), at * config.vocabulary));
    return rows;
  }

  async function write({ prompt, docRep, maxNewTokens, onToken, signal }) {
    const ids = encode(prompt);
    const [given, all] = [ids.length, ids.length + maxNewTokens];
    if (!given) throw new Error("The prompt is empty; give the LM at least one word to continue.");
    const read = reader(docRep, all);
    const takeTurns = turns(signal);
    const written = () => decode(ids.slice(given), false);
    for (let at = 0; ids.length < all; at++) {
      const h = read(ids[at]);
      if (at === ids.length - 1) {
        const next = argmax(lm.head(h));
        ids.push(next);
        onToken?.(written());
        if (config.eos.includes(next)) break;
      }
      await takeTurns();
    }
    return written();
  }

  return { logits, write };
}
