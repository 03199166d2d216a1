import type { MemoryClass, MemoryLedger } from '../core/memory.js';
import type { ValueId } from '../core/step.js';
import type { TensorType } from '../core/tensor.js';
import type { Graph } from '../graph/graph.js';
import type { OpCase } from '../ops/case.js';
import type { Target, WeightStore } from '../ops/target.js';
import type { ExecutionPlan } from '../plan/execution-plan.js';

/** Whether graphs run on WebGPU or on the CPU, in WASM SIMD. */
export type BackendKind = 'webgpu' | 'cpu';

/** Bytes on a backend. */
export interface Storage {
  readonly label: string;
  readonly byteLength: number;
  readonly memoryClass: MemoryClass;
  free(): void;
}

export interface Region {
  readonly storage: Storage;
  /** Multiples of 4 bytes, both. */
  readonly offset: number;
  readonly byteLength: number;
}

export interface RegionWrite {
  readonly storage: Storage;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Which storage each part of a plan is in. */
export interface Bindings {
  bank(index: number): Storage;
  /** The storage of a leaf (param, state or constant), by value id and shard. */
  leaf(owner: ValueId, shard: number): Storage;
  /** Bytes of that storage before the leaf begins, a multiple of the target's alignment; 0 without it. */
  leafOffset?(owner: ValueId): number;
}

/** Time of one step on the device, the steps laid end to end. */
export interface StepTiming {
  readonly label: string;
  readonly startNs: number;
  readonly ns: number;
  /** Bytes that it has to read and write, and multiplications and additions of its products, where they were counted. */
  readonly bytes?: number;
  readonly flops?: number;
}

/** What a device was measured to reach. */
export interface Ceilings {
  /** Bytes a second of reading a buffer that no cache holds. */
  readonly bytesPerSecond: number;
  /** Multiplications and additions a second in f32. */
  readonly flopsPerSecond: number;
}

/** Runs that a device was given, and what they leave to read. */
export interface Submission {
  /** Waits for the runs; resolves with the reads. Once only. */
  read(): Promise<readonly Uint8Array[]>;
  /** Nobody will read: instead of `read`. */
  cancel(): void;
}

/** A plan bound to storage: a flat list of steps that is replayed. */
export interface Executable {
  readonly stepCount: number;
  /**
   * Writes, runs every step `times` times (default 1), reads. On a GPU this is one submit, made before the call returns: another run may be asked for before the reads of this one have
   * arrived. Nothing is created but encoders.
   */
  run(writes?: readonly RegionWrite[], reads?: readonly Region[], times?: number): Promise<readonly Uint8Array[]>;
  /** As `run`, which it is the first half of: the device is asked for the reads by `read`, and not before. */
  start(writes?: readonly RegionWrite[], reads?: readonly Region[], times?: number): Submission;
  /** The steps of this executable and then those of another one of the same backend, as one. */
  followedBy(next: Executable): Executable;
  /** Times each step; the last run of them is a whole one, in order. `UnsupportedError` where the device has no clock for it. */
  profile(): Promise<readonly StepTiming[]>;
}

/** A graph planned for a backend; `prepare` compiles its kernels. */
export interface Program {
  readonly plan: ExecutionPlan<unknown>;
  /** Distinct kernels, for reports. */
  readonly kernels: readonly string[];
  /** Compiles the kernels, which `prepare` waits for; absent where there is nothing to compile. */
  compile?(): Promise<void>;
  prepare(bindings: Bindings): Promise<Executable>;
}

/** One place where graphs run. Everything above this line is the same for GPU and CPU. */
export interface Backend {
  readonly kind: BackendKind;
  /** The adapter's name, or what the CPU backend is. */
  readonly name: string;
  /** Why this backend. */
  readonly reason: string;
  /** Whether a GPU's own checks are on: 'checked', 'unchecked', or 'host' where a browser or the caller decides. */
  readonly checks: string;
  /** Whether waiting for a read keeps this thread busy with asking, as Dawn in Node does, so that it is better asked for late. */
  readonly polls?: boolean;
  readonly weights: WeightStore;
  /** Most bytes of one value of a graph, weights excepted, which are split. */
  readonly maxBindingBytes: number;
  /** Which fused operations of a decode step the backend does not want, and why; undefined where it wants none. */
  readonly refuses?: Target<unknown>['refuses'] | undefined;
  /** What is fast here: f16 numbers, and products of f16 matrices in hardware. */
  readonly arithmetic: { readonly halves: boolean; readonly matrices: boolean };
  /** Plans a graph. Faster where `like` is the program of a graph that differs in parameters of few nodes alone. */
  program(graph: Graph, like?: Program): Program;
  allocate(label: string, byteLength: number, memoryClass: MemoryClass): Promise<Storage>;
  /** Writes at a multiple of 4 bytes; `bytes` may be reused once the promise resolves. */
  write(storage: Storage, offset: number, bytes: Uint8Array): Promise<void>;
  /**
   * Writes whole rows of a packed weight (`type`: that of its storage) in ggml's layout, from `firstRow` on, as `weights` lays them out; `rows` may be reused once the promise resolves. Absent
   * where `weights.pack` and `write` are all there is.
   */
  writeRows?(storage: Storage, type: TensorType, firstRow: number, rows: Uint8Array): Promise<void>;
  /** Gives back the memory that rows pass through on their way, once the writes in flight are done; the next one takes new. */
  endWrites?(): void;
  /** Compiles what `writeRows` takes for weights of these types: before all else, where many kernels are to be compiled. */
  warmRows?(types: Iterable<TensorType>): Promise<void>;
  /** The bytes as they are when it is called: after every run asked for before, before every later one. */
  read(region: Region): Promise<Uint8Array>;
  /** As `read`, for several regions in one wait. */
  readAll(regions: readonly Region[]): Promise<readonly Uint8Array[]>;
  /** Waits until everything asked for is done. */
  idle(): Promise<void>;
  ledger(): MemoryLedger;
  /** Whether steps can be timed: `Executable.profile` and `ceilings` throw UnsupportedError where they cannot. */
  readonly timesSteps: boolean;
  /** Measures what the device reaches, in a fraction of a second; absent where profiles have nothing to be held against. */
  ceilings?(): Promise<Ceilings>;
  /** What this backend's arithmetic may add to the error of each output of a case, beyond what the case accepts; undefined where it adds nothing. */
  caseRounding(opCase: OpCase): Float64Array | undefined;
  dispose(): void;
}
