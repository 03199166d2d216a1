import type { GpuKernel } from '../core/kernel.js';
import { bufferUsage } from '../gpu/constants.js';
import type { GpuDevice } from '../gpu/device.js';
import { profile } from '../gpu/profiler.js';
import { Recorder } from '../gpu/recorder.js';
import { multiplyFlops, multiplyKernel, multiplyThreads, readKernel, readUnit } from '../kernels/ceilings.js';
import type { Ceilings } from './backend.js';

/** More than caches hold, where the device has room for it. */
const readBytes = 512 << 20;
/** Enough workgroups for the largest devices, a few milliseconds on small ones; rasterisers get less. */
const multiplyGroups = { hardware: 16_384, software: 16 } as const;
/** Dispatches timed together, after as many to bring up the clocks. */
const rounds = 8;

/**
 * What a device reaches: bytes a second of reads that no cache holds, and f32 operations a second, by its own clock; a fraction of a second.
 * @throws UnsupportedError where the device has no timestamp queries.
 */
export async function measureCeilings(gpu: GpuDevice): Promise<Ceilings> {
  const { limits, software } = gpu.capabilities;
  const wanted = software ? readUnit * 16 : readBytes;
  const vectors = Math.floor(Math.min(wanted, limits.maxStorageBufferBindingSize) / 16 / readUnit) * readUnit;
  const groups = multiplyGroups[software ? 'software' : 'hardware'];
  const readNs = await time(gpu, readKernel(vectors), [vectors * 16, 4]);
  const multiplyNs = await time(gpu, multiplyKernel(groups), [groups * multiplyThreads * 4]);
  return { bytesPerSecond: (vectors * 16 * 1e9) / readNs, flopsPerSecond: (multiplyFlops(groups) * 1e9) / multiplyNs };
}

/** Nanoseconds of one dispatch among several. */
async function time(gpu: GpuDevice, kernel: GpuKernel, sizes: readonly number[]): Promise<number> {
  const usage = bufferUsage.storage;
  const buffers = sizes.map((size, index) => gpu.memory.allocateNow({ label: `ceiling ${index}`, size, usage, memoryClass: 'staging' }));
  try {
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
