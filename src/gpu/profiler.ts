/** Time of every dispatch, by the device's own clock. WebGPU takes timestamps at pass boundaries only, so a profiled run has one pass per dispatch. */

import { UnsupportedError } from '../core/errors.js';
import { bufferUsage } from './constants.js';
import type { GpuDevice } from './device.js';
import type { Recorder } from './recorder.js';

export interface StepTime {
  readonly label: string;
  /** Nanoseconds from the first dispatch's start. */
  readonly startNs: number;
  /** Nanoseconds on the device, the pass's own cost (1 to 3 microseconds) included. Browsers round it to 100 microseconds. */
  readonly ns: number;
}

export interface LabelTime {
  readonly label: string;
  readonly count: number;
  readonly ns: number;
}

/** Timestamps in one query set: WebGPU's bound is 4096. */
const queriesPerSet = 4096;
const stepsPerSet = queriesPerSet / 2;
const timestampBytes = 8;

/**
 * Runs the recorded dispatches once and times each. The work is really done: buffers change as in any run.
 * @throws UnsupportedError where the device has no timestamp queries.
 */
export async function profile(gpu: GpuDevice, recorder: Recorder): Promise<readonly StepTime[]> {
  if (!gpu.capabilities.timestamps)
    throw new UnsupportedError('this device has no timestamp queries (the feature "timestamp-query"), so single dispatches cannot be timed');
  const times: StepTime[] = [];
  let origin: bigint | undefined;
  for (let from = 0; from < recorder.length; from += stepsPerSet) {
    const to = Math.min(recorder.length, from + stepsPerSet);
    const stamps = await timestamps(gpu, recorder, from, to);
    origin ??= stamps[0] ?? 0n;
    for (let step = from; step < to; step++) {
      const start = stamps[2 * (step - from)] ?? 0n;
      const end = stamps[2 * (step - from) + 1] ?? 0n;
      times.push({ label: recorder.label(step), startNs: Number(start - origin), ns: Number(end - start) });
    }
  }
  return times;
}

/** Begin and end of each dispatch, in nanoseconds. */
async function timestamps(gpu: GpuDevice, recorder: Recorder, from: number, to: number): Promise<BigUint64Array> {
  const count = 2 * (to - from);
  const size = count * timestampBytes;
  const querySet = gpu.device.createQuerySet({ label: 'profile', type: 'timestamp', count });
  const resolved = gpu.memory.allocateNow({ label: 'profile', size, usage: bufferUsage.queryResolve | bufferUsage.copySrc, memoryClass: 'staging' });
  const readback = gpu.createReadback({ depth: 1, label: 'profile' });
  try {
    const encoder = gpu.device.createCommandEncoder({ label: 'profile' });
    for (let step = from; step < to; step++) {
      const query = 2 * (step - from);
      const pass = encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex: query, endOfPassWriteIndex: query + 1 } });
      recorder.record(pass, step, step + 1);
      pass.end();
    }
    encoder.resolveQuerySet(querySet, 0, count, resolved.buffer, 0);
    const ticket = readback.copyInto(encoder, resolved.buffer, 0, size);
    gpu.queue.submit([encoder.finish()]);
    return new BigUint64Array(await ticket.read());
  } finally {
    readback.dispose();
    resolved.free();
    querySet.destroy();
  }
}

/** Times added up by label, the slowest first. */
export function timesByLabel(times: readonly StepTime[]): readonly LabelTime[] {
  const sums = new Map<string, { label: string; count: number; ns: number }>();
  for (const { label, ns } of times) {
    const sum = sums.get(label) ?? { label, count: 0, ns: 0 };
    sums.set(label, sum);
    sum.count++;
    sum.ns += ns;
  }
  return [...sums.values()].sort((a, b) => b.ns - a.ns);
}
