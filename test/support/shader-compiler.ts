/** Compiles WGSL without a GPU: Dawn's null backend has every feature, so kernels for devices that no test machine has are checked by the compiler at least. */

import type { GpuKernel } from '../../src/core/kernel.js';
import { keepAlive, openGpu } from '../../src/platform/dawn.js';

export interface ShaderCompiler {
  /** The compiler's errors about a kernel's text; none where it is valid. */
  errors(kernel: GpuKernel): Promise<readonly string[]>;
}

export async function openShaderCompiler(): Promise<ShaderCompiler> {
  const { gpu } = await openGpu({ backend: 'null' });
  const adapter = await gpu.requestAdapter();
  if (adapter === null) throw new Error('Dawn has no null backend on this machine');
  keepAlive(adapter);
  const features = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] as const;
  const device = keepAlive(await adapter.requestDevice({ requiredFeatures: features as unknown as GPUFeatureName[] }));
  return {
    async errors(kernel) {
      device.pushErrorScope('validation');
      const { messages } = await device.createShaderModule({ code: kernel.wgsl() }).getCompilationInfo();
      await device.popErrorScope();
      const lines = kernel.wgsl().split('\n');
      return messages.filter(({ type }) => type === 'error').map(({ lineNum, message }) => `${kernel.key}: ${message}: ${lines[lineNum - 1]}`);
    },
  };
}
