/** The beginning of a decode step: one row of the embedding, decoded, and its 8-bit form for the first product. */

import type { BindingKind, GpuKernel } from '../../core/kernel.js';
import { weightReader } from '../blocks.js';
import { declareBindings, defineKernel, foldGrid, mainHead } from '../template.js';
import type { WeightLayout } from '../weights-layout.js';
import { packFunction } from './activations.js';

const threads = 64;

/** Bindings: table, id, the gain of the norm that follows, then the row and its 8-bit form times the gain. The table is in one binding, its columns a multiple of 32. */
export function embedKernel(layout: WeightLayout): GpuKernel {
  const { columns, rows } = layout;
  const reader = weightReader(layout);
  const quads = columns / 4;
  const groups = Math.ceil(quads / threads);
  const bindings: readonly (readonly [string, string, BindingKind])[] = [
    ['w', reader.element, 'read'],
    ['ids', 'u32', 'read'],
    ['gain', 'vec4<f32>', 'read'],
    ['y', 'vec4<f32>', 'read_write'],
    ['packed', 'u32', 'read_write'],
  ];
  return defineKernel({
    family: 'embed_token',
    params: { type: layout.dtype, columns, rows },
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(groups),
    workgroupSize: threads,
    features: ['subgroups'],
    wgsl: () => `${declareBindings(bindings)}${reader.functions}${packFunction(columns)}${mainHead(groups, threads)}  let slot = group * ${threads}u + local;
  let quad = min(slot, ${quads - 1}u);
  let value = weight4(min(ids[0], ${rows - 1}u), quad);
  if (slot < ${quads}u) { y[quad] = value; }
  packBlock(value * gain[quad], value, quad, slot < ${quads}u);
}
`,
  });
}
