import { elementCount } from '../../core/tensor.js';
import { composeDecode } from '../../ops/decode-compose.js';
import { advanceState, noToken } from '../../ops/state.js';
import type { LoweringRule } from '../../ops/target.js';
import type { CpuKernel } from '../kernel.js';
import { cpuStep, inputOf } from '../step.js';
import { attention, rope } from './attention.js';
import { cacheWrite } from './cache.js';
import { swiglu } from './elementwise.js';
import { linear } from './linear.js';
import { indexOfLargest, rmsNorm } from './normalization.js';

function copyKernel(start: number, to: number, count: number): CpuKernel {
  return {
    key: `copy:${start},${to},${count}`,
    family: 'copy',
    programs: [],
    bind(context) {
      const source = context.f32(0).subarray(start, start + count);
      const target = context.f32(1);
      return () => target.set(source, to);
    },
  };
}

/** A CPU has no dispatches to save: the fused operations run as what they are made of. */
const composedRules = composeDecode<CpuKernel>({
  rules: { linear, rmsNorm, swiglu, rope, cacheWrite, attention },
  copy: (node, from, start, target, to, count) => cpuStep(node, copyKernel(start, to, count), [from, 'read'], [target, 'write']),
});

const chooseNext: LoweringRule<'chooseNext', CpuKernel> = (node) => {
  const logits = inputOf(node, 1);
  const width = elementCount(logits.type.shape);
  const kernel: CpuKernel = {
    key: `choose:${width}`,
    family: 'choose',
    programs: [],
    bind(context) {
      const [state, values] = [context.u32(0), context.f32(1)];
      return () => {
        let broken = false;
        for (let i = 0; i < width; i++) broken ||= Number.isNaN(values[i]);
        advanceState(state, broken ? noToken : indexOfLargest(values, 0, width));
      };
    },
  };
  return [cpuStep(node, kernel, [node.output, 'readwrite'], [logits, 'read'])];
};

export const decodeRules = { ...composedRules, chooseNext };
