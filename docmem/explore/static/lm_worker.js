// The LM in a worker, so that the page never stalls. Both ends: requests {id, load: bundle},
// {id, write: request} and {id, measure: request} go in, and {id, part}, {id, result} or {id, error}
// come out. {id, abort: true} stops a request.

import { loadLM } from "./lm.js";

/** The worker's end. */
function serve(scope) {
  const running = new Map(); // id to its AbortController
  let lm = null;
  scope.onmessage = async ({ data: { id, load, write, measure, abort } }) => {
    if (abort) return running.get(id)?.abort();
    const { signal } = running.set(id, new AbortController()).get(id);
    const onPart = (part) => scope.postMessage({ id, part });
    try {
      if (load) lm = await loadLM(load);
      if (measure) await lm.measure({ ...measure, onPart, signal });
      const result = write && (await lm.write({ ...write, onPart, signal }));
      scope.postMessage({ id, result });
    } catch (error) {
      scope.postMessage({ id, error: error.message });
    }
    running.delete(id);
  };
}

if ("WorkerGlobalScope" in globalThis) serve(self);

/**
 * As `loadLM`, in a worker: it has the same `write` and `measure`, and `close` ends it.
 * @param {any} bundle what docmem/explore/lm_bundle.py made
 * @param {string} source what its `worker_source` made
 * @returns {Promise<any>}
 */
export async function loadLMInWorker(bundle, source) {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url);
  const waiting = new Map(); // id to what its promise is told
  worker.onmessage = ({ data: { id, part, result, error } }) => {
    if (part !== undefined) return waiting.get(id)?.onPart?.(part);
    if (error === undefined) waiting.get(id)?.resolve(result);
    else waiting.get(id)?.reject(new Error(error));
    waiting.delete(id);
  };
  worker.onerror = ({ message }) => waiting.forEach(({ reject }) => reject(new Error(message)));
  let last = 0;
  const ask = (request, { onPart, signal } = /** @type {any} */ ({})) =>
    new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const id = ++last;
      waiting.set(id, { resolve, reject, onPart });
      worker.postMessage({ id, ...request });
      signal?.addEventListener("abort", () => {
        worker.postMessage({ id, abort: true });
        waiting.delete(id);
        reject(signal.reason);
      });
    });
  await ask({ load: bundle });
  URL.revokeObjectURL(url);
  return {
    write: ({ onPart, signal, ...write }) => ask({ write }, { onPart, signal }),
    measure: ({ onPart, signal, ...measure }) => ask({ measure }, { onPart, signal }),
    close: () => worker.terminate(),
  };
}
