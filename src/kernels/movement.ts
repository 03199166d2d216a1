/** Operations that move elements of 4 bytes: concat, gather, permute, expand, slice, strided. */

import type { GpuKernel } from '../core/kernel.js';
import type { Step } from '../core/step.js';
import { elementCount } from '../core/tensor.js';
import { type Lines, linesAlong } from '../ops/axes.js';
import { need } from '../ops/definition.js';
import { broadcastStrides } from '../ops/elementwise.js';
import type { ComputeOp } from '../ops/params.js';
import type { LoweringNode, LoweringRule } from '../ops/target.js';
import { elementKernel } from './element-kernel.js';
import { type CopyAxis, permutedAxes, rowMajorStrides, stridedCopyKernel } from './strided-copy.js';
import { arg, oneStep } from './template.js';

const copy = (node: LoweringNode<ComputeOp>, axes: readonly CopyAxis[], offset: number): ReturnType<typeof oneStep> =>
  oneStep(node, stridedCopyKernel(axes, offset), [arg(need(node.inputs[0]), 'read'), arg(node.output, 'write')]);

export const permuteRule: LoweringRule<'permute', GpuKernel> = (node) => copy(node, permutedAxes(need(node.inputs[0]).type.shape, node.params.perm), 0);

export const expandRule: LoweringRule<'expand', GpuKernel> = (node) => {
  const { shape } = node.params;
  const strides = broadcastStrides(need(node.inputs[0]).type.shape, shape);
  const axes = shape.map((size, axis) => ({ size, stride: strides[axis] ?? 0 }));
  return copy(node, axes, 0);
};

export const sliceRule: LoweringRule<'slice', GpuKernel> = (node) => {
  const { axis, start, length, step } = node.params;
  const { shape } = need(node.inputs[0]).type;
  const strides = rowMajorStrides(shape);
  const axes = shape.map((size, i) => ({ size: i === axis ? length : size, stride: (strides[i] ?? 1) * (i === axis ? step : 1) }));
  return copy(node, axes, start * (strides[axis] ?? 1));
};

export const stridedRule: LoweringRule<'strided', GpuKernel> = (node) => {
  const { shape, strides, offset } = node.params;
  return copy(
    node,
    shape.map((size, axis) => ({ size, stride: strides[axis] ?? 0 })),
    offset,
  );
};

/** One part of a concatenation: blocks of `block` elements to every `total` from `start` on. */
function concatKernel(outer: number, block: number, total: number, start: number): GpuKernel {
  const count = outer * block;
  return elementKernel({
    family: 'concat',
    params: { outer, block, total, start },
    count,
    bindings: [
      ['x', 'u32', 'read'],
      ['y', 'u32', 'read_write'],
    ],
    body: () => `  y[index / ${block}u * ${total}u + ${start}u + index % ${block}u] = x[index];
`,
  });
}

export const concatRule: LoweringRule<'concat', GpuKernel> = (node) => {
  const { axis } = node.params;
  const { count, inner } = linesAlong(node.output.type.shape, [axis]);
  let start = 0;
  return node.inputs.map((part, index): Step<GpuKernel> => {
    const lines = linesAlong(part.type.shape, [axis]);
    const kernel = concatKernel(lines.outer, lines.count * inner, count * inner, start * inner);
    start += lines.count;
    return { label: `${node.label} part ${index + 1}`, node: node.id, kernel, args: [arg(part, 'read'), arg(node.output, 'write')] };
  });
};

function gatherKernel({ outer, count, inner }: Lines, wanted: number): GpuKernel {
  const elements = outer * wanted * inner;
  return elementKernel({
    family: 'gather',
    params: { outer, count, inner, wanted },
    count: elements,
    bindings: [
      ['x', 'u32', 'read'],
      ['indices', 'u32', 'read'],
      ['y', 'u32', 'read_write'],
    ],
    body: () => `  let i = index % ${inner}u;
  let place = index / ${inner}u;
  let at = min(indices[place % ${wanted}u], ${count - 1}u);
  y[index] = x[(place / ${wanted}u * ${count}u + at) * ${inner}u + i];
`,
  });
}

export const gatherAxisRule: LoweringRule<'gather', GpuKernel> = (node) => {
  const [x, indices] = [need(node.inputs[0]), need(node.inputs[1])];
  const kernel = gatherKernel(linesAlong(x.type.shape, [node.params.axis]), elementCount(indices.type.shape));
  return oneStep(node, kernel, [arg(x, 'read'), arg(indices, 'read'), arg(node.output, 'write')]);
};
