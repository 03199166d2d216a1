/**
 * Kernels on subgroup matrices as kernels that every adapter runs: 32 threads in order stand for a subgroup, each holds 8 elements of a matrix of 16 x 16, and what passes between threads passes
 * through workgroup memory. It takes kernels whose matrices lie in a workgroup array of vec4<u32> called `memory` and that use them in uniform control flow.
 */

import type { GpuKernel } from '../../src/core/kernel.js';

/** Where matrices are made and used, as calls of functions. */
const calls: readonly (readonly [from: string, to: string])[] = [
  [', @builtin(subgroup_id) subgroup: u32', ''],
  ['Sum(0.0f)', 'Matrix()'],
  ['subgroupMatrixLoad<Left, row_major>(&memory,', 'loadHalves(false, local,'],
  ['subgroupMatrixLoad<Right, row_major>(&memory,', 'loadHalves(false, local,'],
  ['subgroupMatrixLoad<Right, col_major>(&memory,', 'loadHalves(true, local,'],
  ['subgroupMatrixLoad<Sum, row_major>(&memory,', 'loadFloats(local,'],
  ['subgroupMatrixStore<row_major>(&memory,', 'storeFloats(local,'],
  ['subgroupMatrixMultiplyAccumulate(', 'multiplyAdd(local, '],
  ['subgroupShuffleXor(', 'shuffleXor(local, '],
  [
    'vec4<u32>(bitcast<vec2<u32>>(vec4<f16>(a)), bitcast<vec2<u32>>(vec4<f16>(b)))',
    'vec4<u32>(pack2x16float(a.xy), pack2x16float(a.zw), pack2x16float(b.xy), pack2x16float(b.zw))',
  ],
];

const functions = (threads: number): string => `struct Matrix { v: array<f32, 8> }
var<workgroup> left: array<f32, ${threads * 8}>;
var<workgroup> right: array<f32, ${threads * 8}>;
fn loadHalves(columns: bool, local: u32, at: u32, stride: u32) -> Matrix {
  var m: Matrix;
  for (var i = 0u; i < 8u; i++) {
    let e = (local % 32u) * 8u + i;
    let line = select(e / 16u, e % 16u, columns);
    let place = select(e % 16u, e / 16u, columns);
    m.v[i] = unpack2x16float(memory[at + line * stride + place / 8u][(place % 8u) / 2u])[place % 2u];
  }
  return m;
}
fn loadFloats(local: u32, at: u32, stride: u32) -> Matrix {
  var m: Matrix;
  for (var i = 0u; i < 8u; i++) {
    let e = (local % 32u) * 8u + i;
    m.v[i] = bitcast<f32>(memory[at + (e / 16u) * stride + (e % 16u) / 4u][e % 4u]);
  }
  return m;
}
fn storeFloats(local: u32, at: u32, m: Matrix, stride: u32) {
  for (var i = 0u; i < 8u; i++) {
    let e = (local % 32u) * 8u + i;
    memory[at + (e / 16u) * stride + (e % 16u) / 4u][e % 4u] = bitcast<u32>(m.v[i]);
  }
}
fn multiplyAdd(local: u32, a: Matrix, b: Matrix, c: Matrix) -> Matrix {
  let base = local / 32u * 256u;
  workgroupBarrier();
  for (var i = 0u; i < 8u; i++) {
    left[local * 8u + i] = a.v[i];
    right[local * 8u + i] = b.v[i];
  }
  workgroupBarrier();
  var m = c;
  for (var i = 0u; i < 8u; i++) {
    let e = (local % 32u) * 8u + i;
    for (var k = 0u; k < 16u; k++) { m.v[i] += left[base + e / 16u * 16u + k] * right[base + k * 16u + e % 16u]; }
  }
  workgroupBarrier();
  return m;
}
fn shuffleXor(local: u32, x: f32, distance: u32) -> f32 {
  workgroupBarrier();
  left[local] = x;
  workgroupBarrier();
  let y = left[local ^ distance];
  workgroupBarrier();
  return y;
}
`;

export function writtenOut(kernel: GpuKernel): GpuKernel {
  const text = (): string => {
    const plain = calls
      .reduce((wgsl, [from, to]) => wgsl.replaceAll(from, to), kernel.wgsl())
      .replace(/enable \w+;\n|diagnostic\([^)]*\);\n|alias (Left|Right|Sum) [^\n]*\n/g, '')
      .replace(/let group = [^;]*;/, '$&\n  let subgroup = local / 32u;');
    return plain.replace('@compute', `${functions(kernel.workgroupSize[0])}@compute`);
  };
  return { ...kernel, key: `written out ${kernel.key}`, features: [], wgsl: text };
}
