import { composeDecode } from '../../ops/decode-compose.js';
import type { CpuKernel } from '../kernel.js';
import { cpuStep } from '../step.js';
import { advance, attention, cacheWrite, rope } from './attention.js';
import { swiglu } from './elementwise.js';
import { linear } from './linear.js';
import { argmax, rmsNorm } from './normalization.js';

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
export const decodeRules = composeDecode<CpuKernel>({
  rules: { linear, rmsNorm, swiglu, rope, cacheWrite, attention, argmax, advance },
  copy: (node, from, start, target, to, count) => cpuStep(node, copyKernel(start, to, count), [from, 'read'], [target, 'write']),
});
