/**
 * One token over a cache: the fused attention of a decode step, in a chain of such dispatches as the layers of a model make, each over a cache of its own, so that none is in the card's cache
 * from the round before.
 */

import type { GpuKernel } from '../../src/core/kernel.js';
import type { GpuDevice } from '../../src/gpu/device.js';
import { activationType } from '../../src/kernels/decode/activations.js';
import { type AttendShape, attendBytes, attendKernel } from '../../src/kernels/decode/attend.js';
import { attendMergeKernel, mergeThreads } from '../../src/kernels/decode/attend-merge.js';
import { selectAttend, selectSplit } from '../../src/kernels/decode/attend-select.js';
import { attendSplitKernel, partialFloats, type SplitShape, splitBytes, splitStep } from '../../src/kernels/decode/attend-split.js';
import type { AttendProblem } from '../../src/kernels/decode/attend-text.js';
import { shortWindows } from '../../src/model/decoder-runs.js';
import { stateWords } from '../../src/ops/state.js';
import { type Job, jobOf, readBuffer, runJobs, storageBuffer, type Timing, timeJobs, warmUp } from '../gpu-timer.js';
import { type Figure, formatFigure } from '../support/result.js';
import { attendHead, HalfPattern, relativeError } from './data.js';
import type { AttentionShape } from './shapes.js';

export interface DecodeOptions {
  readonly sweep: boolean;
  readonly warmMs: number;
}

/** Kernels of one way to attend, by what they are called. */
interface Way {
  readonly name: string;
  readonly kernels: readonly GpuKernel[];
}

const eps = 1e-6;
/** Bytes of caches that no level of a card's own cache holds. */
const streamed = 300e6;

export async function decodeFigures(gpu: GpuDevice, shape: AttentionShape, context: number, options: DecodeOptions): Promise<readonly Figure[]> {
  // The window of a decoder's step there.
  const window = shortWindows.find((short) => context <= short) ?? context;
  const problem: AttendProblem = {
    ...{ heads: shape.heads, kvHeads: shape.kvHeads, width: shape.width, capacity: window, window, positions: 1 },
    ...{ pairing: 'halves', eps: shape.norms ? eps : undefined, scale: 1 / Math.sqrt(shape.width) },
  };
  const chain = new Chain(gpu, problem, context - 1);
  const figures: Figure[] = [];
  const found = ways(gpu, problem, options.sweep);
  await Promise.allSettled(found.flatMap(({ kernels }) => kernels.map((kernel) => gpu.pipelines.get(kernel))));
  for (const way of found) {
    try {
      const figure = await chain.measure(way, `${shape.name} decode over ${context}`, options.warmMs);
      figures.push(figure);
      console.error(`${figure.name}: ${formatFigure(figure)}, ${JSON.stringify(figure.details)}`);
    } catch (error) {
      console.error(`${way.name}: ${error instanceof Error ? error.message.slice(0, 300) : String(error)}`);
    }
  }
  chain.dispose();
  return figures;
}

const outputs = { plain: false, packed: true } as const;

/** What selection takes; in a sweep, its neighbours too. */
function ways({ capabilities }: GpuDevice, problem: AttendProblem, sweep: boolean): readonly Way[] {
  const { maxComputeWorkgroupStorageSize: bytes, maxComputeInvocationsPerWorkgroup: invocations } = capabilities.limits;
  const [one, two] = [selectAttend(problem, capabilities), selectSplit(problem, capabilities)];
  const oneWay = (shape: AttendShape): Way => ({
    name: `one dispatch, ${shape.subgroups} subgroups, ${shape.slices} slices, ${shape.unroll} keys`,
    kernels: [attendKernel(problem, shape, outputs)],
  });
  const twoWay = (shape: SplitShape): Way => ({
    name: `${shape.splits} splits, ${shape.subgroups} subgroups, ${shape.unroll} keys, ${shape.groupHeads} heads${shape.ahead ? ', ahead' : ''}`,
    kernels: [attendSplitKernel(problem, shape), attendMergeKernel(problem, shape, mergeThreads(problem, shape, Math.min(256, invocations)), outputs)],
  });
  const own = one === undefined ? twoWay(two) : oneWay(one);
  if (!sweep) return [{ ...own, name: '' }];
  const found = [own];
  if (problem.window <= 2048) {
    for (const subgroups of [4, 8, 10, 12, 16, 20])
      for (const slices of [1, 2, 4])
        for (const unroll of [16, 32]) {
          const shape = { subgroupSize: two.subgroupSize, subgroups, slices, unroll };
          const fits = problem.width / slices >= 32 && subgroups * two.subgroupSize <= invocations && attendBytes(problem, shape) <= bytes;
          if (fits) found.push(oneWay(shape));
        }
  }
  const ratio = problem.heads / problem.kvHeads;
  for (const groupHeads of new Set([two.groupHeads, ratio, ratio / 2]))
    for (const subgroups of [4, 8])
      for (const unroll of [4, 8])
        for (const splits of [8, 16, 32, 64])
          for (const ahead of [false, true]) {
            const shape = { ...two, subgroups, unroll, groupHeads, splits, ahead };
            if (Number.isInteger(groupHeads) && splits * splitStep(problem, shape) <= problem.window && splitBytes(problem, shape) <= bytes)
              found.push(twoWay(shape));
          }
  return [...new Map(found.map((way) => [way.name, way])).values()];
}

/** Buffers of one shape and context. */
class Chain {
  readonly #gpu: GpuDevice;
  readonly #problem: AttendProblem;
  readonly #position: number;
  readonly #patterns: readonly [HalfPattern, HalfPattern];
  readonly #caches: readonly (readonly [GPUBuffer, GPUBuffer])[];
  readonly #raw: Float32Array<ArrayBuffer>;
  readonly #shared: readonly GPUBuffer[];
  readonly #partials: GPUBuffer;
  readonly #output: GPUBuffer;

  constructor(gpu: GpuDevice, problem: AttendProblem, position: number) {
    const { heads, kvHeads, width, capacity } = problem;
    this.#gpu = gpu;
    this.#problem = problem;
    this.#position = position;
    this.#patterns = [new HalfPattern(gpu, 1), new HalfPattern(gpu, 2)];
    const sets = gpu.capabilities.software ? 1 : Math.max(1, Math.ceil(streamed / this.bytes));
    this.#caches = Array.from({ length: sets }, () => [
      this.#patterns[0].filled(kvHeads * capacity * width),
      this.#patterns[1].filled(kvHeads * capacity * width),
    ]);
    // Queries that spread the scores by a few units, as those of a model do.
    this.#raw = Float32Array.from({ length: (heads + 2 * kvHeads) * width }, (_, i) => 8 * this.#patterns[0].at(i * 31 + 7));
    const turns = Float32Array.from({ length: width }, (_, i) => (i + 1) % 2);
    const gains = problem.eps === undefined ? [] : [new Float32Array(width).fill(1.5), new Float32Array(width).fill(1)];
    const state = new Uint32Array(stateWords(1));
    state[0] = position;
    this.#shared = [this.#upload(this.#raw), this.#upload(turns), this.#upload(state), ...gains.map((gain) => this.#upload(gain))];
    this.#partials = storageBuffer(gpu, 4 * Math.max(4, partialFloats(problem, { ...selectSplit(problem, gpu.capabilities), splits: 64 })));
    this.#output = storageBuffer(gpu, (activationType(heads * width).shape[0] ?? 0) * 4);
  }

  /** Bytes of keys and values that one run reads. */
  get bytes(): number {
    const { kvHeads, width } = this.#problem;
    return this.#position * kvHeads * width * 4;
  }

  async measure({ name, kernels }: Way, what: string, warmMs: number): Promise<Figure> {
    const error = await this.#error(kernels);
    const jobs: Job[] = [];
    for (const caches of this.#caches) jobs.push(...(await this.#jobs(kernels, caches, this.#output)));
    const rounds = this.#gpu.capabilities.software ? 1 : Math.max(1, Math.ceil(200 / this.#caches.length));
    await warmUp(this.#gpu, jobs, warmMs);
    const { median, least, most } = await this.#settled(jobs, rounds);
    const each = 1e6 / this.#caches.length;
    const details = { gigabytesPerSecond: Math.round((this.bytes / median / 1e9) * this.#caches.length), dispatches: kernels.length, error };
    if (!(error < 1e-2)) throw new Error(`${what}, ${name}: wrong by ${error}`);
    return {
      name: name === '' ? what : `${what}, ${name}`,
      value: median * each,
      unit: 'us',
      checks: this.#gpu.checks,
      least: least * each,
      most: most * each,
      samples: 5,
      details,
    };
  }

  /** The first passes over new memory are slow for a while: two in a row must agree. */
  async #settled(jobs: readonly Job[], rounds: number): Promise<Timing> {
    let timing = await timeJobs(this.#gpu, jobs, rounds);
    for (let turn = 0; turn < 20; turn++) {
      const before = timing.median;
      timing = await timeJobs(this.#gpu, jobs, rounds);
      if (Math.abs(timing.median - before) < 0.02 * before) break;
    }
    return timing;
  }

  /** Against f64, of the last head; 8 bits of output cost about 5e-3. */
  async #error(kernels: readonly GpuKernel[]): Promise<number> {
    const [caches] = this.#caches;
    if (caches === undefined) throw new Error('there is no cache');
    const { heads, kvHeads, width, capacity, scale } = this.#problem;
    await runJobs(this.#gpu, await this.#jobs(kernels, caches, this.#output));
    const words = new Uint8Array(await readBuffer(this.#gpu, this.#output, 0, this.#output.size));
    const got = unpacked(words, heads * width).slice((heads - 1) * width);
    const normed = (first: number, gain: number): number[] => {
      const part = [...this.#raw.subarray(first, first + width)];
      if (this.#problem.eps === undefined) return part;
      const size = Math.sqrt(part.reduce((sum, x) => sum + x * x, 0) / width + this.#problem.eps);
      return part.map((x) => (x / size) * gain);
    };
    const query = normed((heads - 1) * width, 1.5);
    const ownKey = normed((heads + kvHeads - 1) * width, 1);
    const ownValue = this.#raw.subarray((heads + 2 * kvHeads - 1) * width);
    const base = (kvHeads - 1) * capacity * width;
    const wanted = attendHead({
      ...{ query, scale, length: this.#position + 1 },
      key: (position, i) => (position === this.#position ? (ownKey[i] ?? 0) : this.#patterns[0].at(base + position * width + i)),
      value: (position, i) => (position === this.#position ? (ownValue[i] ?? 0) : this.#patterns[1].at(base + position * width + i)),
    });
    return relativeError(got, wanted);
  }

  async #jobs(kernels: readonly GpuKernel[], caches: readonly [GPUBuffer, GPUBuffer], output: GPUBuffer): Promise<readonly Job[]> {
    const inputs = [...caches, ...this.#shared];
    const [first, merge] = kernels;
    if (first === undefined) return [];
    if (merge === undefined) return [await jobOf(this.#gpu, first, [...inputs, output])];
    const state = this.#shared[2] ?? output;
    return [await jobOf(this.#gpu, first, [...inputs, this.#partials]), await jobOf(this.#gpu, merge, [this.#partials, state, output])];
  }

  #upload(data: Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>): GPUBuffer {
    const buffer = storageBuffer(this.#gpu, data.byteLength);
    this.#gpu.queue.writeBuffer(buffer, 0, data);
    return buffer;
  }

  dispose(): void {
    for (const pattern of this.#patterns) pattern.dispose();
    for (const buffer of [...this.#caches.flat(), ...this.#shared, this.#partials, this.#output]) buffer.destroy();
  }
}

/** The values of a vector of 8-bit activations (see kernels/decode/activations.ts). */
function unpacked(bytes: Uint8Array, width: number): number[] {
  const [quants, scales] = [new Int8Array(bytes.buffer), new Float32Array(bytes.buffer)];
  return Array.from({ length: width }, (_, i) => {
    const block = i >> 4;
    const word = (block & 1) * (width / 8) + (block >> 1) * 4 + ((i & 15) >> 2);
    return (quants[word * 4 + (i & 3)] ?? 0) * (scales[width / 4 + block * 2] ?? 0);
  });
}
