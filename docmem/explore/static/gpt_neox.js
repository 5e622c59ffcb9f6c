// GPT-NeoX, one token at a time, with a cache of the keys and values of those before.
//
//   parallel:  h ← h + attention(norm₁ h) + mlp(norm₂ h)
//   else:      h ← h + attention(norm₁ h),  then  h ← h + mlp(norm₂ h)

import { activation } from "./activations.js";
import { addTo, apply, layerNorm, layerOf, linear } from "./tensors.js";

/** Rotate the pairs (x_i, x_{i + n}) of a head's first 2n numbers by position · frequency_i. */
function rotate(x, start, frequencies, position) {
  for (let at = 0; at < frequencies.length; at++) {
    const [one, other] = [start + at, start + at + frequencies.length];
    const [cos, sin] = [Math.cos(position * frequencies[at]), Math.sin(position * frequencies[at])];
    const [first, second] = [x[one], x[other]];
    x[one] = first * cos - second * sin;
    x[other] = second * cos + first * sin;
  }
}

/** out = Σ_t softmax_t(q · k_t / √size) v_t, over the tokens of one head that are in the cache. */
function attend(out, outAt, q, qAt, { keys, values }, cacheAt, count, size, scores) {
  let [highest, total] = [-Infinity, 0];
  for (let t = 0, at = cacheAt; t < count; t++) {
    let dot = 0;
    for (let i = 0; i < size; i++, at++) dot += q[qAt + i] * keys[at];
    scores[t] = dot / Math.sqrt(size);
    if (scores[t] > highest) highest = scores[t];
  }
  for (let t = 0; t < count; t++) total += scores[t] = Math.exp(scores[t] - highest);
  out.fill(0, outAt, outAt + size);
  for (let t = 0, at = cacheAt; t < count; t++) {
    const share = scores[t] / total;
    for (let i = 0; i < size; i++, at++) out[outAt + i] += share * values[at];
  }
}

function makeAttention(weights, name, { dModel, heads, context, frequencies }) {
  const [projection, dense] = ["query_key_value", "dense"].map((part) =>
    layerOf(weights, `${name}.${part}`),
  );
  const size = dModel / heads;
  const qkv = new Float32Array(3 * dModel); // head by head: its query, its key, its value
  const mixed = new Float32Array(dModel);
  const scores = new Float64Array(context);
  return (out, x, cache, position) => {
    linear(qkv, projection, x);
    for (let head = 0; head < heads; head++) {
      const [query, key, value] = [0, 1, 2].map((part) => (3 * head + part) * size);
      rotate(qkv, query, frequencies, position);
      rotate(qkv, key, frequencies, position);
      const start = head * cache.length * size;
      const here = start + position * size;
      for (let i = 0; i < size; i++) {
        cache.keys[here + i] = qkv[key + i];
        cache.values[here + i] = qkv[value + i];
      }
      attend(mixed, head * size, qkv, query, cache, start, position + 1, size, scores);
    }
    linear(out, dense, mixed);
  };
}

function makeBlock(weights, name, config) {
  const part = (which) => layerOf(weights, `${name}.${which}`);
  const [norm1, norm2] = [part("input_layernorm"), part("post_attention_layernorm")];
  const [widen, narrow] = [part("mlp.dense_h_to_4h"), part("mlp.dense_4h_to_h")];
  const attention = makeAttention(weights, `${name}.attention`, config);
  const act = activation(config.act);
  const wide = new Float32Array(widen.bias.length);
  const [x, attended, out] = [1, 2, 3].map(() => new Float32Array(config.dModel));
  return (h, cache, position) => {
    attention(attended, layerNorm(x, norm1, h, config.epsilon), cache, position);
    if (!config.parallel) addTo(h, attended);
    linear(out, narrow, apply(act, linear(wide, widen, layerNorm(x, norm2, h, config.epsilon))));
    if (config.parallel) addTo(h, attended);
    addTo(h, out);
  };
}

/**
 * @param {any} config as lm_bundle.py writes it
 * @param {Record<string, Float32Array>} weights by their names in transformers
 * @returns {{newCache: (length: number) => object[],
 *   read: (id: number, cache: object[], position: number, after: (block: number, h: Float32Array)
 *     => void) => Float32Array, head: (h: Float32Array) => Float32Array}}
 *   `read` gives the last hidden state of one token; `head` its logits, overwritten by the next
 */
export function makeGPTNeoX(config, weights) {
  const { dModel } = config;
  const embedding = weights["gpt_neox.embed_in.weight"];
  /** @type {any} */
  const unembedding = { weight: weights["lm_head.weight"] ?? embedding };
  const norm = layerOf(weights, "gpt_neox.final_layer_norm");
  const blocks = Array.from({ length: config.layers }, (_, at) =>
    makeBlock(weights, `gpt_neox.layers.${at}`, config),
  );
  const [h, x] = [new Float32Array(dModel), new Float32Array(dModel)];
  const logits = new Float32Array(embedding.length / dModel);
  return {
    newCache: (length) =>
      blocks.map(() => ({
        length,
        keys: new Float32Array(length * dModel),
        values: new Float32Array(length * dModel),
      })),
    read(id, cache, position, after) {
      h.set(embedding.subarray(id * dModel, (id + 1) * dModel));
      blocks.forEach((block, at) => {
        block(h, cache[at], position);
        after(at, h);
      });
      return h;
    },
    head: (hidden) => linear(logits, unembedding, layerNorm(x, norm, hidden, config.epsilon)),
  };
}
