import type { DType } from '../../core/dtype.js';
import { DisposedError, defined, UnsupportedError } from '../../core/errors.js';
import { GraphBuilder } from '../../graph/builder.js';
import { Arena, allocateBanks } from '../../runtime/arena.js';
import type { Backend, Bindings, Executable, Program, Region, Storage } from '../../runtime/backend.js';
import type { StoredTensor } from '../../runtime/stored-tensor.js';
import { Held } from '../held.js';
import { Turnstile } from '../turnstile.js';
import { rowBucket, rowBucketBelow } from './row-buckets.js';

/** What the plan of a product depends on, beside the rows of x. */
export interface WeightShape {
  readonly dtype: DType;
  readonly rows: number;
  readonly cols: number;
}

/** A weight [rows, cols] on the backend, and what has been prepared for it. */
export interface CachedWeight extends WeightShape {
  readonly name: string;
  readonly stored: StoredTensor;
  readonly hold: Held;
  /** By rows of a run. */
  readonly runs: Map<number, PreparedRun>;
}

/** Input and output of every product, as large as the largest so far wanted. */
interface BankSet {
  readonly storages: readonly Storage[];
  readonly hold: Held;
}

interface PreparedRun {
  readonly banks: BankSet;
  readonly input: Region;
  readonly output: Region;
  readonly pending: Promise<Executable>;
  executable: Executable | undefined;
}

/** Runs in flight at once: enough to keep a device busy, and half of the readback buffers that a backend keeps. */
const maxInFlight = 8;
/** Input or output of one run at most: a larger product is cut by rows. Half of the smallest binding limit of WebGPU. */
const maxIoBytes = 64 << 20;

/**
 * Products y = x W^T by prepared executables, one for each weight and row bucket, over one pair of grow-only I/O buffers. A run writes, dispatches and copies in one submit, made in one
 * turn, so that the order of the queue keeps runs apart that share the buffers.
 */
export class MatmulRunner {
  readonly #backend: Backend;
  readonly #turnstile = new Turnstile(maxInFlight);
  readonly #programs = new Map<string, Program>();
  /** Rows of the largest run, where the device takes fewer than asked for once; by weight shape. */
  readonly #mostRows = new Map<string, number>();
  /** What the banks have to cover. */
  readonly #covered: Program[] = [];
  #banks: BankSet | undefined;
  #growth: Promise<unknown> = Promise.resolve();
  #disposed = false;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** @throws UnsupportedError for a weight that this backend cannot multiply by. */
  check(weight: WeightShape): void {
    this.#program(weight, 1);
  }

  /** Rows of each run that computes m rows with this weight, in order. */
  split(weight: WeightShape, m: number): number[] {
    const most = this.#rowsPerRun(weight, m);
    return Array.from({ length: Math.ceil(m / most) }, (_, index) => Math.min(most, m - index * most));
  }

  /** Compiles and binds what a run of `rows` rows needs. */
  async warm(weight: CachedWeight, rows: number): Promise<void> {
    await this.#ready(weight, rowBucket(this.#backend.kind, rows));
  }

  /** `rows` rows of y, f32 [rows, N]; `input` holds as many of x. Submitted before the call returns where all is prepared and there is room. */
  async run(weight: CachedWeight, rows: number, input: Uint8Array): Promise<Uint8Array> {
    const turn = this.#turnstile.enter();
    if (turn !== undefined) await turn;
    try {
      const bucket = rowBucket(this.#backend.kind, rows);
      const prepared = this.#prepared(weight, bucket) ?? (await this.#ready(weight, bucket));
      const done = prepared.banks.hold.use();
      try {
        return await this.#submit(prepared, input, rows * weight.rows * 4);
      } finally {
        done();
      }
    } finally {
      this.#turnstile.leave();
    }
  }

  /** Lets go of the buffers; runs in flight keep them until they end. */
  dispose(): void {
    this.#disposed = true;
    this.#banks?.hold.release();
    this.#banks = undefined;
  }

  async #submit({ executable, input, output }: PreparedRun, bytes: Uint8Array, outputBytes: number): Promise<Uint8Array> {
    const runnable = defined(executable, 'the executable of a prepared run');
    const [result] = await runnable.run([{ storage: input.storage, offset: input.offset, bytes }], [{ ...output, byteLength: outputBytes }]);
    return defined(result, 'the result of a run');
  }

  /** What is bound to the present buffers, where it is. */
  #prepared(weight: CachedWeight, bucket: number): PreparedRun | undefined {
    const run = weight.runs.get(bucket);
    return run?.executable !== undefined && run.banks === this.#banks ? run : undefined;
  }

  /** The buffers may grow while kernels compile: then what was bound is bound again. They only grow, so that this ends. */
  async #ready(weight: CachedWeight, bucket: number): Promise<PreparedRun> {
    for (;;) {
      await this.#prepare(weight, bucket);
      const prepared = this.#prepared(weight, bucket);
      if (prepared !== undefined) return prepared;
    }
  }

  async #prepare(weight: CachedWeight, bucket: number): Promise<void> {
    const program = this.#program(weight, bucket);
    const banks = await this.#cover(program);
    const known = weight.runs.get(bucket);
    if (known?.banks === banks) {
      await known.pending;
      return;
    }
    const arena = new Arena(this.#backend, program.plan, banks.storages);
    const { nodes, outputs } = program.plan.graph;
    const done = banks.hold.use();
    const pending = program.prepare(bindingsOf(weight, banks)).finally(done);
    const run: PreparedRun = {
      banks,
      input: arena.region(defined(nodes[0], 'the input').id),
      output: arena.region(defined(outputs[0], 'the output').node),
      pending,
      executable: undefined,
    };
    weight.runs.set(bucket, run);
    try {
      run.executable = await pending;
    } catch (error) {
      if (weight.runs.get(bucket) === run) weight.runs.delete(bucket);
      throw error;
    }
  }

  #cover(program: Program): Promise<BankSet> {
    const grown = this.#growth.then(() => this.#grow(program));
    this.#growth = grown.catch(() => undefined);
    return grown;
  }

  async #grow(program: Program): Promise<BankSet> {
    this.#check();
    const current = this.#banks;
    const wanted = program.plan.memory.banks;
    if (current !== undefined && wanted.every((bytes, index) => bytes <= (current.storages[index]?.byteLength ?? 0))) return current;
    const covered = [...this.#covered, program];
    const storages = await allocateBanks(
      this.#backend,
      covered.map(({ plan }) => plan),
    );
    const free = () => {
      for (const storage of storages) storage.free();
    };
    if (this.#disposed) free();
    this.#check();
    this.#covered.push(program);
    this.#banks = { storages, hold: new Held(free) };
    current?.hold.release();
    return this.#banks;
  }

  #rowsPerRun(weight: WeightShape, m: number): number {
    const { kind } = this.#backend;
    const key = shapeKey(weight);
    const most = this.#mostRows.get(key) ?? Math.max(1, Math.floor(maxIoBytes / (4 * Math.max(weight.rows, weight.cols))));
    const bucket = rowBucket(kind, Math.min(m, most));
    return this.#largestBucket(weight, bucket <= most ? bucket : rowBucketBelow(kind, most));
  }

  /** `bucket`, or the largest below it whose rows fit the device's bindings. */
  #largestBucket(weight: WeightShape, bucket: number): number {
    for (let rows = bucket; ; rows = rowBucketBelow(this.#backend.kind, rows - 1)) {
      try {
        this.#program(weight, rows);
        if (rows < bucket) this.#mostRows.set(shapeKey(weight), rows);
        return rows;
      } catch (error) {
        if (!(error instanceof UnsupportedError) || rows === 1) throw error;
      }
    }
  }

  /** One plan for all weights of one type and shape. */
  #program(weight: WeightShape, bucket: number): Program {
    const key = `${shapeKey(weight)} ${bucket}`;
    const known = this.#programs.get(key);
    if (known !== undefined) return known;
    const g = new GraphBuilder();
    const x = g.input('x', { dtype: 'f32', shape: [bucket, weight.cols] });
    const w = g.param('weight', { dtype: weight.dtype, shape: [weight.rows, weight.cols] });
    g.output('y', g.linear(x, w, {}, 'matmul'));
    const program = this.#backend.program(g.build());
    this.#programs.set(key, program);
    return program;
  }

  #check(): void {
    if (this.#disposed) throw new DisposedError('the matmul cache');
  }
}

function shapeKey({ dtype, rows, cols }: WeightShape): string {
  return `${dtype} ${rows}x${cols}`;
}

/** The weight is the graph's only leaf. */
function bindingsOf(weight: CachedWeight, banks: BankSet): Bindings {
  return {
    bank: (index) => defined(banks.storages[index], `I/O buffer ${index}`),
    leaf: (_owner, shard) => defined(weight.stored.shards[shard], `shard ${shard} of "${weight.name}"`).storage,
  };
}
