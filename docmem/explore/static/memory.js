// The document memory, as in docmem/core/memory.py. A block's output h becomes
//
//   k_tok = act_lm(W_u h + b_u)          token key
//   k_doc = act_key(g(𝒦))                document key: the memory selection of a DocRep 𝒦
//   m     = W_d (k_tok ⊙ k_doc) + b_d    values
//   out   = h + act_lm(W_o m + b_o)      output, added to the block's own

import { activation } from "./activations.js";
import { addTo, apply, layerOf, linear, multiply, unpackTensors } from "./tensors.js";

/**
 * The memory selection: act_key(g(𝒦)).
 * @param {any} config fields of MemoryConfig
 * @param {Record<string, Float32Array>} weights those of the key generator; others may be there
 * @returns {(docRep: number[]) => Float32Array}
 */
export function makeSelect(config, weights) {
  const generator = Object.keys(weights)
    .filter((name) => /^document_key\..*weight$/.test(name))
    .map((name) => layerOf(weights, name.replace(".weight", "")));
  const gated = config.key_activation === "swiglu"; // first half · silu(second half)
  const actKey = activation(gated ? "silu" : config.key_activation);
  const actInside = activation(config.key_internal_activation ?? "relu");

  return (docRep) => {
    if (docRep.length !== config.key_dim) {
      throw new Error(`A DocRep has ${config.key_dim} numbers here, not ${docRep.length}.`);
    }
    const generated = generator.reduce(
      (x, one, at) =>
        // g: activations between its layers
        linear(new Float32Array(one.bias.length), one, at ? apply(actInside, x) : x),
      Float32Array.from(docRep),
    );
    if (!gated) return apply(actKey, generated);
    const first = generated.slice(0, config.memory_dim);
    return multiply(first, apply(actKey, generated.subarray(config.memory_dim)));
  };
}

/**
 * @param {{config: any, tensors: any}} packed fields of MemoryConfig, and the weights
 * @returns {Promise<{select: (docRep: number[] | null) => Float32Array | null,
 *   update: (h: Float32Array, selection: Float32Array | null) => void}>} null: all entries
 */
export async function makeMemory({ config, tensors }) {
  const weights = await unpackTensors(tensors);
  const [tokenKey, values, output] = ["token_key", "values", "output"].map((name) =>
    layerOf(weights, name),
  );
  const select = makeSelect(config, weights);
  const actLM = activation(config.lm_act);
  const key = new Float32Array(config.memory_dim);
  const [value, added] = [new Float32Array(config.d_model), new Float32Array(config.d_model)];

  return {
    select: (docRep) => (docRep === null ? null : select(docRep)),
    update(h, selection) {
      apply(actLM, linear(key, tokenKey, h));
      if (selection) multiply(key, selection);
      addTo(h, apply(actLM, linear(added, output, linear(value, values, key))));
    },
  };
}
