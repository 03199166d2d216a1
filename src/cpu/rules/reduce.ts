import { elementCount } from '../../core/tensor.js';
import { forEachLine, type Lines, linesAlong } from '../../ops/axes.js';
import type { OpParams, ReduceFunction } from '../../ops/params.js';
import type { LoweringContext, LoweringNode, LoweringRule, TensorRef } from '../../ops/target.js';
import type { CpuKernel } from '../kernel.js';
import { shiftedExponential } from '../kernels/exponential.js';
import { axisOf, cpuStep, inputOf } from '../step.js';

/** One reduction over [outer, count, inner] after another, the last axes first. */
export const reduce: LoweringRule<'reduce', CpuKernel> = (node, context) => {
  const { fn, axes } = node.params;
  const runs = runsOf(axes);
  let sizes = [...inputOf(node, 0).type.shape];
  let from = inputOf(node, 0);
  return runs.map((run, index) => {
    const lines = linesAlong(sizes, run);
    sizes = sizes.map((size, axis) => (run.includes(axis) ? 1 : size));
    const last = index === runs.length - 1;
    const to = last ? node.output : context.scratch({ dtype: 'f32', shape: sizes });
    const step = cpuStep(node, reduceKernel(fn, lines), [from, 'read'], [to, 'write']);
    from = to;
    return step;
  });
};

/** The axes in runs of neighbours, last first. A mean of means over runs is the mean: the runs have equal sizes throughout. */
function runsOf(axes: readonly number[]): number[][] {
  const runs: number[][] = [];
  for (const axis of axes) {
    const run = runs.at(-1);
    if (run !== undefined && run.at(-1) === axis - 1) run.push(axis);
    else runs.push([axis]);
  }
  return runs.reverse();
}

function reduceKernel(fn: ReduceFunction, lines: Lines): CpuKernel {
  const { outer, count, inner } = lines;
  return {
    key: `reduce:${fn},${outer},${count},${inner}`,
    family: `reduce ${fn}`,
    programs: [],
    bind(context) {
      const [x, y] = [context.f32(0), context.f32(1)];
      if (inner === 1) {
        const row = rowFolds[fn];
        return () => {
          for (let o = 0; o < outer; o++) y[o] = row(x, o * count, count);
        };
      }
      const [sums, fold] = [new Float64Array(inner), columnFolds[fn]];
      return () => {
        for (let o = 0; o < outer; o++) {
          fold(x, o * count * inner, count, inner, sums);
          y.set(sums, o * inner);
        }
      };
    },
  };
}

type RowFold = (x: Float32Array, start: number, count: number) => number;

/** Four chains of f64 additions: as exact as the result's one rounding to f32 for any length that memory holds. */
function sumRow(x: Float32Array, start: number, count: number): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  const whole = start + (count & ~3);
  for (let i = start; i < whole; i += 4) {
    a += x[i] ?? 0;
    b += x[i + 1] ?? 0;
    c += x[i + 2] ?? 0;
    d += x[i + 3] ?? 0;
  }
  for (let i = whole; i < start + count; i++) a += x[i] ?? 0;
  return a + b + (c + d);
}

const rowFolds: { readonly [F in ReduceFunction]: RowFold } = {
  sum: sumRow,
  mean: (x, start, count) => sumRow(x, start, count) / count,
  prod(x, start, count) {
    let product = 1;
    for (let i = start; i < start + count; i++) product *= x[i] ?? 0;
    return product;
  },
  max(x, start, count) {
    let largest = Number.NEGATIVE_INFINITY;
    for (let i = start; i < start + count; i++) largest = Math.max(largest, x[i] ?? 0);
    return largest;
  },
  min(x, start, count) {
    let smallest = Number.POSITIVE_INFINITY;
    for (let i = start; i < start + count; i++) smallest = Math.min(smallest, x[i] ?? 0);
    return smallest;
  },
};

type ColumnFold = (x: Float32Array, start: number, count: number, inner: number, into: Float64Array) => void;

const sumColumns: ColumnFold = (x, start, count, inner, into) => {
  into.fill(0);
  for (let c = 0, at = start; c < count; c++, at += inner) {
    for (let i = 0; i < inner; i++) into[i] = (into[i] ?? 0) + (x[at + i] ?? 0);
  }
};

const columnFolds: { readonly [F in ReduceFunction]: ColumnFold } = {
  sum: sumColumns,
  mean(x, start, count, inner, into) {
    sumColumns(x, start, count, inner, into);
    for (let i = 0; i < inner; i++) into[i] = (into[i] ?? 0) / count;
  },
  prod(x, start, count, inner, into) {
    into.fill(1);
    for (let c = 0, at = start; c < count; c++, at += inner) {
      for (let i = 0; i < inner; i++) into[i] = (into[i] ?? 0) * (x[at + i] ?? 0);
    }
  },
  max(x, start, count, inner, into) {
    into.fill(Number.NEGATIVE_INFINITY);
    for (let c = 0, at = start; c < count; c++, at += inner) {
      for (let i = 0; i < inner; i++) into[i] = Math.max(into[i] ?? 0, x[at + i] ?? 0);
    }
  },
  min(x, start, count, inner, into) {
    into.fill(Number.POSITIVE_INFINITY);
    for (let c = 0, at = start; c < count; c++, at += inner) {
      for (let i = 0; i < inner; i++) into[i] = Math.min(into[i] ?? 0, x[at + i] ?? 0);
    }
  },
};

export const dot: LoweringRule<'dot', CpuKernel> = (node) => {
  const [a, b] = [inputOf(node, 0), inputOf(node, 1)];
  return [cpuStep(node, dotKernel(elementCount(a.type.shape)), [a, 'read'], [b, 'read'], [node.output, 'write'])];
};

function dotKernel(count: number): CpuKernel {
  return {
    key: `dot:${count}`,
    family: 'dot',
    programs: [],
    bind(context) {
      const [x, y, result] = [context.f32(0), context.f32(1), context.f32(2)];
      return () => {
        result[0] = dotOf(x, y, count);
      };
    },
  };
}

/** Products of f32 are exact in f64. */
function dotOf(x: Float32Array, y: Float32Array, count: number): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  const whole = count & ~3;
  for (let i = 0; i < whole; i += 4) {
    a += (x[i] ?? 0) * (y[i] ?? 0);
    b += (x[i + 1] ?? 0) * (y[i + 1] ?? 0);
    c += (x[i + 2] ?? 0) * (y[i + 2] ?? 0);
    d += (x[i + 3] ?? 0) * (y[i + 3] ?? 0);
  }
  for (let i = whole; i < count; i++) a += (x[i] ?? 0) * (y[i] ?? 0);
  return a + b + (c + d);
}

/** A line gathered, exponentials by SIMD, sums in f64, written back. */
function softmaxSteps(node: LoweringNode<'softmax'> | LoweringNode<'logSoftmax'>, context: LoweringContext): ReturnType<LoweringRule<'softmax', CpuKernel>> {
  const x = inputOf(node, 0);
  const lines = linesAlong(x.type.shape, [node.params.axis]);
  const padded = Math.ceil(lines.count / 4) * 4;
  const line = context.scratch({ dtype: 'f32', shape: [2 * padded + 4] });
  return [cpuStep(node, softmaxKernel(node.op === 'logSoftmax', lines, padded), [x, 'read'], [node.output, 'write'], [line, 'write'])];
}

export const softmax: LoweringRule<'softmax', CpuKernel> = softmaxSteps;
export const logSoftmax: LoweringRule<'logSoftmax', CpuKernel> = softmaxSteps;

function softmaxKernel(logarithm: boolean, lines: Lines, padded: number): CpuKernel {
  const { outer, count, inner } = lines;
  return {
    key: `softmax:${logarithm},${outer},${count},${inner}`,
    family: logarithm ? 'logSoftmax' : 'softmax',
    programs: [shiftedExponential],
    bind(context) {
      const [x, y, scratch, exponential, address] = [context.f32(0), context.f32(1), context.f32(2), context.compiled(shiftedExponential), context.address(2)];
      // Scratch: the line, its exponentials, the maximum.
      const place = address + 8 * padded;
      return () =>
        forEachLine(lines, (first) => {
          const largest = gather(x, first, count, inner, scratch);
          scratch[2 * padded] = largest;
          exponential(address, address + 4 * padded, padded / 4, place);
          const sum = sumRow(scratch, padded, count);
          if (logarithm) writeLogarithms(y, first, count, inner, scratch, largest, Math.log(sum));
          else writeQuotients(y, first, count, inner, scratch, padded, sum);
        });
    },
  };
}

/** Copies a line to the front of `into`; its maximum, NaN where it has one. */
function gather(x: Float32Array, first: number, count: number, inner: number, into: Float32Array): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (let c = 0, at = first; c < count; c++, at += inner) {
    const value = x[at] ?? 0;
    into[c] = value;
    largest = Math.max(largest, value);
  }
  return largest;
}

function writeLogarithms(y: Float32Array, first: number, count: number, inner: number, line: Float32Array, largest: number, logarithm: number): void {
  for (let c = 0, at = first; c < count; c++, at += inner) y[at] = (line[c] ?? 0) - largest - logarithm;
}

function writeQuotients(y: Float32Array, first: number, count: number, inner: number, line: Float32Array, start: number, sum: number): void {
  for (let c = 0, at = first; c < count; c++, at += inner) y[at] = (line[start + c] ?? 0) / sum;
}

export const layerNorm: LoweringRule<'layerNorm', CpuKernel> = (node) => {
  const [x, gain, bias] = [inputOf(node, 0), inputOf(node, 1), node.inputs[2]];
  const width = axisOf(x, -1);
  const kernel = layerNormKernel(elementCount(x.type.shape) / width, width, node.params, bias !== undefined);
  const extra = bias === undefined ? [] : [[bias, 'read'] as const satisfies readonly [TensorRef, 'read']];
  return [cpuStep(node, kernel, [x, 'read'], [gain, 'read'], ...extra, [node.output, 'write'])];
};

function layerNormKernel(rows: number, width: number, { eps }: OpParams['layerNorm'], bias: boolean): CpuKernel {
  return {
    key: `layerNorm:${rows},${width},${eps},${bias}`,
    family: 'layerNorm',
    programs: [],
    bind(context) {
      const [x, gain, shift, y] = [context.f32(0), context.f32(1), bias ? context.f32(2) : undefined, context.f32(bias ? 3 : 2)];
      return () => {
        for (let start = 0; start < rows * width; start += width) {
          const mean = sumRow(x, start, width) / width;
          let squares = 0;
          for (let i = start; i < start + width; i++) squares += ((x[i] ?? 0) - mean) ** 2;
          const scale = 1 / Math.sqrt(squares / width + eps);
          for (let i = 0; i < width; i++) y[start + i] = ((x[start + i] ?? 0) - mean) * scale * (gain[i] ?? 0) + (shift?.[i] ?? 0);
        }
      };
    },
  };
}
