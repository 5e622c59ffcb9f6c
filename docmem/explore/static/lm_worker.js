// The LM in a worker, so that the page never stalls. Both ends: requests {id, method, args} go in,
// and {id, token}, {id, result} or {id, error} come out. {id, abort: true} stops a request.

import { loadLM } from "./lm.js";

/** The worker's end. */
function serve(scope) {
  const running = new Map(); // id to its AbortController
  /** @type {any} */
  let lm = {
    load: async (bundle) => {
      lm = await loadLM(bundle);
    },
  };
  scope.onmessage = async ({ data: { id, method, args, abort } }) => {
    if (abort) return running.get(id)?.abort();
    const { signal } = running.set(id, new AbortController()).get(id);
    const onToken = (token) => scope.postMessage({ id, token });
    try {
      const given = method === "write" ? [{ ...args[0], onToken, signal }] : [...args, signal];
      scope.postMessage({ id, result: await lm[method](...given) });
    } catch (error) {
      scope.postMessage({ id, error: error.message });
    }
    running.delete(id);
  };
}

if ("WorkerGlobalScope" in globalThis) serve(self);

/**
 * As `loadLM`, in a worker: every answer is a promise, and `close` ends it.
 * @param {any} bundle what docmem/explore/lm_bundle.py made
 * @param {string} source what its `worker_source` made
 * @returns {Promise<any>}
 */
export async function loadLMInWorker(bundle, source) {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url);
  const waiting = new Map(); // id to what its promise is told
  worker.onmessage = ({ data: { id, token, result, error } }) => {
    if (token !== undefined) return waiting.get(id)?.onToken?.(token);
    if (error === undefined) waiting.get(id)?.resolve(result);
    else waiting.get(id)?.reject(new Error(error));
    waiting.delete(id);
  };
  worker.onerror = ({ message }) => waiting.forEach(({ reject }) => reject(new Error(message)));
  let last = 0;
  const ask = (method, args, { onToken, signal } = /** @type {any} */ ({})) =>
    new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const id = ++last;
      waiting.set(id, { resolve, reject, onToken });
      worker.postMessage({ id, method, args });
      signal?.addEventListener("abort", () => {
        worker.postMessage({ id, abort: true });
        waiting.delete(id);
        reject(signal.reason);
      });
    });
  await ask("load", [bundle]);
  URL.revokeObjectURL(url);
  return {
    encode: (text) => ask("encode", [text]),
    decode: (ids) => ask("decode", [ids]),
    logits: (ids, docRep) => ask("logits", [ids, docRep]),
    crossEntropy: (ids, docRep, signal) => ask("crossEntropy", [ids, docRep], { signal }),
    write: ({ onToken, signal, ...request }) => ask("write", [request], { onToken, signal }),
    close: () => worker.terminate(),
  };
}
