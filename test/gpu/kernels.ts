/** Small kernels and runs for the tests of the device layer. */

import type { GpuKernel } from '../../src/core/kernel.js';
import { bufferUsage } from '../../src/gpu/constants.js';
import type { GpuDevice } from '../../src/gpu/device.js';
import type { GpuAllocation } from '../../src/gpu/memory.js';

/** y[i] = x[i] * factor, for a whole number of workgroups of 64. */
export function scaleKernel(factor: number, workgroups = 1, overrides: Partial<GpuKernel> = {}): GpuKernel {
  return {
    key: `test scale ${factor}`,
    family: 'scale',
    bindings: ['read', 'read_write'],
    workgroups: [workgroups, 1, 1],
    workgroupSize: [64, 1, 1],
    workgroupBytes: 0,
    features: [],
    wgsl: () => `@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  y[id.x] = x[id.x] * ${factor.toFixed(1)};
}`,
    ...overrides,
  };
}

/** A storage buffer of `count` floats that can be written and read back. */
export function floats(gpu: GpuDevice, label: string, count: number): GpuAllocation {
  return gpu.memory.allocateNow({ label, size: 4 * count, usage: bufferUsage.storage | bufferUsage.copyDst | bufferUsage.copySrc, memoryClass: 'arena' });
}

export function ramp(count: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, (_, index) => index);
}
