/**
 * Products of matrices to about twice the digits of f32, for the refinement of eigenvectors. Each factor is split on a grid of 2^-11: the product of the
 * coarse parts is summed in whole numbers, without error; of what is left, at most 2^-12 of a factor, the rounding of f32 does not matter.
 */

import type { GpuKernel } from '../core/kernel.js';
import { declareBindings, defineKernel } from './template.js';

const tile = 16;
const grid = 2048;

/** One whole number of `jacobiProductKernel`'s result. */
export const productUnit = grid ** -2;

/**
 * P^T Q = whole * `productUnit` + part. Bindings: P, Q (f32 [n, n]), whole (i32 [n, n]), part (f32 [n, n]), a uniform of 16 bytes whose first word is n. The columns
 * of P and Q must be such that the product of their lengths stays below 512.
 */
export function jacobiProductKernel(n: number): GpuKernel {
  const kernel = defineKernel({
    family: 'jacobi_product',
    params: {},
    bindings: ['read', 'read', 'read_write', 'read_write', 'uniform'],
    workgroups: [1, 1, 1],
    workgroupSize: [tile, tile, 1],
    wgsl: productText,
  });
  return { ...kernel, workgroups: [Math.ceil(n / tile), Math.ceil(n / tile), 1], minBindingSizes: [4, 4, 4, 4, 16] };
}

function productText(): string {
  return `${declareBindings([
    ['p', 'f32', 'read'],
    ['q', 'f32', 'read'],
    ['whole', 'i32', 'read_write'],
    ['part', 'f32', 'read_write'],
    ['shape', 'vec4<u32>', 'uniform'],
  ])}
@compute @workgroup_size(${tile}, ${tile})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let n = shape.x;
  if (id.x >= n || id.y >= n) { return; }
  var wholeSum = 0i;
  var partSum = 0f;
  for (var k = 0u; k < n; k++) {
    let a = p[k * n + id.y];
    let b = q[k * n + id.x];
    let wholeA = round(a * ${grid}f);
    let wholeB = round(b * ${grid}f);
    let coarseB = wholeB * ${1 / grid}f;
    wholeSum += i32(wholeA) * i32(wholeB);
    partSum += a * (b - coarseB) + (a - wholeA * ${1 / grid}f) * coarseB;
  }
  whole[id.y * n + id.x] = wholeSum;
  part[id.y * n + id.x] = partSum;
}
`;
}
