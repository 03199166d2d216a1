import { OutOfMemoryError } from '../core/errors.js';
import type { GpuKernel } from '../core/kernel.js';
import { bufferUsage } from '../gpu/constants.js';
import type { GpuDevice } from '../gpu/device.js';
import type { GpuAllocation } from '../gpu/memory.js';
import { profile } from '../gpu/profiler.js';
import { Recorder } from '../gpu/recorder.js';
import { multiplyFlops, multiplyKernel, multiplyThreads, readKernel, readUnit } from '../kernels/ceilings.js';
import type { Ceilings } from './backend.js';

/** More than caches hold, as much as the device has room for. */
const readBytes = [512 << 20, 256 << 20, 128 << 20] as const;
/** Enough workgroups for the largest devices, a few milliseconds on small ones; rasterisers get less. */
const multiplyGroups = { hardware: 16_384, software: 16 } as const;
/** Dispatches timed together, after as many to bring up the clocks. */
const rounds = 8;

/**
 * What a device reaches: bytes a second of reads that no cache holds, and f32 operations a second, by its own clock; a fraction of a second.
 * @throws UnsupportedError where the device has no timestamp queries; OutOfMemoryError where it has no room for 128 MiB beside what is there.
 */
export async function measureCeilings(gpu: GpuDevice): Promise<Ceilings> {
  const { software } = gpu.capabilities;
  const { vectors, ns: readNs } = await timeReads(gpu, software ? [readUnit * 16] : readBytes);
  const groups = multiplyGroups[software ? 'software' : 'hardware'];
  const multiplyNs = await time(gpu, multiplyKernel(groups), [groups * multiplyThreads * 4]);
  return { bytesPerSecond: (vectors * 16 * 1e9) / readNs, flopsPerSecond: (multiplyFlops(groups) * 1e9) / multiplyNs };
}

/** Of the first size that the device, or its budget, has room for. */
async function timeReads(gpu: GpuDevice, [bytes = 0, ...smaller]: readonly number[]): Promise<{ readonly vectors: number; readonly ns: number }> {
  const vectors = Math.floor(Math.min(bytes, gpu.capabilities.limits.maxStorageBufferBindingSize) / 16 / readUnit) * readUnit;
  try {
    return { vectors, ns: await time(gpu, readKernel(vectors), [vectors * 16, 4]) };
  } catch (error) {
    if (!(error instanceof OutOfMemoryError) || smaller.length === 0) throw error;
    return timeReads(gpu, smaller);
  }
}

/** Nanoseconds of one dispatch among several. */
async function time(gpu: GpuDevice, kernel: GpuKernel, sizes: readonly number[]): Promise<number> {
  const usage = bufferUsage.storage;
  const buffers: GpuAllocation[] = [];
  try {
    for (const [index, size] of sizes.entries()) buffers.push(await gpu.memory.allocate({ label: `ceiling ${index}`, size, usage, memoryClass: 'staging' }));
    const bindGroup = gpu.pipelines.bindGroup(
      kernel,
      buffers.map(({ buffer }) => ({ buffer })),
    );
    const recorder = new Recorder();
    const dispatch = { label: kernel.family, kind: kernel.key, pipeline: await gpu.pipelines.get(kernel), bindGroup, grid: kernel.workgroups };
    for (let round = 0; round < rounds; round++) recorder.add(dispatch);
    await profile(gpu, recorder);
    return (await profile(gpu, recorder))[0]?.ns ?? Number.NaN;
  } finally {
    for (const buffer of buffers) buffer.free();
  }
}
