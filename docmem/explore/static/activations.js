// The activations of transformers that have no weights of their own, by their names there.

/** The error function, to 1.5e-7: Abramowitz and Stegun, 7.1.26. */
const erf = (x) => {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series =
    t *
    (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
};

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const between = (low, x, high) => Math.min(Math.max(x, low), high);

const relu = (x) => Math.max(x, 0);
const silu = (x) => x * sigmoid(x);
const gelu = (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2));
const geluTanh = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

const ACTIVATIONS = {
  relu,
  sigmoid,
  tanh: Math.tanh,
  silu,
  swish: silu,
  linear: (x) => x,
  gelu,
  gelu_python: gelu,
  gelu_10: (x) => between(-10, gelu(x), 10),
  gelu_new: geluTanh,
  gelu_fast: geluTanh,
  gelu_accurate: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  gelu_python_tanh: geluTanh,
  quick_gelu: (x) => x * sigmoid(1.702 * x),
  relu2: (x) => relu(x) ** 2,
  relu6: (x) => between(0, x, 6),
  leaky_relu: (x) => (x < 0 ? 0.01 * x : x),
  hardswish: (x) => (x * between(0, x + 3, 6)) / 6,
  laplace: (x) => 0.5 * (1 + erf((x - 0.707107) / (0.282095 * Math.SQRT2))),
  mish: (x) => x * Math.tanh(softplus(x)),
  sqrtsoftplus: (x) => Math.sqrt(softplus(x)),
};

/**
 * The activation called `name`.
 * @param {string} name
 * @returns {(x: number) => number}
 */
export function activation(name) {
  if (!Object.hasOwn(ACTIVATIONS, name)) {
    throw new Error(`This page knows no activation ${name}.`);
  }
  return ACTIVATIONS[name];
}
