import type { Step } from '../../core/step.js';
import type { LoweringContext, LoweringNode, LoweringRule, TensorRef } from '../../ops/target.js';
import type { CpuKernel } from '../kernel.js';
import { cpuStep, inputOf } from '../step.js';
import { linear } from './linear.js';
import { region } from './tensor.js';

/** The product that `linear` has, x wᵀ: operands that lie otherwise are copied first, and `alpha` goes into a copy; an epilogue follows as a region. */
export const matmul: LoweringRule<'matmul', CpuKernel> = (node, context) => {
  const { epilogue, ...params } = node.params;
  if (epilogue === undefined) return product(node, context);
  const made = context.scratch(node.output.type);
  const inputs = [made, ...node.inputs.slice(2)];
  const plain = { ...node, params, inputs: node.inputs.slice(0, 2), output: made };
  return [...product(plain, context), ...region({ ...node, op: 'region', params: { steps: epilogue }, inputs }, context)];
};

const product: LoweringRule<'matmul', CpuKernel> = (node, context) => {
  const { transposeA, transposeB, alpha } = node.params;
  const [a, b] = [inputOf(node, 0), inputOf(node, 1)];
  const x = transposeA ? turned(node, context, a, true, 1) : { ref: a, steps: [] };
  const w = !transposeB || alpha !== 1 ? turned(node, context, b, !transposeB, alpha) : { ref: b, steps: [] };
  const plain: LoweringNode<'linear'> = { ...node, op: 'linear', params: { bias: false, residual: false }, inputs: [x.ref, w.ref] };
  return [...x.steps, ...w.steps, ...linear(plain, context)];
};

/** A matrix times `alpha`, transposed or as it is, in a scratch value. */
function turned(
  node: LoweringNode<'matmul'>,
  context: LoweringContext,
  matrix: TensorRef,
  transpose: boolean,
  alpha: number,
): { ref: TensorRef; steps: readonly Step<CpuKernel>[] } {
  const [rows = 0, columns = 0] = matrix.type.shape;
  const ref = context.scratch({ dtype: 'f32', shape: transpose ? [columns, rows] : [rows, columns] });
  return { ref, steps: [cpuStep(node, copyKernel(rows, columns, transpose, alpha), [matrix, 'read'], [ref, 'write'])] };
}

/** Rows and columns that are turned together: the source's and the target's cache lines stay in the first-level cache. */
const block = 32;

function copyKernel(rows: number, columns: number, transpose: boolean, alpha: number): CpuKernel {
  return {
    key: `turn:${rows},${columns},${transpose},${alpha}`,
    family: 'matrix copy',
    programs: [],
    bind(context) {
      const [x, y] = [context.f32(0), context.f32(1)];
      if (transpose) return () => transposeInto(x, y, rows, columns, alpha);
      return () => {
        for (let i = 0; i < rows * columns; i++) y[i] = (x[i] ?? 0) * alpha;
      };
    },
  };
}

function transposeInto(x: Float32Array, y: Float32Array, rows: number, columns: number, alpha: number): void {
  for (let top = 0; top < rows; top += block) {
    const bottom = Math.min(top + block, rows);
    for (let left = 0; left < columns; left += block) {
      const right = Math.min(left + block, columns);
      for (let column = left; column < right; column++) {
        for (let row = top; row < bottom; row++) y[column * rows + row] = (x[row * columns + column] ?? 0) * alpha;
      }
    }
  }
}
