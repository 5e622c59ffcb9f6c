// Weights as they lie in the page, and the operations that an LM is made of.

/** Every float16 there is: ±2^(exponent − 15) · 1.mantissa, and ±2^−14 · 0.mantissa near zero. */
const FLOAT16 = Float32Array.from({ length: 65536 }, (_, bits) => {
  const [exponent, mantissa] = [(bits >> 10) & 31, (bits & 1023) / 1024];
  const size = exponent ? 2 ** (exponent - 15) * (1 + mantissa) : 2 ** -14 * mantissa;
  return bits >> 15 ? -size : size;
});

/** What Python's zlib packed, as bytes. @param {string} base64 */
async function inflated(base64) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = binary.charCodeAt(at);
  const stream = new Response(bytes).body.pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * Named float16 tensors, packed by zlib and written in base64, decoded to float32.
 * @typedef {{shape: number[], offset: number}} Place rows by columns; offset in numbers
 * @param {{data: string, index: Record<string, Place>}} packed
 * @returns {Promise<Record<string, Float32Array>>} row-major
 */
export async function unpackTensors({ data, index }) {
  const bytes = await inflated(data);
  const numbers = new Float32Array(bytes.length / 2);
  for (let at = 0; at < numbers.length; at++) {
    numbers[at] = FLOAT16[bytes[2 * at] | (bytes[2 * at + 1] << 8)];
  }
  return Object.fromEntries(
    Object.entries(index).map(([name, { shape, offset }]) => [
      name,
      numbers.subarray(offset, offset + shape.reduce((one, other) => one * other, 1)),
    ]),
  );
}

/** The weight and bias of a layer; without a bias, it is undefined. */
export const layerOf = (weights, name) => ({
  weight: weights[`${name}.weight`],
  bias: weights[`${name}.bias`],
});

/** out = W x + b, eight rows at a time, so that each x is fetched once for all of them. */
export function linear(out, { weight, bias }, x) {
  const n = x.length;
  let row = 0;
  for (; row + 8 <= out.length; row += 8) {
    let [a, b, c, d, e, f, g, h] = [0, 0, 0, 0, 0, 0, 0, 0];
    for (let column = 0, at = row * n; column < n; column++, at++) {
      const factor = x[column];
      a += weight[at] * factor;
      b += weight[at + n] * factor;
      c += weight[at + 2 * n] * factor;
      d += weight[at + 3 * n] * factor;
      e += weight[at + 4 * n] * factor;
      f += weight[at + 5 * n] * factor;
      g += weight[at + 6 * n] * factor;
      h += weight[at + 7 * n] * factor;
    }
    out.set([a, b, c, d, e, f, g, h], row);
  }
  for (; row < out.length; row++) {
    let sum = 0;
    for (let column = 0; column < n; column++) sum += weight[row * n + column] * x[column];
    out[row] = sum;
  }
  if (bias) addTo(out, bias);
  return out;
}

/** out = weight ⊙ (x − mean) / √(variance + ε) + bias */
export function layerNorm(out, { weight, bias }, x, epsilon) {
  let mean = 0;
  for (let at = 0; at < x.length; at++) mean += x[at] / x.length;
  let variance = 0;
  for (let at = 0; at < x.length; at++) variance += (x[at] - mean) ** 2 / x.length;
  const scale = 1 / Math.sqrt(variance + epsilon);
  for (let at = 0; at < x.length; at++) out[at] = weight[at] * (x[at] - mean) * scale + bias[at];
  return out;
}

/** x = act(x), number by number. */
export function apply(act, x) {
  for (let at = 0; at < x.length; at++) x[at] = act(x[at]);
  return x;
}

/** x += y */
export function addTo(x, y) {
  for (let at = 0; at < x.length; at++) x[at] += y[at];
}

/** x = x ⊙ y */
export function multiply(x, y) {
  for (let at = 0; at < x.length; at++) x[at] *= y[at];
  return x;
}
