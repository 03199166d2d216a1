/** Operations that move elements of 4 bytes, running sums, selection, convolution and tiled reductions. */

import { elementCount, type Shape } from '../../core/tensor.js';
import { forEachLine, linesAlong } from '../../ops/axes.js';
import { convGeometry, convolve } from '../../ops/conv.js';
import { broadcastStrides } from '../../ops/elementwise.js';
import type { ComputeOp } from '../../ops/params.js';
import { precedes } from '../../ops/select.js';
import type { LoweringNode, LoweringRule } from '../../ops/target.js';
import { partialsOf, tileFolds } from '../../ops/tile-tree.js';
import type { CpuContext, CpuKernel } from '../kernel.js';
import { cpuStep, inputOf } from '../step.js';

/** One kernel over all inputs and the output; its key is the operation, its parameters and its shapes. */
function plain(node: LoweringNode<ComputeOp>, bind: (context: CpuContext) => () => void): ReturnType<LoweringRule<ComputeOp, CpuKernel>> {
  const shapes = node.inputs.map((ref) => `[${ref.type.shape.join(',')}]`).join(';');
  const kernel: CpuKernel = { key: `${node.op}:${JSON.stringify(node.params)};${shapes}`, family: node.op, programs: [], bind };
  return [cpuStep(node, kernel, ...node.inputs.map((ref) => [ref, 'read'] as const), [node.output, 'write'])];
}

/** y[i0, i1, ...] = x[offset + sum i stride]: odometers over all axes but the last, a loop over the last. */
function copyStrided(x: Uint32Array, y: Uint32Array, shape: Shape, strides: readonly number[], offset: number): void {
  const last = shape.at(-1) ?? 1;
  const stride = strides.at(-1) ?? 0;
  const counters = new Array<number>(Math.max(0, shape.length - 1)).fill(0);
  let from = offset;
  for (let at = 0; at < y.length && at < elementCount(shape); ) {
    for (let i = 0; i < last; i++) y[at++] = x[from + i * stride] ?? 0;
    for (let axis = counters.length - 1; axis >= 0; axis--) {
      const size = shape[axis] ?? 1;
      const next = (counters[axis] ?? 0) + 1;
      from += strides[axis] ?? 0;
      if (next < size) {
        counters[axis] = next;
        break;
      }
      counters[axis] = 0;
      from -= size * (strides[axis] ?? 0);
    }
  }
}

const rowMajor = (shape: Shape): number[] => shape.map((_, axis) => elementCount(shape.slice(axis + 1)));

function strided(node: LoweringNode<ComputeOp>, strides: readonly number[], offset: number): ReturnType<LoweringRule<ComputeOp, CpuKernel>> {
  const { shape } = node.output.type;
  return plain(node, (context) => {
    const [x, y] = [context.u32(0), context.u32(1)];
    return () => copyStrided(x, y, shape, strides, offset);
  });
}

export const permute: LoweringRule<'permute', CpuKernel> = (node) => {
  const strides = rowMajor(inputOf(node, 0).type.shape);
  return strided(
    node,
    node.params.perm.map((axis) => strides[axis] ?? 1),
    0,
  );
};

export const expand: LoweringRule<'expand', CpuKernel> = (node) => strided(node, broadcastStrides(inputOf(node, 0).type.shape, node.params.shape), 0);

export const slice: LoweringRule<'slice', CpuKernel> = (node) => {
  const { axis, start, step } = node.params;
  const strides = rowMajor(inputOf(node, 0).type.shape);
  return strided(
    node,
    strides.map((stride, i) => (i === axis ? stride * step : stride)),
    start * (strides[axis] ?? 1),
  );
};

export const stridedView: LoweringRule<'strided', CpuKernel> = (node) => strided(node, node.params.strides, node.params.offset);

export const concat: LoweringRule<'concat', CpuKernel> = (node) => {
  const { axis } = node.params;
  const whole = linesAlong(node.output.type.shape, [axis]);
  return plain(node, (context) => {
    const y = context.u32(node.inputs.length);
    const parts = node.inputs.map((ref, i) => ({ data: context.u32(i), block: linesAlong(ref.type.shape, [axis]).count * whole.inner }));
    return () => {
      let at = 0;
      for (let o = 0; o < whole.outer; o++) {
        for (const { data, block } of parts) {
          y.set(data.subarray(o * block, (o + 1) * block), at);
          at += block;
        }
      }
    };
  });
};

export const gather: LoweringRule<'gather', CpuKernel> = (node) => {
  const { outer, count, inner } = linesAlong(inputOf(node, 0).type.shape, [node.params.axis]);
  const wanted = elementCount(inputOf(node, 1).type.shape);
  return plain(node, (context) => {
    const [x, indices, y] = [context.u32(0), context.u32(1), context.u32(2)];
    return () => {
      let at = 0;
      for (let o = 0; o < outer; o++) {
        for (let i = 0; i < wanted; i++) {
          const from = (o * count + Math.min(indices[i] ?? 0, count - 1)) * inner;
          for (let j = 0; j < inner; j++) y[at++] = x[from + j] ?? 0;
        }
      }
    };
  });
};

/** Sums in f64, rounded as they are written. */
export const cumsum: LoweringRule<'cumsum', CpuKernel> = (node) => {
  const { axis, exclusive } = node.params;
  const lines = linesAlong(inputOf(node, 0).type.shape, [axis]);
  return plain(node, (context) => {
    const [x, y] = [context.f32(0), context.f32(1)];
    return () =>
      forEachLine(lines, (first) => {
        let sum = 0;
        for (let c = 0, at = first; c < lines.count; c++, at += lines.inner) {
          const next = sum + (x[at] ?? 0);
          y[at] = exclusive ? sum : next;
          sum = next;
        }
      });
  });
};

/** A heap of the best k so far, its root the last of them; then sorted. */
export const topK: LoweringRule<'topK', CpuKernel> = (node) => {
  const { k, output } = node.params;
  const width = inputOf(node, 0).type.shape.at(-1) ?? 1;
  const rows = elementCount(inputOf(node, 0).type.shape) / width;
  return plain(node, (context) => {
    const [x, y] = [context.f32(0), output === 'values' ? context.f32(1) : context.u32(1)];
    const heap = new Uint32Array(k);
    return () => {
      for (let row = 0; row < rows; row++) {
        const values = x.subarray(row * width, (row + 1) * width);
        best(values, heap);
        heap.sort((a, b) => (precedes(values, a, b) ? -1 : 1));
        for (let i = 0; i < k; i++) y[row * k + i] = output === 'values' ? (values[heap[i] ?? 0] ?? 0) : (heap[i] ?? 0);
      }
    };
  });
};

/** Fills `heap` with the indices of the largest values. */
function best(values: Float32Array, heap: Uint32Array): void {
  const size = heap.length;
  for (let i = 0; i < size; i++) heap[i] = i;
  for (let i = (size >> 1) - 1; i >= 0; i--) sink(values, heap, i);
  for (let i = size; i < values.length; i++) {
    if (!precedes(values, i, heap[0] ?? 0)) continue;
    heap[0] = i;
    sink(values, heap, 0);
  }
}

/** Restores the order below `start`: no child comes after its parent. */
function sink(values: Float32Array, heap: Uint32Array, start: number): void {
  const size = heap.length;
  let at = start;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= size) return;
    if (child + 1 < size && precedes(values, heap[child] ?? 0, heap[child + 1] ?? 0)) child += 1;
    const [parent, lower] = [heap[at] ?? 0, heap[child] ?? 0];
    if (!precedes(values, parent, lower)) return;
    heap[at] = lower;
    heap[child] = parent;
    at = child;
  }
}

export const conv2d: LoweringRule<'conv2d', CpuKernel> = (node) => {
  const geometry = convGeometry(inputOf(node, 0).type.shape, inputOf(node, 1).type.shape, node.params);
  return plain(node, (context) => {
    const [x, kernel, y] = [context.f32(0), context.f32(1), context.f32(2)];
    return () => void convolve(x, kernel, geometry, y);
  });
};

export const tileReduce: LoweringRule<'tileReduce', CpuKernel> = (node) => {
  const [rows = 1, columns = 1] = inputOf(node, 0).type.shape;
  const count = elementCount(node.output.type.shape);
  const fold = tileFolds[node.params.fn];
  return plain(node, (context) => {
    const [x, y, tile] = [context.f32(0), context.f32(1).subarray(0, count), new Float32Array(256)];
    return () => void partialsOf(fold, x, rows, columns, y, tile);
  });
};
