import { ArgumentError, ShapeError } from '../core/errors.js';
import { formatType, type Shape, sameShape } from '../core/tensor.js';
import { expectFloat, expectKnown, type HostTensor, need, type OpDefinition } from './definition.js';
import type { BinaryFunction, UnaryFunction } from './params.js';

const SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI);

function sigmoid(x: number): number {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}

/** x times its gate: 0 where the gate is 0, so that silu(-inf) is -0 and not NaN. */
function gated(x: number, gate: number): number {
  return gate === 0 ? 0 * Math.sign(x) : x * gate;
}

/** erf by Kummer's series below 3 (all terms of one sign, so that none cancels), by the continued fraction of erfc above: both to f64 accuracy. */
export function erf(x: number): number {
  const magnitude = Math.abs(x);
  if (Number.isNaN(x)) return Number.NaN;
  if (magnitude > 6) return Math.sign(x);
  if (magnitude < 3) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  let fraction = 0;
  for (let n = 60; n >= 1; n--) fraction = n / 2 / (magnitude + fraction);
  return Math.sign(x) * (1 - Math.exp(-magnitude * magnitude) / Math.sqrt(Math.PI) / (magnitude + fraction));
}

/** Ties go to the even neighbour. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : Math.ceil(x);
}

/** NaN wins over every number, as in IEEE 754-2019 maximum. */
const maximum = (x: number, y: number): number => Math.max(x, y);
const minimum = (x: number, y: number): number => Math.min(x, y);

/** f64 meaning of each function; a and b are its scalar parameters. NaN stays NaN in all of them. */
export const unaryFunctions: { readonly [F in UnaryFunction]: (x: number, a: number, b: number) => number } = {
  silu: (x) => gated(x, sigmoid(x)),
  relu: (x) => maximum(x, 0),
  leakyRelu: (x, slope) => (x > 0 ? x : slope * x),
  elu: (x, alpha) => (x > 0 ? x : alpha * Math.expm1(x)),
  clip: (x, low, high) => minimum(maximum(x, low), high),
  sigmoid,
  tanh: Math.tanh,
  gelu: (x) => gated(x, 0.5 * (1 + Math.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)))),
  geluErf: (x) => gated(x, 0.5 * (1 + erf(x / Math.SQRT2))),
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  neg: (x) => -x,
  abs: Math.abs,
  scale: (x, factor) => x * factor,
  square: (x) => x * x,
  reciprocal: (x) => 1 / x,
  sin: Math.sin,
  cos: Math.cos,
  tan: Math.tan,
  atan: Math.atan,
  round: roundHalfEven,
};

/** Scalar parameters that a function cannot do without. */
export const unaryParameters: { readonly [F in UnaryFunction]?: readonly ('a' | 'b')[] } = {
  leakyRelu: ['a'],
  elu: ['a'],
  clip: ['a', 'b'],
  scale: ['a'],
};

export const binaryFunctions: { readonly [F in BinaryFunction]: (x: number, y: number) => number } = {
  add: (x, y) => x + y,
  sub: (x, y) => x - y,
  mul: (x, y) => x * y,
  div: (x, y) => x / y,
  max: maximum,
  min: minimum,
  pow: Math.pow,
};

/** Shapes aligned at their last axes; sizes are equal or one of them is 1. */
export function broadcastShapes(op: string, a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const x = a[axis - rank + a.length] ?? 1;
    const y = b[axis - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) throw new ShapeError(`${op}: [${a.join(', ')}] and [${b.join(', ')}] do not broadcast at axis ${axis}`);
    return x === 1 ? y : x;
  });
}

/** Strides in elements with which `shape` walks over `output`: 0 along broadcast axes. */
export function broadcastStrides(shape: Shape, output: Shape): number[] {
  const strides = new Array<number>(output.length).fill(0);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis] ?? 1;
    strides[axis + output.length - shape.length] = size === 1 ? 0 : stride;
    stride *= size;
  }
  return strides;
}

/** Offset of the element with row-major index `index` of `output` in a tensor with `strides`. */
export function stridedOffset(index: number, output: Shape, strides: readonly number[]): number {
  let rest = index;
  let offset = 0;
  for (let axis = output.length - 1; axis >= 0; axis--) {
    const size = output[axis] ?? 1;
    offset += (rest % size) * (strides[axis] ?? 0);
    rest = Math.floor(rest / size);
  }
  return offset;
}

function broadcastMap(a: HostTensor, b: HostTensor, output: Shape, fn: (x: number, y: number) => number, size: number): Float64Array {
  const result = new Float64Array(size);
  const [stridesA, stridesB] = [broadcastStrides(a.shape, output), broadcastStrides(b.shape, output)];
  for (let i = 0; i < size; i++) {
    result[i] = fn(a.data[stridedOffset(i, output, stridesA)] ?? Number.NaN, b.data[stridedOffset(i, output, stridesB)] ?? Number.NaN);
  }
  return result;
}

/** y = fn(x), element by element; x and y f32 of any shape. */
const unary: OpDefinition<'unary'> = {
  arity: 1,
  type([x], params) {
    const input = need(x);
    expectKnown('unary', params.fn, unaryFunctions);
    expectFloat(`unary ${params.fn}`, 'x', input);
    for (const name of unaryParameters[params.fn] ?? []) {
      if (typeof params[name] !== 'number')
        throw new ArgumentError(name, `unary ${params.fn}: the scalar ${name} must be a number, got ${String(params[name])}`);
    }
    return input;
  },
  reference([x], params) {
    return need(x).data.map((value) => unaryFunctions[params.fn](value, params.a ?? 0, params.b ?? 0));
  },
};

/** y = fn(a, b) with broadcasting of any axes; f32. */
const binary: OpDefinition<'binary'> = {
  arity: 2,
  type([a, b], params) {
    const [x, y] = [need(a), need(b)];
    expectKnown('binary', params.fn, binaryFunctions);
    expectFloat(`binary ${params.fn}`, 'a', x);
    expectFloat(`binary ${params.fn}`, 'b', y);
    return { dtype: 'f32', shape: broadcastShapes(`binary ${params.fn}`, x.shape, y.shape) };
  },
  reference([a, b], params, output) {
    const size = output.shape.reduce((product, axis) => product * axis, 1);
    return broadcastMap(need(a), need(b), output.shape, binaryFunctions[params.fn], size);
  },
};

/** y = silu(gate) * up; all f32 of one shape. */
const swiglu: OpDefinition<'swiglu'> = {
  arity: 2,
  type([gate, up]) {
    const [g, u] = [need(gate), need(up)];
    expectFloat('swiglu', 'gate', g);
    expectFloat('swiglu', 'up', u);
    if (!sameShape(g.shape, u.shape)) throw new ShapeError(`swiglu: gate and up must have one shape, got ${formatType(g)} and ${formatType(u)}`);
    return g;
  },
  reference([gate, up]) {
    const values = need(up).data;
    return need(gate).data.map((g, i) => unaryFunctions.silu(g, 0, 0) * (values[i] ?? Number.NaN));
  },
};

export const elementwiseOps = { unary, binary, swiglu };
