import { ShapeError } from '../core/errors.js';
import { elementCount, formatType, type Shape, sameShape, type TensorType } from '../core/tensor.js';
import { expectAxis, forEachLine, linesAlong } from './axes.js';
import { expectEqual, expectFloat, expectKnown, expectScalar, type HostTensor, need, type OpDefinition } from './definition.js';
import { stridedOffset } from './elementwise.js';
import type { OpParams, ReduceFunction } from './params.js';

interface Fold {
  readonly identity: number;
  readonly combine: (a: number, b: number) => number;
}

/** NaN wins over every number in `max` and `min` too. */
const folds: { readonly [F in ReduceFunction]: Fold } = {
  sum: { identity: 0, combine: (a, b) => a + b },
  mean: { identity: 0, combine: (a, b) => a + b },
  max: { identity: Number.NEGATIVE_INFINITY, combine: Math.max },
  min: { identity: Number.POSITIVE_INFINITY, combine: Math.min },
  prod: { identity: 1, combine: (a, b) => a * b },
};

/** The shape after a reduction; a tensor whose axes are all gone is [1]. */
function reducedShape(shape: Shape, { axes, keepDims }: Pick<OpParams['reduce'], 'axes' | 'keepDims'>): Shape {
  if (keepDims) return shape.map((size, axis) => (axes.includes(axis) ? 1 : size));
  const kept = shape.filter((_, axis) => !axes.includes(axis));
  return kept.length === 0 ? [1] : kept;
}

/**
 * y = fn over the axes `axes` of x: x f32 of any shape, y f32 without those axes (or with size 1 there); all axes reduced without `keepDims` give [1].
 * Sums are hierarchical on every backend; max and min are NaN where an element is.
 */
const reduce: OpDefinition<'reduce'> = {
  arity: 1,
  type([x], params) {
    const input = need(x);
    const { fn, axes } = params;
    expectKnown('reduce', fn, folds);
    expectFloat(`reduce ${fn}`, 'x', input);
    for (const axis of axes) expectAxis(`reduce ${fn}`, input, axis);
    if (axes.length === 0 || axes.some((axis, i) => i > 0 && axis <= (axes[i - 1] ?? 0)))
      throw new ShapeError(`reduce ${fn}: axes must be ascending and at least one, got [${axes.join(', ')}]`);
    return { dtype: 'f32', shape: reducedShape(input.shape, params) };
  },
  reference([x], { fn, axes }) {
    const { shape, data } = need(x);
    const { identity, combine } = folds[fn];
    const strides = keptStrides(shape, axes);
    const y = new Float64Array(elementCount(shape.filter((_, axis) => !axes.includes(axis)))).fill(identity);
    data.forEach((value, i) => {
      const at = stridedOffset(i, shape, strides);
      y[at] = combine(y[at] ?? identity, value);
    });
    return fn === 'mean' ? y.map((sum) => sum / (data.length / y.length)) : y;
  },
};

/** For every axis of x, how far a step along it goes in the output: 0 along reduced axes. */
function keptStrides(shape: Shape, axes: readonly number[]): number[] {
  const strides = new Array<number>(shape.length).fill(0);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (axes.includes(axis)) continue;
    strides[axis] = stride;
    stride *= shape[axis] ?? 1;
  }
  return strides;
}

/** y = sum_i a[i] b[i]: a and b f32 of one shape, y f32 [1]. */
const dot: OpDefinition<'dot'> = {
  arity: 2,
  type([a, b]) {
    const [x, y] = [need(a), need(b)];
    expectFloat('dot', 'a', x);
    expectFloat('dot', 'b', y);
    if (!sameShape(x.shape, y.shape)) throw new ShapeError(`dot: a and b must have one shape, got ${formatType(x)} and ${formatType(y)}`);
    return { dtype: 'f32', shape: [1] };
  },
  reference([a, b]) {
    const other = need(b).data;
    return Float64Array.of(need(a).data.reduce((sum, value, i) => sum + value * (other[i] ?? Number.NaN), 0));
  },
};

function softmaxType(op: string, x: TensorType | undefined, axis: number): TensorType {
  const input = need(x);
  expectFloat(op, 'x', input);
  expectAxis(op, input, axis);
  return input;
}

/** Calls `write` for every element with x - max and the sum of exp(x - max) of its line. */
function softmaxReference(x: HostTensor, axis: number, write: (shifted: number, sum: number) => number): Float64Array {
  const y = new Float64Array(x.data.length);
  const lines = linesAlong(x.shape, [axis]);
  forEachLine(lines, (first) => {
    const at = (c: number): number => first + c * lines.inner;
    let largest = Number.NEGATIVE_INFINITY;
    let sum = 0;
    for (let c = 0; c < lines.count; c++) largest = Math.max(largest, x.data[at(c)] ?? Number.NaN);
    for (let c = 0; c < lines.count; c++) sum += Math.exp((x.data[at(c)] ?? Number.NaN) - largest);
    for (let c = 0; c < lines.count; c++) y[at(c)] = write((x.data[at(c)] ?? Number.NaN) - largest, sum);
  });
  return y;
}

/**
 * y = exp(x - max) / sum exp(x - max) along `axis`; f32 of one shape. A line that holds NaN or +Infinity, or nothing but -Infinity, is NaN throughout;
 * -Infinity among numbers gives 0.
 */
const softmax: OpDefinition<'softmax'> = {
  arity: 1,
  type: ([x], { axis }) => softmaxType('softmax', x, axis),
  reference: ([x], { axis }) => softmaxReference(need(x), axis, (shifted, sum) => Math.exp(shifted) / sum),
};

/** y = x - max - ln(sum exp(x - max)) along `axis`; f32 of one shape. NaN as in `softmax`; -Infinity among numbers stays. */
const logSoftmax: OpDefinition<'logSoftmax'> = {
  arity: 1,
  type: ([x], { axis }) => softmaxType('logSoftmax', x, axis),
  reference: ([x], { axis }) => softmaxReference(need(x), axis, (shifted, sum) => shifted - Math.log(sum)),
};

/**
 * y = (x - mean) / sqrt(variance + eps) * gain (+ bias) along the last axis: x f32 [..., D], gain and bias f32 [D]. The variance is the mean of (x - mean)^2,
 * in a second pass: no difference of large numbers.
 */
const layerNorm: OpDefinition<'layerNorm'> = {
  arity: [2, 3],
  type([x, gain, bias], { eps }) {
    const [input, weight] = [need(x), need(gain)];
    expectScalar('layerNorm', 'eps', eps, 0);
    expectFloat('layerNorm', 'x', input);
    expectFloat('layerNorm', 'gain', weight);
    expectEqual('layerNorm', 'length of gain', elementCount(weight.shape), input.shape.at(-1));
    if (bias !== undefined) {
      expectFloat('layerNorm', 'bias', bias);
      expectEqual('layerNorm', 'length of bias', elementCount(bias.shape), input.shape.at(-1));
    }
    return input;
  },
  reference([x, gain, bias], { eps }) {
    const [{ data }, weight] = [need(x), need(gain).data];
    const width = weight.length;
    const y = new Float64Array(data.length);
    for (let row = 0; row < y.length; row += width) {
      const values = data.subarray(row, row + width);
      const mean = values.reduce((sum, v) => sum + v, 0) / width;
      const variance = values.reduce((sum, v) => sum + (v - mean) * (v - mean), 0) / width;
      const scale = 1 / Math.sqrt(variance + eps);
      for (let i = 0; i < width; i++) y[row + i] = ((values[i] ?? 0) - mean) * scale * (weight[i] ?? 0) + (bias?.data[i] ?? 0);
    }
    return y;
  },
};

export const reduceOps = { reduce, dot, softmax, logSoftmax, layerNorm };
