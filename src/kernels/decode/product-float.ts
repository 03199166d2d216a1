/**
 * Products of one token with weights of any type, f32 activations in: a team of lanes to a few rows of weights, the activations staged in workgroup memory where they fit, the first weight loads
 * issued before the barrier. The norm in front is applied to the sums: the gain multiplies the activations as they are staged, and every workgroup adds up their squares for itself. Ends: the sums,
 * with a bias and a residual, silu(gate) * up, or the largest of each workgroup.
 */

import type { GpuKernel } from '../../core/kernel.js';
import { weightReader } from '../blocks.js';
import { defineKernel, foldGrid } from '../template.js';
import { type FloatProblem, type FloatShape, floatBytes, floatGroups } from './product-float-shape.js';
import { type Binding, FloatText } from './product-float-text.js';

/** Bindings in the order of the step's arguments: activations, gain, weights, biases, residual, then the outputs (plain, best). */
function bindingsOf({ matrices, end, eps, plain, best }: FloatProblem): readonly Binding[] {
  return [
    ['x', 'vec4<f32>', 'read'],
    ...(eps === undefined ? [] : [['gain', 'vec4<f32>', 'read'] as const]),
    ...matrices.map(({ layout }, i): Binding => [`w${i}`, weightReader(layout).element, 'read']),
    ...matrices.flatMap(({ biasStart }, i): Binding[] => (biasStart === undefined ? [] : [[`bias${i}`, 'f32', 'read']])),
    ...(end === 'residual' ? [['residual', 'f32', 'read'] as const] : []),
    ...(plain ? [['y', 'f32', 'read_write'] as const] : []),
    ...(best === undefined ? [] : [['bests', 'vec2<u32>', 'read_write'] as const]),
  ];
}
export function floatKernel(problem: FloatProblem, shape: FloatShape): GpuKernel {
  const bindings = bindingsOf(problem);
  const total = floatGroups(problem, shape).reduce((sum, count) => sum + count, 0);
  const { depth, eps, end, plain, best } = problem;
  return defineKernel({
    family: 'token_product_f32',
    params: {
      matrices: problem.matrices.map(({ layout, start, biasStart }) => ({ type: layout.dtype, rows: layout.rows, start, bias: biasStart ?? 'none' })),
      ...{ depth, eps: eps ?? 'none', end, plain, best: best ?? 'none' },
      ...shape,
    },
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(total),
    workgroupSize: shape.lanes * shape.teams,
    workgroupBytes: floatBytes(problem, shape),
    features: shape.adding === 'subgroup' ? ['subgroups'] : [],
    wgsl: () => new FloatText(problem, shape, bindings).whole(total),
  });
}
