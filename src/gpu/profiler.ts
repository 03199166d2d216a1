/**
 * Time of every dispatch, by the device's own clock. WebGPU takes timestamps at pass boundaries only, and a pass has a cost of its own (5 to 6 microseconds on an H200, where a short
 * dispatch takes 2). So dispatches of one kind are timed together, one after another in a pass, as they follow each other in a run, each with data of its own; the cost of a pass, measured
 * beside, is taken off. What may not run twice has a pass to itself, less that cost.
 */

import { UnsupportedError } from '../core/errors.js';
import { bufferUsage } from './constants.js';
import type { GpuDevice } from './device.js';
import type { Recorder } from './recorder.js';

export interface StepTime {
  readonly label: string;
  /** Nanoseconds from the beginning of the run, were its dispatches to follow each other without a gap. */
  readonly startNs: number;
  /** Nanoseconds on the device; browsers round them to 100 microseconds. */
  readonly ns: number;
}

/** Timestamps in one query set: WebGPU's bound is 4096. */
const queriesPerSet = 4096;
const passesPerSet = queriesPerSet / 2;
const timestampBytes = 8;

/** Passes of one kind of which the median counts. */
const repeats = 5;

/**
 * Times each of the recorded dispatches. Those that have a kind run several times; then all run once, in order, so that buffers are left as by any run. The times of a kind are its mean; dispatches
 * are laid end to end from 0.
 * @throws UnsupportedError where the device has no timestamp queries.
 */
export async function profile(gpu: GpuDevice, recorder: Recorder): Promise<readonly StepTime[]> {
  if (!gpu.capabilities.timestamps)
    throw new UnsupportedError(
      'this device has no timestamp queries (the feature "timestamp-query"), so single dispatches cannot be timed: use another adapter, or the CPU',
    );
  const kinds = kindsOf(recorder);
  const passCost = await costOfPass(gpu, recorder, kinds);
  const times = new Float64Array(recorder.length);
  // Once to bring up the clocks, which fall while nothing runs.
  const samples: number[][] = [];
  for (let round = -1; round < repeats && kinds.length > 0; round++) {
    const measured = await timePasses(gpu, recorder, kinds);
    if (round >= 0) samples.push(measured);
  }
  kinds.forEach((steps, kind) => {
    const whole = median(samples.map((round) => round[kind] ?? 0)) - passCost;
    for (const step of steps) times[step] = Math.max(0, whole / steps.length);
  });
  const repeated = new Set(kinds.flat());
  const run = segments(recorder.length, repeated);
  const singles = await timePasses(gpu, recorder, run);
  run.forEach((steps, index) => {
    const [step] = steps;
    if (step !== undefined && !repeated.has(step)) times[step] = Math.max(0, (singles[index] ?? 0) - passCost);
  });
  let startNs = 0;
  return Array.from(times, (ns, step) => {
    const time: StepTime = { label: recorder.label(step), startNs, ns };
    startNs += ns;
    return time;
  });
}

/** The dispatches that may be repeated, by kind. */
function kindsOf(recorder: Recorder): readonly (readonly number[])[] {
  const kinds = new Map<string, number[]>();
  for (let step = 0; step < recorder.length; step++) {
    const kind = recorder.kind(step);
    if (kind !== undefined) kinds.set(kind, [...(kinds.get(kind) ?? []), step]);
  }
  return [...kinds.values()];
}

/** A run in order: stretches of dispatches that have been timed, and each of the others by itself. */
function segments(length: number, timed: ReadonlySet<number>): readonly (readonly number[])[] {
  const parts: number[][] = [];
  for (let step = 0; step < length; step++) {
    const before = parts.at(-1)?.[0];
    if (before !== undefined && timed.has(step) && timed.has(before)) parts.at(-1)?.push(step);
    else parts.push([step]);
  }
  return parts;
}

/** Nanoseconds that a pass takes beside its dispatches: one dispatch in a pass, less one among many. 0 where nothing may be repeated. */
async function costOfPass(gpu: GpuDevice, recorder: Recorder, kinds: readonly (readonly number[])[]): Promise<number> {
  const candidates = kinds.flatMap(([step]) => (step === undefined ? [] : [step]));
  if (candidates.length === 0) return 0;
  const first = await timePasses(
    gpu,
    recorder,
    candidates.map((step) => [step]),
  );
  // The shortest dispatch shows the pass best.
  const shortest = candidates[first.indexOf(Math.min(...first))] ?? 0;
  const passes = Array.from({ length: repeats }, () => [[shortest], new Array<number>(9).fill(shortest)]).flat();
  const measured = await timePasses(gpu, recorder, passes);
  const one = median(measured.filter((_, index) => index % 2 === 0));
  const nine = median(measured.filter((_, index) => index % 2 === 1));
  return Math.max(0, one - (nine - one) / 8);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}

/** Nanoseconds of each pass; its numbers are the dispatches in it. */
async function timePasses(gpu: GpuDevice, recorder: Recorder, passes: readonly (readonly number[])[]): Promise<number[]> {
  const times: number[] = [];
  for (let from = 0; from < passes.length; from += passesPerSet) {
    const stamps = await timestamps(gpu, recorder, passes.slice(from, from + passesPerSet));
    for (let i = 0; i < stamps.length; i += 2) times.push(Number((stamps[i + 1] ?? 0n) - (stamps[i] ?? 0n)));
  }
  return times;
}

/** Begin and end of each pass, in nanoseconds. */
async function timestamps(gpu: GpuDevice, recorder: Recorder, passes: readonly (readonly number[])[]): Promise<BigUint64Array> {
  const count = 2 * passes.length;
  const size = count * timestampBytes;
  const querySet = gpu.device.createQuerySet({ label: 'profile', type: 'timestamp', count });
  const resolved = gpu.memory.allocateNow({ label: 'profile', size, usage: bufferUsage.queryResolve | bufferUsage.copySrc, memoryClass: 'staging' });
  const readback = gpu.createReadback({ depth: 1, label: 'profile' });
  try {
    const encoder = gpu.device.createCommandEncoder({ label: 'profile' });
    passes.forEach((steps, index) => {
      const pass = encoder.beginComputePass({
        timestampWrites: { querySet, beginningOfPassWriteIndex: 2 * index, endOfPassWriteIndex: 2 * index + 1 },
      });
      for (const step of steps) recorder.record(pass, step, step + 1);
      pass.end();
    });
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
