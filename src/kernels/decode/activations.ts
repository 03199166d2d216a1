/**
 * 8-bit activations: one vector of K values as the kernels of a decode step hand it on. Every 16 values share a scale, so that a workgroup of 16 results can finish its own block.
 *
 * In words of 4 bytes, K a multiple of 32:
 * - K/8: quants of the even blocks of 16, four to a word; K/8: those of the odd blocks (a block of 32 weights meets one vec4 of each)
 * - K/8: for each block f32 scale and f32 scale times the sum of its quants
 * - K/16: for each block the sum of the squares of the plain values, for the norm that follows
 */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import { roundUp, type TensorType } from '../../core/tensor.js';
import { declareBindings, defineKernel, foldGrid, mainHead } from '../template.js';

export const activationForm = 'int8';

/** Values that share a scale. */
export const activationBlock = 16;

export function activationType(width: number): TensorType {
  return { dtype: 'u32', shape: [roundUp((width * 7) / 16, 4)] };
}

/** First vec4 of each part. */
export function activationParts(width: number): { readonly odd: number; readonly scales: number; readonly squares: number } {
  return { odd: width / 32, scales: width / 16, squares: (width * 3) / 32 };
}

/**
 * Text of `fn packBlock(values, squares, slot)`: four neighbours hand in the 16 values of block `slot / 4`; all lanes of a subgroup call it, `store` says which of them write. Magnitudes are
 * compared by their bits, which order NaN above all numbers: the scale of such a block is NaN, and what is multiplied with it.
 */
export function packFunction(width: number, name = 'packed'): string {
  return `fn packBlock(values: vec4<f32>, plain: vec4<f32>, slot: u32, store: bool) {
  let size = bitcast<vec4<u32>>(values) & vec4<u32>(0x7fffffffu);
  var bits = max(max(size.x, size.y), max(size.z, size.w));
  bits = max(bits, subgroupShuffleXor(bits, 1u));
  bits = max(bits, subgroupShuffleXor(bits, 2u));
  let most = bitcast<f32>(bits);
  let quants = vec4<i32>(round(values * select(0.0, 127.0 / most, most > 0.0)));
  var sum = quants.x + quants.y + quants.z + quants.w;
  sum += subgroupShuffleXor(sum, 1u);
  sum += subgroupShuffleXor(sum, 2u);
  var squares = dot(plain, plain);
  squares += subgroupShuffleXor(squares, 1u);
  squares += subgroupShuffleXor(squares, 2u);
  if (store) {
    let block = slot >> 2u;
    let bytes = vec4<u32>(quants & vec4<i32>(255)) << vec4<u32>(0u, 8u, 16u, 24u);
    ${name}[(block & 1u) * ${width / 8}u + (block >> 1u) * 4u + (slot & 3u)] = bytes.x | bytes.y | bytes.z | bytes.w;
    if ((slot & 3u) == 0u) {
      let scale = most / 127.0;
      ${name}[${width / 4}u + block * 2u] = bitcast<u32>(scale);
      ${name}[${width / 4 + 1}u + block * 2u] = bitcast<u32>(scale * f32(sum));
      ${name}[${(width * 3) / 8}u + block] = bitcast<u32>(squares);
    }
  }
}
`;
}

/** The form of a plain vector, for values that no kernel of the decode step has made. */
export function packKernel(width: number, gain: boolean): GpuKernel {
  const threads = 64;
  const quads = width / 4;
  const groups = Math.ceil(quads / threads);
  const bindings = [['x', 'vec4<f32>', 'read'] as const, ...(gain ? [['gain', 'vec4<f32>', 'read'] as const] : []), ['packed', 'u32', 'read_write'] as const];
  return defineKernel({
    family: 'pack_activations',
    params: { width, gain },
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    features: ['subgroups'],
    wgsl: () => `${declareBindings(bindings)}${packFunction(width)}${mainHead(groups, threads)}  let slot = group * ${threads}u + local;
  let at = min(slot, ${quads - 1}u);
  let value = x[at];
  packBlock(value${gain ? ' * gain[at]' : ''}, value, at, slot < ${quads}u);
}
`,
  });
}

/** Why a device lacks the subgroups that these kernels share values in, or undefined. */
export function refuseSubgroups({ subgroups, subgroupMinSize, subgroupMaxSize }: GpuCapabilities): string | undefined {
  if (subgroups && subgroupMinSize === subgroupMaxSize && subgroupMinSize >= 8) return undefined;
  return 'the device has no subgroups of one size of 8 or more';
}

/** Whether a device can use 8-bit activations as these kernels do: dot products of packed bytes, and subgroups of one size of at least 8. */
export function packsActivations(capabilities: GpuCapabilities): string | undefined {
  return capabilities.packedDot ? refuseSubgroups(capabilities) : 'the device has no dot products of packed bytes';
}
