// Weights as they lie in the page, and the three operations that an LM is made of.

/** Every float16 there is: ±2^(exponent − 15) · 1.mantissa, and ±2^−14 · 0.mantissa near zero. */
const FLOAT16 = Float32Array.from({ length: 65536 }, (_, bits) => {
  const [exponent, mantissa] = [(bits >> 10) & 31, (bits & 1023) / 1024];
  const size = exponent ? 2 ** (exponent - 15) * (1 + mantissa) : 2 ** -14 * mantissa;
  return bits >> 15 ? -size : size;
});

/**
 * Named float16 tensors in base64, decoded to float32.
 * @typedef {{shape: number[], offset: number}} Place rows by columns; offset in numbers
 * @param {{data: string, index: Record<string, Place>}} packed
 * @returns {Record<string, Float32Array>} row-major
 */
export function unpackTensors({ data, index }) {
  const binary = atob(data);
  const numbers = new Float32Array(binary.length / 2);
  for (let at = 0; at < numbers.length; at++) {
    numbers[at] = FLOAT16[binary.charCodeAt(2 * at) | (binary.charCodeAt(2 * at + 1) << 8)];
  }
  return Object.fromEntries(Object.entries(index).map(([name, { shape, offset }]) =>
    [name, numbers.subarray(offset, offset + shape.reduce((one, other) => one * other, 1))]));
}

/** The weight and bias of a layer; without a bias, it is undefined. */
export const layerOf = (weights, name) =>
  ({ weight: weights[`${name}.weight`], bias: weights[`${name}.bias`] });

/** out = W x + b, four columns at a time; as plain as the innermost loop has to be. */
export function linear(out, { weight, bias }, x) {
  const columns = x.length;
  const even = columns - (columns % 4);
  for (let row = 0, at = 0; row < out.length; row++) {
    let a = 0, b = 0, c = 0, d = 0;
    let column = 0;
    for (; column < even; column += 4, at += 4) {
      a += weight[at] * x[column];
      b += weight[at + 1] * x[column + 1];
      c += weight[at + 2] * x[column + 2];
      d += weight[at + 3] * x[column + 3];
    }
    for (; column < columns; column++, at++) a += weight[at] * x[column];
    out[row] = a + b + c + d + (bias ? bias[row] : 0);
  }
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
export function add(x, y) {
  for (let at = 0; at < x.length; at++) x[at] += y[at];
}

/** x = x ⊙ y */
export function multiply(x, y) {
  for (let at = 0; at < x.length; at++) x[at] *= y[at];
  return x;
}
