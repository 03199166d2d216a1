/** Elementwise kernels: one vector of up to four elements per thread; broadcasting by index arithmetic on constants. */

import type { GpuKernel } from '../core/kernel.js';
import { elementCount, type Shape, sameShape } from '../core/tensor.js';
import { need } from '../ops/definition.js';
import { broadcastStrides } from '../ops/elementwise.js';
import type { BinaryFunction, UnaryFunction } from '../ops/params.js';
import type { LoweringRule } from '../ops/target.js';
import { elementKernel } from './element-kernel.js';
import { binaryText, siluText, unaryText, vectorisedBinary } from './elementwise-functions.js';
import { halvesOf, packHalvesFunction, wantsHalves } from './matrix/form.js';
import { arg, oneStep, vectorType, vectorWidth } from './template.js';

const components = ['x', 'y', 'z', 'w'] as const;

/** `call` on each component of vectors of one width. */
function componentwise(width: 1 | 2 | 4, call: (component: string) => string): string {
  if (width === 1) return call('');
  const parts = components.slice(0, width).map((component) => call(`.${component}`));
  return `${vectorType(width)}(${parts.join(', ')})`;
}

export function unaryKernel(fn: UnaryFunction, a: number, b: number, elements: number, inPlace: boolean): GpuKernel {
  const width = vectorWidth(elements);
  const type = vectorType(width);
  return elementKernel({
    family: 'unary',
    params: { fn, a, b, elements, inPlace },
    count: elements / width,
    bindings: [...(inPlace ? [] : [['x', type, 'read'] as const]), ['y', type, 'read_write']],
    functions: () => unaryText(fn, a, b),
    body: () => `  let v = ${inPlace ? 'y' : 'x'}[index];
  y[index] = ${componentwise(width, (c) => `apply(v${c})`)};
`,
  });
}

/** One axis of a broadcast, slowest first; strides are in elements, 0 where the operand repeats. */
export interface BroadcastAxis {
  readonly size: number;
  readonly a: number;
  readonly b: number;
}

/** The axes of a broadcast with those merged that both operands walk as one; at least one axis remains, and the last has strides 0 or 1. */
export function broadcastAxes(a: Shape, b: Shape, output: Shape): readonly BroadcastAxis[] {
  const [stridesA, stridesB] = [broadcastStrides(a, output), broadcastStrides(b, output)];
  const merged: BroadcastAxis[] = [];
  for (let axis = output.length - 1; axis >= 0; axis--) {
    const next = { size: output[axis] ?? 1, a: stridesA[axis] ?? 0, b: stridesB[axis] ?? 0 };
    const inner = merged[0];
    if (next.size === 1) continue;
    if (inner !== undefined && next.a === inner.a * inner.size && next.b === inner.b * inner.size)
      merged[0] = { size: next.size * inner.size, a: inner.a, b: inner.b };
    else merged.unshift(next);
  }
  return merged.length > 0 ? merged : [{ size: 1, a: 1, b: 1 }];
}

export function binaryKernel(fn: BinaryFunction, axes: readonly BroadcastAxis[], inPlace: boolean): GpuKernel {
  const inner = need(axes.at(-1));
  const width = vectorWidth(inner.size);
  const [typeA, typeB, type] = [inner.a === 0 ? 'f32' : vectorType(width), inner.b === 0 ? 'f32' : vectorType(width), vectorType(width)];
  const operator = vectorisedBinary[fn];
  return elementKernel({
    family: 'binary',
    params: { fn, axes: axes.map(({ size, a, b }) => [size, a, b]), inPlace },
    count: axes.reduce((product, axis) => product * axis.size, 1) / width,
    bindings: [...(inPlace ? [] : [['a', typeA, 'read'] as const]), ['b', typeB, 'read'], ['y', type, 'read_write']],
    functions: () => (operator === undefined ? binaryText(fn) : ''),
    body: () => `${offsets(axes, width)}  let u = ${type}(${inPlace ? 'y[index]' : 'a[atA]'});
  let v = ${type}(b[atB]);
  y[index] = ${operator === undefined ? componentwise(width, (c) => `apply(u${c}, v${c})`) : `u ${operator} v`};
`,
  });
}

/** Declares `atA` and `atB`, the operands' indices (in vectors where the last axis has stride 1) for the output's vector `index`. */
function offsets(axes: readonly BroadcastAxis[], width: number): string {
  const inner = need(axes.at(-1));
  const lines: string[] = [];
  const terms = { a: [] as string[], b: [] as string[] };
  axes.toReversed().forEach((axis, depth) => {
    const size = depth === 0 ? axis.size / width : axis.size;
    const rest = depth === 0 ? 'index' : `rest${depth}`;
    const last = depth === axes.length - 1;
    lines.push(`  let i${depth} = ${last ? rest : `${rest} % ${size}u`};\n`);
    if (!last) lines.push(`  let rest${depth + 1} = ${rest} / ${size}u;\n`);
    for (const operand of ['a', 'b'] as const) {
      const stride = inner[operand] === 0 ? axis[operand] : depth === 0 ? 1 : axis[operand] / width;
      if (stride !== 0) terms[operand].push(stride === 1 ? `i${depth}` : `i${depth} * ${stride}u`);
    }
  });
  const sum = (list: readonly string[]): string => (list.length === 0 ? '0u' : list.join(' + '));
  return `${lines.join('')}  let atA = ${sum(terms.a)};\n  let atB = ${sum(terms.b)};\n`;
}

/** y = silu(gate) up; in place, y begins as the gate. As 'half', y is f16, for elements in whole vectors of 4. */
export function swigluKernel(elements: number, output: 'own' | 'inPlace' | 'half'): GpuKernel {
  const [inPlace, half] = [output === 'inPlace', output === 'half'];
  const width = vectorWidth(elements);
  const type = vectorType(width);
  return elementKernel({
    family: 'swiglu',
    params: { elements, output },
    features: half ? ['shader-f16'] : [],
    count: elements / width,
    bindings: [...(inPlace ? [] : [['gate', type, 'read'] as const]), ['up', type, 'read'], ['y', half ? 'vec2<u32>' : type, 'read_write']],
    functions: () => `${half ? packHalvesFunction : ''}${siluText()}`,
    body: () => `  let v = ${inPlace ? 'y' : 'gate'}[index];
  y[index] = ${half ? 'pack4' : ''}(${componentwise(width, (c) => `silu(v${c})`)} * up[index]);
`,
  });
}

export const unaryRule: LoweringRule<'unary', GpuKernel> = (node) => {
  const { fn, a = 0, b = 0 } = node.params;
  const elements = elementCount(node.output.type.shape);
  const args = [arg(need(node.inputs[0]), 'read'), arg(node.output, 'write')];
  return oneStep(node, unaryKernel(fn, a, b, elements, false), args, { input: 0, output: 1, kernel: unaryKernel(fn, a, b, elements, true) });
};

export const binaryRule: LoweringRule<'binary', GpuKernel> = (node) => {
  const [a, b] = [need(node.inputs[0]), need(node.inputs[1])];
  const { shape } = node.output.type;
  const axes = broadcastAxes(a.type.shape, b.type.shape, shape);
  const { fn } = node.params;
  const inPlace = sameShape(a.type.shape, shape) ? { input: 0, output: 2, kernel: binaryKernel(fn, axes, true) } : undefined;
  return oneStep(node, binaryKernel(fn, axes, false), [arg(a, 'read'), arg(b, 'read'), arg(node.output, 'write')], inPlace);
};

export const swigluRule: LoweringRule<'swiglu', GpuKernel> = (node, context) => {
  const elements = elementCount(node.output.type.shape);
  const inputs = [arg(need(node.inputs[0]), 'read'), arg(need(node.inputs[1]), 'read')];
  if (elements % 4 === 0 && wantsHalves(context))
    return oneStep(node, swigluKernel(elements, 'half'), [...inputs, arg(halvesOf(node.output, context), 'write')]);
  const args = [...inputs, arg(node.output, 'write')];
  return oneStep(node, swigluKernel(elements, 'own'), args, { input: 0, output: 2, kernel: swigluKernel(elements, 'inPlace') });
};
