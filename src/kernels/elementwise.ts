/** Elementwise kernels: one vector of up to four elements per thread; broadcasting by index arithmetic on constants. */

import type { GpuKernel } from '../core/kernel.js';
import { elementCount, type Shape, sameShape } from '../core/tensor.js';
import { need } from '../ops/definition.js';
import { broadcastStrides } from '../ops/elementwise.js';
import type { BinaryFunction, UnaryFunction } from '../ops/params.js';
import type { LoweringRule } from '../ops/target.js';
import { binaryText, siluText, unaryText, vectorisedBinary } from './elementwise-functions.js';
import { halvesOf, packHalvesFunction, wantsHalves } from './matrix/form.js';
import { arg, declareBindings, defineKernel, elementThreads, foldGrid, mainHead, oneStep, vectorType, vectorWidth } from './template.js';

const components = ['x', 'y', 'z', 'w'] as const;

/** `call` on each component of vectors of one width. */
function componentwise(width: 1 | 2 | 4, call: (component: string) => string): string {
  if (width === 1) return call('');
  const parts = components.slice(0, width).map((component) => call(`.${component}`));
  return `${vectorType(width)}(${parts.join(', ')})`;
}

/** `main` over `count` vectors, one per thread: `index` is the vector's index. */
function elementMain(count: number, body: string): string {
  return `${mainHead(Math.ceil(count / elementThreads), elementThreads)}  let index = group * ${elementThreads}u + local;
  if (index >= ${count}u) { return; }
${body}}
`;
}

export function unaryKernel(fn: UnaryFunction, a: number, b: number, elements: number, inPlace: boolean): GpuKernel {
  const width = vectorWidth(elements);
  const vectors = elements / width;
  const type = vectorType(width);
  return defineKernel({
    family: 'unary',
    params: { fn, a, b, elements, inPlace },
    bindings: inPlace ? ['read_write'] : ['read', 'read_write'],
    workgroups: foldGrid(Math.ceil(vectors / elementThreads)),
    workgroupSize: elementThreads,
    wgsl: () =>
      `${declareBindings([...(inPlace ? [] : [['x', type, 'read'] as const]), ['y', type, 'read_write']])}${unaryText(fn, a, b)}${elementMain(
        vectors,
        `  let v = ${inPlace ? 'y' : 'x'}[index];
  y[index] = ${componentwise(width, (c) => `apply(v${c})`)};
`,
      )}`,
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
  const vectors = axes.reduce((product, axis) => product * axis.size, 1) / width;
  const [typeA, typeB, type] = [inner.a === 0 ? 'f32' : vectorType(width), inner.b === 0 ? 'f32' : vectorType(width), vectorType(width)];
  return defineKernel({
    family: 'binary',
    params: { fn, axes: axes.map(({ size, a, b }) => [size, a, b]), inPlace },
    bindings: inPlace ? ['read', 'read_write'] : ['read', 'read', 'read_write'],
    workgroups: foldGrid(Math.ceil(vectors / elementThreads)),
    workgroupSize: elementThreads,
    wgsl: () => {
      const bindings = declareBindings([...(inPlace ? [] : [['a', typeA, 'read'] as const]), ['b', typeB, 'read'], ['y', type, 'read_write']]);
      const operator = vectorisedBinary[fn];
      const value = operator === undefined ? componentwise(width, (c) => `apply(u${c}, v${c})`) : `u ${operator} v`;
      return `${bindings}${operator === undefined ? binaryText(fn) : ''}${elementMain(
        vectors,
        `${offsets(axes, width)}  let u = ${type}(${inPlace ? 'y[index]' : 'a[atA]'});
  let v = ${type}(b[atB]);
  y[index] = ${value};
`,
      )}`;
    },
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
  const vectors = elements / width;
  const type = vectorType(width);
  return defineKernel({
    family: 'swiglu',
    params: { elements, output },
    bindings: inPlace ? ['read', 'read_write'] : ['read', 'read', 'read_write'],
    workgroups: foldGrid(Math.ceil(vectors / elementThreads)),
    workgroupSize: elementThreads,
    features: half ? ['shader-f16'] : [],
    wgsl: () =>
      `${declareBindings([...(inPlace ? [] : [['gate', type, 'read'] as const]), ['up', type, 'read'], ['y', half ? 'vec2<u32>' : type, 'read_write']])}${half ? packHalvesFunction : ''}${siluText()}${elementMain(
        vectors,
        `  let v = ${inPlace ? 'y' : 'gate'}[index];
  y[index] = ${half ? 'pack4' : ''}(${componentwise(width, (c) => `silu(v${c})`)} * up[index]);
`,
      )}`,
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
