/** What a device does over many submits: begin and end of every compute pass by its own clock, taken without the passes' knowledge. */

import type { GpuDevice } from '../../src/gpu/device.js';
import { readBuffer } from '../gpu-timer.js';

/** Nanoseconds. */
export interface PassTime {
  readonly begin: bigint;
  readonly end: bigint;
}

/** Query sets hold no more. */
export const mostPasses = 2048;

/** Watches the compute passes of a device from now on, up to `mostPasses` of them. `stop` gives their times and leaves the device as it was. */
export function watchPasses(gpu: GpuDevice): { stop(): Promise<readonly PassTime[]> } {
  const { device, queue } = gpu;
  const querySet = device.createQuerySet({ type: 'timestamp', count: 2 * mostPasses });
  const original = Object.getOwnPropertyDescriptor(device, 'createCommandEncoder');
  const makeEncoder = device.createCommandEncoder.bind(device);
  let passes = 0;
  Object.defineProperty(device, 'createCommandEncoder', {
    configurable: true,
    value: (descriptor?: GPUCommandEncoderDescriptor) => {
      const encoder = makeEncoder(descriptor);
      const begin = encoder.beginComputePass.bind(encoder);
      Object.defineProperty(encoder, 'beginComputePass', {
        value: (pass: GPUComputePassDescriptor = {}) => {
          if (passes === mostPasses) return begin(pass);
          const index = 2 * passes++;
          return begin({ ...pass, timestampWrites: { querySet, beginningOfPassWriteIndex: index, endOfPassWriteIndex: index + 1 } });
        },
      });
      return encoder;
    },
  });
  return {
    stop: async () => {
      if (original === undefined) Reflect.deleteProperty(device, 'createCommandEncoder');
      else Object.defineProperty(device, 'createCommandEncoder', original);
      if (passes === 0) return [];
      const resolved = device.createBuffer({ size: 16 * passes, usage: 0x200 | 0x04 });
      const encoder = device.createCommandEncoder();
      encoder.resolveQuerySet(querySet, 0, 2 * passes, resolved, 0);
      queue.submit([encoder.finish()]);
      const times = new BigUint64Array(await readBuffer(gpu, resolved, 0, 16 * passes));
      querySet.destroy();
      resolved.destroy();
      return Array.from({ length: passes }, (_, pass) => ({ begin: times[2 * pass] ?? 0n, end: times[2 * pass + 1] ?? 0n }));
    },
  };
}

/** Milliseconds: in passes, between one pass and the next, and the longest such gap. */
export function busyAndIdle(times: readonly PassTime[]): { readonly busyMs: number; readonly idleMs: number; readonly longestMs: number } {
  let [busy, idle, longest] = [0n, 0n, 0n];
  times.forEach(({ begin, end }, index) => {
    busy += end - begin;
    const gap = index === 0 ? 0n : begin - (times[index - 1]?.end ?? begin);
    idle += gap;
    if (gap > longest) longest = gap;
  });
  return { busyMs: Number(busy) / 1e6, idleMs: Number(idle) / 1e6, longestMs: Number(longest) / 1e6 };
}
