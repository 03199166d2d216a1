import { elementCount } from '../../core/tensor.js';
import type { LoweringRule } from '../../ops/target.js';
import type { CpuKernel } from '../kernel.js';
import { axisOf, cpuStep, inputOf } from '../step.js';

export const rmsNorm: LoweringRule<'rmsNorm', CpuKernel> = (node) => {
  const [x, gain] = [inputOf(node, 0), inputOf(node, 1)];
  const width = axisOf(x, -1);
  const kernel = rmsNormKernel(elementCount(x.type.shape) / width, width, node.params.eps);
  return [cpuStep(node, kernel, [x, 'read'], [gain, 'read'], [node.output, 'write'])];
};

/** Sums in f64: a few microseconds a row, next to milliseconds of products. */
function rmsNormKernel(rows: number, width: number, eps: number): CpuKernel {
  return {
    key: `rmsNorm:${rows},${width},${eps}`,
    family: 'rmsNorm',
    programs: [],
    bind(context) {
      const [x, gain, y] = [context.f32(0), context.f32(1), context.f32(2)];
      return () => {
        for (let start = 0; start < rows * width; start += width) {
          let sum = 0;
          for (let i = start; i < start + width; i++) sum += (x[i] ?? 0) * (x[i] ?? 0);
          const scale = 1 / Math.sqrt(sum / width + eps);
          for (let i = 0; i < width; i++) y[start + i] = (x[start + i] ?? 0) * scale * (gain[i] ?? 0);
        }
      };
    },
  };
}

export const argmax: LoweringRule<'argmax', CpuKernel> = (node) => {
  const x = inputOf(node, 0);
  const [rows, width] = [axisOf(x, 0), axisOf(x, 1)];
  const kernel: CpuKernel = {
    key: `argmax:${rows},${width}`,
    family: 'argmax',
    programs: [],
    bind(context) {
      const [values, y] = [context.f32(0), context.u32(1)];
      return () => {
        for (let row = 0; row < rows; row++) y[row] = indexOfLargest(values, row * width, width);
      };
    },
  };
  return [cpuStep(node, kernel, [x, 'read'], [node.output, 'write'])];
};

/** The lowest index of the largest value; NaN is chosen only where all are NaN. */
export function indexOfLargest(values: Float32Array, start: number, count: number): number {
  let best = 0;
  let largest = values[start] ?? Number.NaN;
  for (let i = 1; i < count; i++) {
    const value = values[start + i] ?? Number.NaN;
    if (value > largest || (Number.isNaN(largest) && !Number.isNaN(value))) {
      largest = value;
      best = i;
    }
  }
  return best;
}
