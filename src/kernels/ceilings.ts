/** Kernels that do one thing as fast as a device can: what other kernels' rates are held against. */

import type { GpuKernel } from '../core/kernel.js';
import { declareBindings, defineKernel, foldGrid, mainHead, repeat } from './template.js';

const threads = 256;
/** Vectors of 16 bytes that a thread has on their way at once. */
const loads = 8;

/** Workgroups of the reading kernel over `vectors` vec4<u32>: each thread takes `rounds` times `loads` of them. */
const readRounds = 4;

/** Vectors of which every one is read once: a multiple of this many. */
export const readUnit = threads * loads * readRounds;

/** Reads `vectors` (a multiple of `readUnit`) vec4<u32> and keeps nothing; y [1] is there so that the loads are not dropped. */
export function readKernel(vectors: number): GpuKernel {
  const groups = vectors / readUnit;
  return defineKernel({
    family: 'ceiling_read',
    params: { vectors },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    wgsl: () => `${declareBindings([
      ['x', 'vec4<u32>', 'read'],
      ['y', 'u32', 'read_write'],
    ])}${mainHead(groups, threads)}  var all = vec4<u32>();
  for (var round = 0u; round < ${readRounds}u; round++) {
    let base = (group * ${readRounds}u + round) * ${threads * loads}u + local;
${repeat(loads, (i) => `    let v${i} = x[base + ${i * threads}u];`)}
    all ^= ${repeat(loads, (i) => `v${i}`, ' ^ ')};
  }
  // Never so: the buffer holds zeros.
  if (all.x == 0x9e3779b9u && all.y == 0x7f4a7c15u) { y[0] = all.z ^ all.w; }
}
`,
  });
}

const chains = 8;
const steps = 512;

/** Multiplications and additions of one run of `multiplyKernel`. */
export const multiplyFlops = (groups: number): number => groups * threads * chains * steps * 2;

/** Chains of fused multiply-adds in registers; y f32 [groups * threads] keeps them alive. */
export function multiplyKernel(groups: number): GpuKernel {
  return defineKernel({
    family: 'ceiling_multiply',
    params: { groups },
    bindings: ['read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    wgsl: () => `${declareBindings([['y', 'f32', 'read_write']])}${mainHead(groups, threads)}  let seed = y[group * ${threads}u + local];
${repeat(chains, (i) => `  var c${i} = seed + ${i}.0f;`)}
  for (var step = 0u; step < ${steps / 8}u; step++) {
${repeat(8, () => repeat(chains, (i) => `    c${i} = fma(c${i}, 0.5f, seed);`))}
  }
  y[group * ${threads}u + local] = ${repeat(chains, (i) => `c${i}`, ' + ')};
}
`,
  });
}

export const multiplyThreads = threads;
