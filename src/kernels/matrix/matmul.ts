/** Products of two matrices that may be rounded to f16, on subgroup matrices: when they are chosen, and the steps that run them. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import type { Step } from '../../core/step.js';
import { roundUp } from '../../core/tensor.js';
import { need } from '../../ops/definition.js';
import type { OpParams, RegionOperand, RegionStep } from '../../ops/params.js';
import type { LoweringContext, LoweringNode, TensorRef } from '../../ops/target.js';
import { epilogueOf } from '../gemm/epilogue.js';
import type { GemmShape } from '../gemm/shape.js';
import { arg } from '../template.js';
import { type GemmProblem, gemmKernel } from './gemm.js';
import { halvesKernel, turnedHalvesKernel } from './halves.js';
import { depthUnit, type MatrixChoice, selectMatrix } from './linear.js';
import { splitSumKernel } from './split-sum.js';

/** The least of rows, columns and depth for which making operands f16 is worth it. */
const leastMatrixSide = 128;

/** Pure: the tile of a product whose operands may be rounded, or undefined on devices without matrices and for small products. `leastSide` is lowered by tests. */
export function selectMatmulMatrix(
  { m, n, k }: Pick<GemmShape, 'm' | 'n' | 'k'>,
  params: OpParams['matmul'],
  capabilities: GpuCapabilities,
  leastSide = leastMatrixSide,
): MatrixChoice | undefined {
  if (params.rounded !== true || Math.min(m, n, k) < leastSide) return undefined;
  return selectMatrix({ rows: m, outputs: n, depth: k }, capabilities, 1);
}

/** Both operands become f16 [lines, depth]; alpha and the epilogue are done by the kernel that adds up the parts, or by the same kernel over one part. */
export function matmulMatrixSteps(node: LoweringNode<'matmul'>, context: LoweringContext, choice: MatrixChoice): readonly Step<GpuKernel>[] {
  const [a, b] = [need(node.inputs[0]), need(node.inputs[1])];
  const { label, id, output, params } = node;
  const [m = 0, n = 0] = output.type.shape;
  const k = a.type.shape[params.transposeA ? 0 : 1] ?? 0;
  const depth = roundUp(k, depthUnit);
  const left = halves(node, context, a, m, k, params.transposeA);
  const right = halves(node, context, b, n, k, !params.transposeB);
  const steps = finishSteps(params);
  const whole = choice.splits === 1 && steps.length === 0;
  const problem: GemmProblem = { rows: m, outputs: n, depth, columns: n, start: 0, bias: false, residual: 'none', splits: choice.splits };
  const y = whole ? output : context.scratch({ dtype: 'f32', shape: [choice.splits, m, n] });
  const kernel = gemmKernel(problem, choice.tile, choice.subgroupSize);
  const product = { label, node: id, kernel, args: [arg(left.ref, 'read'), arg(right.ref, 'read'), arg(y, 'write')] };
  if (whole) return [left.step, right.step, product];
  const extras = node.inputs.slice(2);
  const shapes = extras.map((ref) => ref.type.shape);
  const epilogue = steps.length === 0 ? {} : { epilogue: epilogueOf(steps, shapes, output.type.shape) };
  const sum = splitSumKernel({ splits: choice.splits, rows: m, outputs: n, columns: n, start: 0, bias: false, residual: 'none', ...epilogue });
  const args = [arg(y, 'read'), ...extras.map((ref) => arg(ref, 'read')), arg(output, 'write')];
  return [left.step, right.step, product, { label: `${label} finish`, node: id, kernel: sum, args }];
}

/** A matrix as f16 [lines, depth filled up with zeros]; `turned`: it lies as [depth, lines]. */
function halves(
  { label, id }: LoweringNode<'matmul'>,
  context: LoweringContext,
  matrix: TensorRef,
  lines: number,
  k: number,
  turned: boolean,
): { readonly ref: TensorRef; readonly step: Step<GpuKernel> } {
  const depth = roundUp(k, depthUnit);
  const ref = context.scratch({ dtype: 'f16', shape: [lines, depth] });
  const kernel = turned ? turnedHalvesKernel(lines, k, depth) : halvesKernel(lines, k, depth);
  return { ref, step: { label: `${label} f16`, node: id, kernel, args: [arg(matrix, 'read'), arg(ref, 'write')] } };
}

/** alpha, then the epilogue, as steps over the sum. */
export function finishSteps({ alpha, epilogue = [] }: OpParams['matmul']): readonly RegionStep[] {
  if (alpha === 1) return epilogue;
  const moved = (of: RegionOperand): RegionOperand => ('input' in of && of.input === 0 ? { step: 0 } : 'step' in of ? { step: of.step + 1 } : of);
  const rest = epilogue.map((step): RegionStep => {
    if (step.op === 'unary') return { ...step, x: moved(step.x) };
    if (step.op === 'where') return { ...step, condition: moved(step.condition), x: moved(step.x), y: moved(step.y) };
    return { ...step, x: moved(step.x), y: moved(step.y) };
  });
  return [{ op: 'unary', fn: 'scale', a: alpha, x: { input: 0 } }, ...rest];
}
