import type { DType } from '../../core/dtype.js';
import { ArgumentError, DisposedError, OutOfMemoryError } from '../../core/errors.js';
import { checkBudget } from '../../core/memory.js';
import type { TensorType } from '../../core/tensor.js';
import type { Backend } from '../../runtime/backend.js';
import { type BackendOptions, openBackend } from '../../runtime/select.js';
import { TensorStore } from '../../runtime/tensors.js';
import { Held } from '../held.js';
import { backendOf, type ComputeTarget } from '../open.js';
import { encodeWeight, type WeightData } from './encode.js';
import { type CachedWeight, MatmulRunner } from './runner.js';

/** Where a cache lives, and how much it may hold. */
export interface MatmulCacheOptions {
  /** As for `openBackend`: default 'auto'. Not together with `backend`. */
  readonly device?: BackendOptions['device'];
  /** The caller's backend, which outlives the cache. */
  readonly backend?: Backend;
  /** Most bytes of weights on the device. Default: no bound but the device's. */
  readonly budgetBytes?: number;
}

/** Options of one weight. */
export interface UploadWeightOptions {
  /** How the weight is kept. Default 'f32' for numbers; packed bytes have to say what they are. */
  readonly type?: DType;
}

/** Options of one product. */
export interface MatmulOptions {
  /** Where y goes: its first m N numbers are written when the promise resolves. Default: a new array. */
  readonly output?: Float32Array;
}

/** A weight that a cache holds. */
export interface CachedWeightInfo {
  readonly name: string;
  readonly type: DType;
  /** N, the length of a row of y. */
  readonly rows: number;
  /** K, the length of a row of x. */
  readonly cols: number;
  /** Bytes on the device. */
  readonly byteLength: number;
}

/**
 * Named weights that stay on the device, and products with them: y = x W^T, W [N, K] row-major, for any number of rows of x. Weights keep their packed size and are split by rows
 * where a binding limit wants it. Several calls may be in flight at once. Without a GPU the same products run on the CPU: `backend` says which, and why.
 *
 * A weight that is removed or replaced still serves the calls that began before, and its memory is freed when the last of them ends.
 */
export class GpuMatmulCache {
  /** Where the products run: `kind`, `name` and `reason`. */
  readonly backend: Backend;
  readonly #budgetBytes: number;
  readonly #tensors: TensorStore;
  readonly #runner: MatmulRunner;
  readonly #weights = new Map<string, CachedWeight>();
  /** Held by every call; at its end the backend goes, where the cache opened it. */
  readonly #life: Held;
  #uploads: Promise<unknown> = Promise.resolve();
  #uploaded = 0;
  #disposed = false;

  /** Over a backend or a GPU device of the caller's, which `dispose()` leaves alone; `create` opens one. */
  constructor(target: ComputeTarget, options: { readonly budgetBytes?: number; readonly owned?: boolean } = {}) {
    const { owned = false } = options;
    const backend = backendOf(target);
    this.backend = backend;
    this.#budgetBytes = checkBudget(options.budgetBytes) ?? Number.POSITIVE_INFINITY;
    this.#tensors = new TensorStore(backend);
    this.#runner = new MatmulRunner(backend);
    this.#life = new Held(() => {
      this.#tensors.dispose();
      if (owned) backend.dispose();
    });
  }

  /**
   * A cache on the device asked for, or the best one found.
   * @throws ArgumentError for a device beside a backend; CentellaError E_NO_WEBGPU or E_NO_ADAPTER where WebGPU was asked for and is not there.
   */
  static async create(options: MatmulCacheOptions = {}): Promise<GpuMatmulCache> {
    const { backend, device, budgetBytes } = options;
    const budget = budgetBytes === undefined ? {} : { budgetBytes };
    if (backend === undefined) return new GpuMatmulCache(await openBackend(device === undefined ? {} : { device }), { ...budget, owned: true });
    if (device !== undefined) throw new ArgumentError('device', 'a backend has its device already: give one of the two');
    return new GpuMatmulCache(backend, budget);
  }

  /** Weights that can be multiplied with now. */
  get weightCount(): number {
    return this.#weights.size;
  }

  /** Bytes that they take on the device, as packed there. */
  get weightBytes(): number {
    return this.weights().reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** What is held, in the order of the uploads. */
  weights(): readonly CachedWeightInfo[] {
    return [...this.#weights.values()].map(({ name, dtype, rows, cols, stored }) => ({ name, type: dtype, rows, cols, byteLength: stored.byteLength }));
  }

  /**
   * Uploads W [rows, cols], row-major: numbers, which are encoded as `type`, or packed blocks in ggml's layout. A weight of the same name is replaced once the new one is in place; if
   * the upload fails the old one stays. Uploads take effect in the order of the calls; `data` must not change until the promise resolves.
   * @throws ArgumentError for a wrong length or columns that are not whole blocks; UnsupportedError for a type that the backend does not multiply; OutOfMemoryError past the budget.
   */
  async uploadWeight(name: string, data: WeightData, rows: number, cols: number, options: UploadWeightOptions = {}): Promise<void> {
    this.#check();
    if (typeof name !== 'string') throw new ArgumentError('name', `the name of a weight is a string, got ${String(name)}`);
    const type = options.type ?? (data instanceof Uint8Array ? undefined : 'f32');
    if (type === undefined) throw new ArgumentError('type', `weight "${name}" comes as packed bytes: say their type, for example { type: 'q8_0' }`);
    const bytes = encodeWeight(name, data, rows, cols, type);
    const done = this.#life.use();
    const upload = this.#uploads.then(() => this.#put(name, { dtype: type, shape: [rows, cols] }, bytes)).finally(done);
    this.#uploads = upload.catch(() => undefined);
    return upload;
  }

  /** Whether there was such a weight. Calls in flight still get their answers. */
  removeWeight(name: string): boolean {
    this.#check();
    const weight = this.#weights.get(name);
    weight?.hold.release();
    return this.#weights.delete(name);
  }

  /**
   * y = x W^T, f32 [m, N]: `input` begins with x, f32 [m, K] row-major. Input and output belong to the call until it resolves. The first call with a weight and a new number of rows
   * compiles; later ones make nothing and submit once.
   * @throws ArgumentError for an unknown weight, an `m` that is no count, and an input or output that is too small.
   */
  async matmulCached(name: string, input: Float32Array, m: number, options: MatmulOptions = {}): Promise<Float32Array> {
    this.#check();
    const weight = this.#weight(name);
    checkRows(m);
    atLeast('input', input, m, weight.cols, 'K');
    if (options.output !== undefined) atLeast('output', options.output, m, weight.rows, 'N');
    if (m === 0) return options.output ?? new Float32Array(0);
    const ends = [this.#life.use(), weight.hold.use()];
    try {
      return await this.#multiply(weight, input, m, options.output);
    } finally {
      for (const end of ends.reverse()) end();
    }
  }

  /** Compiles what products of m rows with a weight need, so that the first of them is as fast as the others. */
  async warm(name: string, m: number): Promise<void> {
    this.#check();
    const weight = this.#weight(name);
    checkRows(m);
    const ends = [this.#life.use(), weight.hold.use()];
    try {
      for (const rows of m === 0 ? [] : new Set(this.#runner.split(weight, m))) await this.#runner.warm(weight, rows);
    } finally {
      for (const end of ends.reverse()) end();
    }
  }

  /** Frees every weight and buffer: calls on their way to the device end first, calls that wait for room reject with `DisposedError`. Again is no error. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const weight of this.#weights.values()) weight.hold.release();
    this.#weights.clear();
    this.#runner.dispose();
    this.#life.release();
  }

  /** As `dispose`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  async #multiply(weight: CachedWeight, input: Float32Array, m: number, output: Float32Array | undefined): Promise<Float32Array> {
    let first = 0;
    const runs = this.#runner.split(weight, m).map((rows) => {
      const bytes = new Uint8Array(input.buffer, input.byteOffset + first * weight.cols * 4, rows * weight.cols * 4);
      first += rows;
      return this.#runner.run(weight, rows, bytes);
    });
    const parts = await settled(runs);
    const [only] = parts;
    if (output === undefined && only !== undefined && parts.length === 1) return only;
    const y = output ?? new Float32Array(m * weight.rows);
    let at = 0;
    for (const part of parts) {
      y.set(part, at);
      at += part.length;
    }
    return y;
  }

  async #put(name: string, type: TensorType, bytes: Uint8Array): Promise<void> {
    this.#check();
    const { weights } = this.backend;
    const [rows = 0, cols = 0] = type.shape;
    const shape = { dtype: type.dtype, rows, cols };
    this.#runner.check(shape);
    const needed = weights.shards(type).reduce((sum, shard) => sum + Math.max(4, weights.byteLength({ ...type, shape: [shard.rows, cols] })), 0);
    const available = this.#budgetBytes - this.weightBytes + (this.#weights.get(name)?.stored.byteLength ?? 0);
    if (needed > available) {
      throw new OutOfMemoryError(
        `weight "${name}" takes ${needed} bytes, ${available} of the budget of ${this.#budgetBytes} are left: remove a weight, take a smaller type or a larger budget`,
        { requested: needed, available },
      );
    }
    const key = `${name} (upload ${++this.#uploaded})`;
    try {
      const stored = await this.#tensors.allocate(key, type, 'weights');
      await this.#tensors.write(key, bytes);
      this.#check();
      this.#weights.get(name)?.hold.release();
      this.#weights.set(name, { name, ...shape, stored, hold: new Held(() => this.#tensors.free(key)), runs: new Map() });
    } catch (error) {
      this.#tensors.free(key);
      throw error;
    }
  }

  #weight(name: string): CachedWeight {
    const weight = this.#weights.get(name);
    if (weight !== undefined) return weight;
    const known = this.#weights.size === 0 ? 'there is none yet' : `there are ${[...this.#weights.keys()].join(', ')}`;
    throw new ArgumentError('name', `no weight "${name}" was uploaded: ${known}`);
  }

  #check(): void {
    if (this.#disposed) throw new DisposedError('the matmul cache');
  }
}

/** All results, or the first error once nothing runs any more: what the runs use must stay until then. */
async function settled(runs: readonly Promise<Uint8Array>[]): Promise<readonly Float32Array[]> {
  const results = await Promise.allSettled(runs);
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    const bytes = result.value.byteOffset % 4 === 0 ? result.value : result.value.slice();
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  });
}

function checkRows(m: number): void {
  if (!Number.isSafeInteger(m) || m < 0) throw new ArgumentError('m', `m counts the rows of x: a whole number from 0, got ${m}`);
}

function atLeast(argument: 'input' | 'output', data: Float32Array, m: number, width: number, letter: string): void {
  if (!(data instanceof Float32Array)) throw new ArgumentError(argument, `the ${argument} has to be a Float32Array`);
  if (data.length < m * width)
    throw new ArgumentError(argument, `the ${argument} is too small: m = ${m} rows of ${letter} = ${width} are ${m * width} numbers, got ${data.length}`);
}
