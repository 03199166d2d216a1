/** Lowering of products with f32 activations: one step, or one for each binding of a weight. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import type { Step } from '../../core/step.js';
import { need } from '../../ops/definition.js';
import type { RowShard } from '../../ops/target.js';
import { arg } from '../template.js';
import { weightLayout } from '../weights-layout.js';
import { bestForm } from './choose.js';
import { floatKernel } from './product-float.js';
import { selectFloat } from './product-float-select.js';
import { type FloatMatrix, type FloatProblem, type FloatShape, floatGroups } from './product-float-shape.js';
import type { ProductNode, ProductPart } from './product-node.js';

export function floatSteps(product: ProductNode, capabilities: GpuCapabilities): readonly Step<GpuKernel>[] {
  const { node, context, x, eps, parts, end } = product;
  const wanted = context.forms?.wanted ?? { plain: true };
  const single = parts.length === 1 && parts[0]?.bias === undefined && end === 'none';
  const best = single && wanted.form?.kind === bestForm;
  const problems = problemsOf(parts).map((matrices): { problem: FloatProblem; shape: FloatShape } => {
    const problem = { depth: x.type.shape[1] ?? 0, matrices, eps, end, plain: wanted.plain || !best, best: best ? 0 : undefined };
    return { problem, shape: selectFloat(problem, capabilities) };
  });
  const counts = problems.map(({ problem, shape }) => floatGroups(problem, shape).reduce((sum, count) => sum + count, 0));
  const pairs = best ? context.scratch({ dtype: 'u32', shape: [counts.reduce((sum, count) => sum + count, 0), 2] }) : undefined;
  if (pairs !== undefined) context.forms?.provide(pairs);
  return problems.map(({ problem, shape }, shard): Step<GpuKernel> => {
    const first = counts.slice(0, shard).reduce((sum, count) => sum + count, 0);
    const kernel = floatKernel(best ? { ...problem, best: first } : problem, shape);
    const label = problems.length === 1 ? node.label : `${node.label} (rows ${problem.matrices[0]?.start} on)`;
    const outputs = [...(problem.plain ? [arg(node.output, 'write')] : []), ...(pairs === undefined ? [] : [arg(pairs, 'write')])];
    return { label, node: node.id, kernel, args: [...inputsOf(product, shard), ...outputs] };
  });
}

function inputsOf({ x, gain, parts, residual }: ProductNode, shard: number): Step<GpuKernel>['args'] {
  return [
    arg(x, 'read'),
    ...(gain === undefined ? [] : [arg(gain, 'read')]),
    ...parts.map(({ weight }) => ({ value: weight.id, shard, access: 'read' }) as const),
    ...parts.flatMap(({ bias }) => (bias === undefined ? [] : [arg(bias, 'read')])),
    ...(residual === undefined ? [] : [arg(residual, 'read')]),
  ];
}

/** The matrices of each step: all parts in one, or the bindings of the only one. */
function problemsOf(parts: readonly ProductPart[]): readonly (readonly FloatMatrix[])[] {
  const matrixOf = ({ weight, bias }: ProductPart, start: number, { start: first, rows }: RowShard): FloatMatrix => ({
    layout: weightLayout({ dtype: weight.type.dtype, shape: [rows, ...weight.type.shape.slice(1)] }),
    start: start + first,
    biasStart: bias === undefined ? undefined : first,
  });
  const [only] = parts;
  if (only !== undefined && parts.length === 1) return only.weight.shards.map((shard) => [matrixOf(only, 0, shard)]);
  let start = 0;
  return [
    parts.map((part) => {
      const matrix = matrixOf(part, start, need(part.weight.shards[0]));
      start += part.weight.type.shape[0] ?? 0;
      return matrix;
    }),
  ];
}
