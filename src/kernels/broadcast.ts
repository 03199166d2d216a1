/** Elementwise kernels of any number of operands that broadcast: one vector of up to four elements per thread, places by index arithmetic on constants. */

import type { GpuKernel } from '../core/kernel.js';
import type { Shape } from '../core/tensor.js';
import { need } from '../ops/definition.js';
import { broadcastStrides } from '../ops/elementwise.js';
import { elementKernel } from './element-kernel.js';
import { type KernelParam, vectorType, vectorWidth } from './template.js';

type Scalar = 'f32' | 'u32' | 'i32';

/** One axis of the output, slowest first; strides of the operands are in elements, 0 where they repeat. */
export interface OperandAxis {
  readonly size: number;
  readonly strides: readonly number[];
}

/** The axes of a broadcast with those merged that all operands walk as one; the last has strides 0 or 1. */
function operandAxes(shapes: readonly Shape[], output: Shape): readonly OperandAxis[] {
  const strides = shapes.map((shape) => broadcastStrides(shape, output));
  const merged: OperandAxis[] = [];
  for (let axis = output.length - 1; axis >= 0; axis--) {
    const next: OperandAxis = { size: output[axis] ?? 1, strides: strides.map((list) => list[axis] ?? 0) };
    const inner = merged[0];
    if (next.size === 1) continue;
    if (inner?.strides.every((stride, i) => next.strides[i] === stride * inner.size)) merged[0] = { size: next.size * inner.size, strides: inner.strides };
    else merged.unshift(next);
  }
  return merged.length > 0 ? merged : [{ size: 1, strides: shapes.map(() => 0) }];
}

export interface BroadcastSpec {
  readonly family: string;
  readonly params: { readonly [name: string]: KernelParam };
  readonly inputs: readonly { readonly type: Scalar; readonly shape: Shape }[];
  readonly output: { readonly type: Scalar; readonly shape: Shape };
  /** Module text with `fn apply(x0: T0, x1: T1, ...) -> T`. */
  readonly functions: () => string;
}

/** Bindings: the inputs in order, the output. */
export function broadcastKernel({ family, params, inputs, output, functions }: BroadcastSpec): GpuKernel {
  const axes = operandAxes(
    inputs.map((input) => input.shape),
    output.shape,
  );
  const inner = need(axes.at(-1));
  const width = vectorWidth(inner.size);
  const loads = inputs.map(({ type }, i) => `  let v${i} = ${vectorType(width, type)}(in${i}[${placeOf(axes, width, i)}]);\n`).join('');
  const call = (component: string): string => `apply(${inputs.map((_, i) => `v${i}${component}`).join(', ')})`;
  const components = ['.x', '.y', '.z', '.w'].slice(0, width).map(call).join(', ');
  return elementKernel({
    family,
    params: { ...params, types: inputs.map((input) => input.type), axes: axes.map(({ size, strides }) => [size, ...strides]) },
    count: axes.reduce((product, axis) => product * axis.size, 1) / width,
    bindings: [
      ...inputs.map(({ type }, i) => [`in${i}`, inner.strides[i] === 0 ? type : vectorType(width, type), 'read'] as const),
      ['y', vectorType(width, output.type), 'read_write'],
    ],
    functions,
    body: () => `${digits(axes, width)}${loads}  y[index] = ${width === 1 ? call('') : `${vectorType(width, output.type)}(${components})`};
`,
  });
}

/** Declares the indices `i0` (last axis, in vectors), `i1`, ... of the output's vector `index`. */
function digits(axes: readonly OperandAxis[], width: number): string {
  return axes
    .toReversed()
    .map((axis, depth) => {
      const size = depth === 0 ? axis.size / width : axis.size;
      const rest = depth === 0 ? 'index' : `rest${depth}`;
      if (depth === axes.length - 1) return `  let i${depth} = ${rest};\n`;
      return `  let i${depth} = ${rest} % ${size}u;\n  let rest${depth + 1} = ${rest} / ${size}u;\n`;
    })
    .join('');
}

/** The place of an operand, in vectors where its last stride is 1. */
function placeOf(axes: readonly OperandAxis[], width: number, operand: number): string {
  const repeats = axes.at(-1)?.strides[operand] === 0;
  const terms = axes.toReversed().flatMap(({ strides }, depth) => {
    const elements = strides[operand] ?? 0;
    const stride = repeats || depth === 0 ? elements : elements / width;
    return stride === 0 ? [] : [stride === 1 ? `i${depth}` : `i${depth} * ${stride}u`];
  });
  return terms.length === 0 ? '0u' : terms.join(' + ');
}
