import { baseCapabilities } from '../core/capabilities.js';
import { binaryKernel, swigluKernel } from '../kernels/elementwise.js';
import { normKernel, selectNorm } from '../kernels/norm.js';
import { ropeKernel } from '../kernels/rope.js';

/** The shapes that the shown kernels are made for: kernels have theirs as constants. */
const shown = { width: 1536, feedForward: 8960, heads: 12, headWidth: 128, positions: 2048, eps: 1e-6 } as const;

/** WGSL of the steps of one decoded token, for a device with WebGPU's guaranteed capabilities. */
export const forwardPassShaders = {
  rmsnorm: (): string => normKernel(1, shown.width, shown.eps, selectNorm(1, shown.width, baseCapabilities), undefined).wgsl(),
  siluMul: (): string => swigluKernel(shown.feedForward, 'own').wgsl(),
  residual: (): string => binaryKernel('add', [{ size: shown.width, a: 1, b: 1 }], true).wgsl(),
  rope: (): string =>
    ropeKernel({ rows: 1, heads: shown.heads, width: shown.headWidth, half: shown.headWidth / 2, positions: shown.positions, pairing: 'halves' }, true).wgsl(),
};
