/** Noise for measurements: words whose halves are f16 numbers below 1, and which are f32 numbers below 2^-7, never infinite nor NaN. */

import type { GpuKernel } from '../core/kernel.js';
import { declareBindings, defineKernel, foldGrid, mainHead } from './template.js';

const mostGroups = 4096;
const threads = 256;

/** Fills a buffer of `words` words. */
export function noiseKernel(words: number): GpuKernel {
  const groups = Math.min(mostGroups, Math.ceil(words / threads));
  return defineKernel({
    family: 'noise',
    params: { words },
    bindings: ['read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    wgsl: () => `${declareBindings([['y', 'u32', 'read_write']])}${mainHead(groups, threads)}  for (var i = 0u; i < ${Math.ceil(words / (groups * threads))}u; i++) {
    let at = (i * ${groups}u + group) * ${threads}u + local;
    var h = at * 747796405u + 2891336453u;
    h = ((h >> ((h >> 28u) + 4u)) ^ h) * 277803737u;
    if (at < ${words}u) { y[at] = ((h >> 22u) ^ h) & 0xbbffbbffu; }
  }
}
`,
  });
}
