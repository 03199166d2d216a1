/** Copies of 4-byte elements by strides: what permute, expand and slice are on a device. */

import type { GpuKernel } from '../core/kernel.js';
import type { Shape } from '../core/tensor.js';
import { elementKernel } from './element-kernel.js';
import { declareBindings, defineKernel, foldGrid, mainHead } from './template.js';

/** One axis of the output, slowest first; `stride` is in elements of the source: 0 repeats, negative walks backwards. */
export interface CopyAxis {
  readonly size: number;
  readonly stride: number;
}

/** Row-major strides in elements. */
export function rowMajorStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = (strides[axis + 1] ?? 1) * (shape[axis + 1] ?? 1);
  return strides;
}

/** Axes of size 1 dropped, neighbours that are walked as one merged; at least one axis remains. */
export function mergeAxes(axes: readonly CopyAxis[]): readonly CopyAxis[] {
  const merged: CopyAxis[] = [];
  for (const axis of axes.toReversed()) {
    const inner = merged[0];
    if (axis.size === 1) continue;
    if (inner !== undefined && axis.stride === inner.stride * inner.size) merged[0] = { size: axis.size * inner.size, stride: inner.stride };
    else merged.unshift(axis);
  }
  return merged.length > 0 ? merged : [{ size: 1, stride: 0 }];
}

/** y[i0, i1, ...] = x[offset + sum i stride]. Bindings: x, y. A thread copies one element; large transpositions go through workgroup memory. */
export function stridedCopyKernel(axes: readonly CopyAxis[], offset: number): GpuKernel {
  const merged = mergeAxes(axes);
  const count = merged.reduce((product, { size }) => product * size, 1);
  const transposed = transposition(merged, offset);
  if (transposed !== undefined) return transposed;
  return elementKernel({
    family: 'strided_copy',
    params: { axes: merged.map(({ size, stride }) => [size, stride]), offset },
    count,
    bindings: [
      ['x', 'u32', 'read'],
      ['y', 'u32', 'read_write'],
    ],
    body: () => `${sourceIndex(merged, offset)}  y[index] = x[u32(at)];
`,
  });
}

/** Declares `at`, the source's element for the output's element `index`. */
function sourceIndex(axes: readonly CopyAxis[], offset: number): string {
  const lines = ['  var rest = index;\n', `  var at = ${offset}i;\n`];
  axes.toReversed().forEach(({ size, stride }, depth) => {
    const last = depth === axes.length - 1;
    const digit = last ? 'rest' : `(rest % ${size}u)`;
    if (stride !== 0) lines.push(`  at += i32(${digit}) * ${stride < 0 ? `(${stride}i)` : `${stride}i`};\n`);
    if (!last) lines.push(`  rest /= ${size}u;\n`);
  });
  return lines.join('');
}

const tile = 32;

/** The kernel of [batch,] rows x columns read column by column, where both are long enough for tiles to pay; undefined otherwise. */
function transposition(axes: readonly CopyAxis[], offset: number): GpuKernel | undefined {
  const [batch, rows, columns] = axes.length === 2 ? [{ size: 1, stride: 0 }, ...axes] : axes;
  if (axes.length > 3 || batch === undefined || rows === undefined || columns === undefined) return undefined;
  if (rows.stride !== 1 || columns.stride < tile || rows.size < tile || columns.size < tile || batch.stride < 0) return undefined;
  const [across, down] = [Math.ceil(columns.size / tile), Math.ceil(rows.size / tile)];
  const groups = batch.size * across * down;
  return defineKernel({
    family: 'transpose',
    params: { axes: [batch, rows, columns].map(({ size, stride }) => [size, stride]), offset },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: 256,
    workgroupBytes: tile * (tile + 1) * 4,
    // The tile is read along the source's rows and written along the output's; one word of padding a row keeps the turned reads in different memory banks.
    wgsl: () => `${declareBindings([
      ['x', 'u32', 'read'],
      ['y', 'u32', 'read_write'],
    ])}var<workgroup> cells: array<u32, ${tile * (tile + 1)}>;
${mainHead(groups, 256)}  let left = group % ${across}u * ${tile}u;
  let top = group / ${across}u % ${down}u * ${tile}u;
  let plane = group / ${across * down}u;
  let a = local % ${tile}u;
  let b = local / ${tile}u;
  for (var k = 0u; k < ${tile}u; k += 8u) {
    let row = top + a;
    let column = left + b + k;
    if (row < ${rows.size}u && column < ${columns.size}u) {
      cells[(b + k) * ${tile + 1}u + a] = x[${offset}u + plane * ${batch.stride}u + row + column * ${columns.stride}u];
    }
  }
  workgroupBarrier();
  for (var k = 0u; k < ${tile}u; k += 8u) {
    let row = top + b + k;
    let column = left + a;
    if (row < ${rows.size}u && column < ${columns.size}u) {
      y[(plane * ${rows.size}u + row) * ${columns.size}u + column] = cells[a * ${tile + 1}u + b + k];
    }
  }
}
`,
  });
}

/** The axes of the output of a permutation: output axis i is axis perm[i] of x. */
export function permutedAxes(shape: Shape, perm: readonly number[]): readonly CopyAxis[] {
  const strides = rowMajorStrides(shape);
  return perm.map((axis) => ({ size: shape[axis] ?? 1, stride: strides[axis] ?? 1 }));
}
