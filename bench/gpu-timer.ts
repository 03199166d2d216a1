/** Timing of dispatches by the device's clock, for benchmarks. */

import type { GpuKernel } from '../src/core/kernel.js';
import type { GpuDevice } from '../src/gpu/device.js';

const usage = { storage: 0x80 | 0x04 | 0x08, resolve: 0x200 | 0x04, map: 0x01 | 0x08 } as const;

/** A storage buffer that can be written and read. */
export function storageBuffer({ device }: GpuDevice, size: number): GPUBuffer {
  return device.createBuffer({ size, usage: usage.storage });
}

export async function readBuffer({ device, queue }: GpuDevice, source: GPUBuffer, offset: number, size: number): Promise<ArrayBuffer> {
  const copy = device.createBuffer({ size, usage: usage.map });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(source, offset, copy, 0, size);
  queue.submit([encoder.finish()]);
  await copy.mapAsync(1);
  const bytes = copy.getMappedRange().slice(0);
  copy.destroy();
  return bytes;
}

/** A kernel with its buffers, ready to be dispatched. */
export type Job = (pass: GPUComputePassEncoder) => void;

export async function jobOf(gpu: GpuDevice, kernel: GpuKernel, buffers: readonly GPUBuffer[]): Promise<Job> {
  const pipeline = await gpu.pipelines.get(kernel);
  const group = gpu.pipelines.bindGroup(
    kernel,
    buffers.map((buffer) => ({ buffer })),
  );
  return (pass) => {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(...kernel.workgroups);
  };
}

/** Runs jobs once, in order. */
export async function runJobs(gpu: GpuDevice, jobs: readonly Job[]): Promise<void> {
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  for (const job of jobs) job(pass);
  pass.end();
  gpu.queue.submit([encoder.finish()]);
  await gpu.idle();
}

export interface Timing {
  /** Median seconds of one round of the jobs, and the fastest and slowest round. */
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

/** Passes that count, after one to warm up. */
const samples = 5;

/** Seconds of one round of the jobs: `rounds` in one pass, five passes after one to warm up, one after the other without a gap. */
export async function timeJobs(gpu: GpuDevice, jobs: readonly Job[], rounds = 20): Promise<Timing> {
  const { device, queue } = gpu;
  const count = 2 * samples;
  const querySet = device.createQuerySet({ type: 'timestamp', count });
  const resolved = device.createBuffer({ size: count * 8, usage: usage.resolve });
  for (let sample = -1; sample < samples; sample++) {
    const encoder = device.createCommandEncoder();
    const timestampWrites = { querySet, beginningOfPassWriteIndex: 2 * sample, endOfPassWriteIndex: 2 * sample + 1 };
    const pass = encoder.beginComputePass(sample < 0 ? {} : { timestampWrites });
    for (let round = 0; round < rounds; round++) for (const job of jobs) job(pass);
    pass.end();
    if (sample === samples - 1) encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
    queue.submit([encoder.finish()]);
  }
  const stamps = new BigUint64Array(await readBuffer(gpu, resolved, 0, count * 8));
  querySet.destroy();
  resolved.destroy();
  const seconds = Array.from({ length: samples }, (_, i) => Number((stamps[2 * i + 1] ?? 0n) - (stamps[2 * i] ?? 0n)) / 1e9 / rounds);
  seconds.sort((a, b) => a - b);
  return { median: seconds[samples >> 1] ?? Number.NaN, least: seconds[0] ?? Number.NaN, most: seconds.at(-1) ?? Number.NaN };
}

/** Seconds of one round of the jobs at full clocks: passes of some milliseconds, a few hundred milliseconds of them before those that count. */
export async function timeSteady(gpu: GpuDevice, jobs: readonly Job[], passMs = 5): Promise<Timing> {
  const { least } = await timeJobs(gpu, jobs, 2);
  const rounds = Math.max(1, Math.min(1000, Math.ceil(passMs / 1e3 / least)));
  await warmUp(gpu, jobs, Math.max(300, 2 * passMs), rounds);
  return timeJobs(gpu, jobs, rounds);
}

/**
 * Seconds of every set of jobs, the median of `rounds` passes each. The passes of all sets follow each other without a gap, some hundred milliseconds of them before those that count: at full clocks,
 * as in a program that keeps the device busy.
 */
export async function timeSets(gpu: GpuDevice, sets: readonly (readonly Job[])[], rounds = 12, warmMilliseconds = 250): Promise<number[]> {
  const { device, queue } = gpu;
  const count = 2 * sets.length * rounds;
  const querySet = device.createQuerySet({ type: 'timestamp', count });
  const resolved = device.createBuffer({ size: count * 8, usage: usage.resolve });
  const sweep = (round?: number): void => {
    const encoder = device.createCommandEncoder();
    for (const [i, jobs] of sets.entries()) {
      const at = 2 * ((round ?? 0) * sets.length + i);
      const pass = encoder.beginComputePass(
        round === undefined ? {} : { timestampWrites: { querySet, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 } },
      );
      for (const job of jobs) job(pass);
      pass.end();
    }
    if (round === rounds - 1) encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
    queue.submit([encoder.finish()]);
  };
  const underWay: Promise<undefined>[] = [];
  for (const start = performance.now(); performance.now() - start < warmMilliseconds; ) {
    sweep();
    underWay.push(queue.onSubmittedWorkDone());
    if (underWay.length > 3) await underWay.shift();
  }
  for (let round = 0; round < rounds; round++) sweep(round);
  const stamps = new BigUint64Array(await readBuffer(gpu, resolved, 0, count * 8));
  querySet.destroy();
  resolved.destroy();
  return sets.map((_, i) => {
    const taken = Array.from({ length: rounds }, (_, round) => {
      const at = 2 * (round * sets.length + i);
      return Number((stamps[at + 1] ?? 0n) - (stamps[at] ?? 0n)) / 1e9;
    });
    return taken.sort((a, b) => a - b)[rounds >> 1] ?? Number.NaN;
  });
}

/** Brings the clocks up: they fall while nothing runs, and in passes shorter than a few milliseconds with waits between them. */
export async function warmUp(gpu: GpuDevice, jobs: readonly Job[], milliseconds = 400, rounds = 20): Promise<void> {
  const underWay: Promise<undefined>[] = [];
  for (const start = performance.now(); performance.now() - start < milliseconds; ) {
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (let round = 0; round < rounds; round++) for (const job of jobs) job(pass);
    pass.end();
    gpu.queue.submit([encoder.finish()]);
    underWay.push(gpu.queue.onSubmittedWorkDone());
    if (underWay.length > 3) await underWay.shift();
  }
}

/** Numbers after which random ones repeat: no multiple of a power of two, so that no two rows of a matrix are alike. */
const period = 999_983;

/** Random f16 numbers in (-1, 1) with every exponent from 2^-7 on, as their bits; the same for one seed. */
export function randomHalves(count: number, seed: number): Uint16Array<ArrayBuffer> {
  let state = seed >>> 0;
  const halves = new Uint16Array(count);
  for (let i = 0; i < Math.min(count, period); i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    halves[i] = (state & 0x8000) | (0x2000 + ((state >>> 16) & 0x1bff));
  }
  for (let filled = period; filled < count; filled += period) halves.copyWithin(filled, 0, Math.min(period, count - filled));
  return halves;
}
