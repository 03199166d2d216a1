import { ArgumentError, BusyError, defined, UnsupportedError } from '../core/errors.js';
import { elementCount, sameShape } from '../core/tensor.js';
import { TensorView } from '../core/views/tensor-view.js';
import type { PipelineCache } from '../gpu/pipeline-cache.js';
import type { BinaryFunction, ReduceFunction, UnaryFunction } from '../ops/params.js';
import type { Backend, Storage } from '../runtime/backend.js';
import { CompiledGraph } from '../runtime/compiled-graph.js';
import { TensorStore } from '../runtime/tensors.js';
import { WebGpuBackend } from '../runtime/webgpu-backend.js';
import { batchGraph, leafName } from './batch-program.js';
import { BatchRecord, type BatchTensor, type BufferId, type RowOptions } from './batch-record.js';
import type { BatchViewReport } from './batch-views.js';
import { type HostArray, hostValues } from './host-array.js';
import { backendOf, type ComputeTarget } from './open.js';

/** How the matrices of a product lie, and what it is multiplied with. */
export interface MatmulOptions {
  /** a is stored [k, m]. */
  readonly transposeA?: boolean;
  /** b is stored [n, k]. */
  readonly transposeB?: boolean;
  /** Factor of the product. Default 1. */
  readonly alpha?: number;
  /**
   * Take a and b rounded to f16 (11 significant bits, at most 65,504) where the device multiplies f16 matrices, several times as fast as f32; sums stay f32. Elsewhere nothing is rounded.
   * Default false.
   */
  readonly rounded?: boolean;
}

/** What an `execute` was asked to run: the batch as it was at that call. */
interface Asked {
  readonly generation: number;
  /** Buffers recorded by then. */
  readonly values: number;
  /** Buffers that can be read afterwards. */
  readonly outputs: ReadonlySet<number>;
  readonly uploads: ReadonlyMap<number, Float32Array>;
  /** Ends when all of it was submitted. */
  readonly run: Promise<void>;
}

interface Compiled {
  readonly graph: CompiledGraph;
  readonly tensors: TensorStore;
  readonly outputs: ReadonlySet<number>;
  readonly values: number;
  /** Uploads that some operation needs. */
  readonly inputs: ReadonlySet<string>;
  /** The data that each of them has on the device. */
  readonly written: Map<number, Float32Array>;
}

/**
 * Operations recorded now and run together: one encoder and one submit an `execute`, elementwise chains fused into one kernel, buffers shared by liveness. A batch that was executed is a
 * plan: `update` its uploads and `execute` again, and nothing is recorded or made anew. All buffers are f32.
 *
 * Calls take effect in their order, awaited or not: an `execute` runs what was recorded and uploaded when it was called, and a `read` gives what the last `execute` before it left.
 *
 * Values that no other operation reads are kept for `read`, and those named by `keep`. Reading another one is possible: the batch is planned again with it kept, and run again.
 */
export class GpuCommandBatch {
  readonly #backend: Backend;
  readonly #record = new BatchRecord();
  readonly #uploads = new Map<number, Float32Array>();
  readonly #imports = new Map<number, Storage>();
  readonly #kept = new Set<number>();
  #compiled: Compiled | undefined;
  /** The last execute() so far. */
  #asked: Asked | undefined;
  /** Ends with the last execute() so far: they run one after the other. */
  #turn: Promise<void> = Promise.resolve();

  constructor(target: ComputeTarget) {
    this.#backend = backendOf(target);
  }

  /** Which backend runs the batch. */
  get backend(): Backend {
    return this.#backend;
  }

  /** The GPU device. @throws UnsupportedError on the CPU backend. */
  get device(): GPUDevice {
    return this.#webgpu().gpu.device;
  }

  /** The device's queue. @throws UnsupportedError on the CPU backend, as `device`. */
  get queue(): GPUQueue {
    return this.#webgpu().gpu.queue;
  }

  /** Operations that are recorded. */
  get numOperations(): number {
    return this.#record.values.filter((value) => value.kind === 'op').length;
  }

  /** Every upload, import and result counts as a buffer. */
  get numBuffers(): number {
    return this.#record.values.length;
  }

  /** Every view that an operation was given: whether it is read where it lies, or copied first, and why. */
  get views(): readonly BatchViewReport[] {
    return this.#record.views;
  }

  /** The elements of a view of a buffer, in the view's order, as a buffer of their own: one kernel by the view's strides, or by a list of its elements where it lies in tiles. */
  materialize(view: TensorView<BufferId>): BufferId {
    return this.#record.materialize(view);
  }

  /** Copies data into the batch; it goes to the device with `execute`. A view is read in its own order. */
  upload(data: HostArray): BufferId {
    this.#record.check();
    const values = hostValues('data', data).slice();
    if (values.length === 0) throw new ArgumentError('data', 'a buffer has at least one element, got none');
    const id = this.#record.push({ kind: 'upload', shape: [values.length] });
    this.#uploads.set(id.index, values);
    return id;
  }

  /** New data for an upload, of the same length, for the `execute` calls from now on. */
  update(id: BufferId, data: HostArray): void {
    this.#record.index(id);
    const before = this.#uploads.get(id.index);
    if (before === undefined) throw new ArgumentError('id', `buffer ${id.index} was not uploaded: only uploads can be updated`);
    const values = hostValues('data', data).slice();
    if (values.length !== before.length) throw new ArgumentError('data', `buffer ${id.index} has ${before.length} elements, got ${values.length}`);
    this.#uploads.set(id.index, values);
  }

  /** A buffer of the caller's (usage STORAGE and COPY_SRC) with `size` f32 elements. It must outlive the batch, which never destroys it. WebGPU only. */
  importBuffer(buffer: GPUBuffer, size: number): BufferId {
    const backend = this.#webgpu();
    if (!(Number.isSafeInteger(size) && size > 0)) throw new ArgumentError('size', `size counts f32 elements from 1, got ${size}`);
    if (buffer.size < size * 4) throw new ArgumentError('size', `${size} f32 elements take ${size * 4} bytes, the buffer has ${buffer.size}`);
    const needed = 0x80 | 0x4;
    if ((buffer.usage & needed) !== needed) throw new ArgumentError('buffer', 'an imported buffer needs the usages STORAGE and COPY_SRC');
    const id = this.#record.push({ kind: 'import', shape: [size] });
    this.#imports.set(id.index, backend.adopt(buffer, leafName(id.index)));
    return id;
  }

  /** y = fn(x), with the function's scalars. */
  unary(fn: UnaryFunction, x: BatchTensor, scalars: { a?: number; b?: number } = {}): BufferId {
    const id = this.#record.buffer(fn, x);
    return this.#record.op('unary', { fn, ...scalars }, [this.#record.flat(id)], [id.size]);
  }

  /** max(x, 0); NaN stays NaN. */
  relu(x: BatchTensor): BufferId {
    return this.unary('relu', x);
  }

  /** x where x > 0, else slope x. */
  leakyRelu(x: BatchTensor, slope: number): BufferId {
    return this.unary('leakyRelu', x, { a: slope });
  }

  /** x where x > 0, else alpha (e^x - 1), accurate near zero. */
  elu(x: BatchTensor, alpha: number): BufferId {
    return this.unary('elu', x, { a: alpha });
  }

  /** Between min and max. @throws ArgumentError unless min <= max. */
  clip(x: BatchTensor, min: number, max: number): BufferId {
    if (!(min <= max)) throw new ArgumentError('min', `clip needs min <= max, got ${min} and ${max}`);
    return this.unary('clip', x, { a: min, b: max });
  }

  /** 1 / (1 + e^-x), stable on both sides. */
  sigmoid(x: BatchTensor): BufferId {
    return this.unary('sigmoid', x);
  }

  /** Accurate near zero. */
  tanh(x: BatchTensor): BufferId {
    return this.unary('tanh', x);
  }

  /** x sigmoid(x), also called SiLU. */
  swish(x: BatchTensor): BufferId {
    return this.unary('silu', x);
  }

  /** The tanh approximation, or the exact form with erf. */
  gelu(x: BatchTensor, options: { exact?: boolean } = {}): BufferId {
    return this.unary(options.exact === true ? 'geluErf' : 'gelu', x);
  }

  /** factor x. */
  scale(x: BatchTensor, factor: number): BufferId {
    return this.unary('scale', x, { a: factor });
  }

  /** y = fn(a, b), element by element; equal sizes, or one of them 1. Views are of one shape, or of the other's size where that is a buffer; those that repeat a buffer are read in place. */
  binary(fn: BinaryFunction, a: BatchTensor, b: BatchTensor): BufferId {
    const [p, q] = [a, b].map((x) => this.#record.sizeOf(x));
    if (p === undefined || q === undefined || (p !== q && p !== 1 && q !== 1))
      throw new ArgumentError('b', `${fn} needs buffers of one size, got ${p} and ${q} elements`);
    const size = Math.max(p, q);
    const shape = [a, b].flatMap((x) => (x instanceof TensorView && x.numel === size ? [x.shape] : []))[0] ?? [size];
    for (const x of [a, b])
      if (x instanceof TensorView && x.numel === size && !sameShape(x.shape, shape))
        throw new ArgumentError('b', `${fn} needs views of one shape, got [${shape.join(', ')}] and [${x.shape.join(', ')}]`);
    const inputs = this.#record.broadcast(fn, [a, b], shape);
    return this.#record.op('binary', { fn }, inputs, [size]);
  }

  /** a + b; see `binary`. */
  add(a: BatchTensor, b: BatchTensor): BufferId {
    return this.binary('add', a, b);
  }

  /** a - b; see `binary`. */
  sub(a: BatchTensor, b: BatchTensor): BufferId {
    return this.binary('sub', a, b);
  }

  /** a b; see `binary`. */
  mul(a: BatchTensor, b: BatchTensor): BufferId {
    return this.binary('mul', a, b);
  }

  /** a / b; see `binary`. */
  div(a: BatchTensor, b: BatchTensor): BufferId {
    return this.binary('div', a, b);
  }

  /** The sum of a[i] b[i]: a buffer of one element. */
  dot(a: BatchTensor, b: BatchTensor): BufferId {
    const [x, y] = [this.#record.buffer('dot', a), this.#record.buffer('dot', b)];
    if (x.size !== y.size) throw new ArgumentError('b', `dot needs buffers of one size, got ${x.size} and ${y.size} elements`);
    return this.#record.op('dot', {}, [this.#record.flat(x), this.#record.flat(y)], [1]);
  }

  /** c [m, n] = alpha a [m, k] b [k, n], row-major. A view of a whole buffer that turns rows into columns is read in place. */
  matmul(a: BatchTensor, b: BatchTensor, m: number, k: number, n: number, options: MatmulOptions = {}): BufferId {
    const { transposeA = false, transposeB = false, alpha = 1, rounded = false } = options;
    for (const [name, size] of Object.entries({ m, k, n })) {
      if (!(Number.isSafeInteger(size) && size > 0)) throw new ArgumentError(name, `${name} must be a whole number from 1, got ${size}`);
    }
    const [x, y] = [this.#record.matrix('a', a, transposeA ? [k, m] : [m, k]), this.#record.matrix('b', b, transposeB ? [n, k] : [k, n])];
    const turns = { transposeA: transposeA !== x.turned, transposeB: transposeB !== y.turned };
    return this.#record.op('matmul', { ...turns, alpha, ...(rounded ? { rounded: true as const } : {}) }, [x.input, y.input], [m * n]);
  }

  /** Elements [start, start + length). */
  slice(x: BatchTensor, start: number, length: number): BufferId {
    const id = this.#record.buffer('slice', x);
    if (!(Number.isSafeInteger(start) && start >= 0 && Number.isSafeInteger(length) && length > 0 && start + length <= id.size))
      throw new ArgumentError('start', `elements ${start} to ${start + length} are not inside a buffer of ${id.size}`);
    return this.#record.op('slice', { axis: 0, start, length, step: 1 }, [this.#record.flat(id)], [length]);
  }

  /** Sum, mean, largest, smallest or product of each row: [rows]. */
  reduce(fn: ReduceFunction, x: BatchTensor, options: RowOptions = {}): BufferId {
    const id = this.#record.buffer(fn, x);
    const shape = this.#record.rows(id, options);
    return this.#record.op('reduce', { fn, axes: [1], keepDims: false }, [this.#record.shaped(id, shape)], [shape[0]]);
  }

  /** The sum of all elements, one number; with `rows`, of each of so many equal rows. */
  sum(x: BatchTensor, options: RowOptions = {}): BufferId {
    return this.reduce('sum', x, options);
  }

  /** exp(x - max) / sum of each row. */
  softmax(x: BatchTensor, options: RowOptions = {}): BufferId {
    const id = this.#record.buffer('softmax', x);
    return this.#record.op('softmax', { axis: 1 }, [this.#record.shaped(id, this.#record.rows(id, options))], [id.size]);
  }

  /** x - max - ln(sum e^(x - max)), by rows as `softmax`. */
  logSoftmax(x: BatchTensor, options: RowOptions = {}): BufferId {
    const id = this.#record.buffer('logSoftmax', x);
    return this.#record.op('logSoftmax', { axis: 1 }, [this.#record.shaped(id, this.#record.rows(id, options))], [id.size]);
  }

  /** x / sqrt(mean(x^2) + eps) gain, by rows as long as the gain. */
  rmsNorm(x: BatchTensor, gain: BatchTensor, eps: number): BufferId {
    const [id, g] = [this.#record.buffer('rmsNorm', x), this.#record.buffer('rmsNorm', gain)];
    return this.#record.op('rmsNorm', { eps }, [this.#record.shaped(id, this.#record.rowsOf(id, g)), this.#record.flat(g)], [id.size]);
  }

  /** (x - mean) / sqrt(variance + eps) gain + bias, by rows as long as the gain. */
  layerNorm(x: BatchTensor, gain: BatchTensor, bias: BatchTensor, eps: number): BufferId {
    const [id, g, c] = [this.#record.buffer('layerNorm', x), this.#record.buffer('layerNorm', gain), this.#record.buffer('layerNorm', bias)];
    if (c.size !== g.size) throw new ArgumentError('bias', `the bias must be as long as the gain, ${g.size}, got ${c.size}`);
    return this.#record.op('layerNorm', { eps }, [this.#record.shaped(id, this.#record.rowsOf(id, g)), this.#record.flat(g), this.#record.flat(c)], [id.size]);
  }

  /** Keeps a value for `read` although other operations read it. Before `execute`. */
  keep(id: BufferId): BufferId {
    this.#kept.add(this.#record.index(id));
    return id;
  }

  /**
   * Runs everything recorded: compiles what is new, then one submit. Resolves when the work was submitted; results stay on the device. What is recorded or updated after the call is for
   * the next one.
   */
  execute(): Promise<void> {
    const { generation, values } = this.#record;
    return this.#ask({ generation, values: values.length, uploads: new Map(this.#uploads) });
  }

  /** Plans and compiles what is recorded, kernels side by side, so that the next `execute` only submits. */
  warm(): Promise<void> {
    const { generation, values } = this.#record;
    const asked = { generation, values: values.length, outputs: this.#outputs(values.length) };
    const run = this.#turn.then(async () => {
      this.#expectCurrent(generation);
      if (asked.outputs.size > 0) await this.#compile(asked);
    });
    this.#turn = run.catch(() => undefined);
    return run;
  }

  /** Takes its turn after all that was asked for before. */
  #ask(what: Pick<Asked, 'generation' | 'values' | 'uploads'>): Promise<void> {
    const asked = { ...what, outputs: this.#outputs(what.values) };
    const run = this.#turn.then(() => this.#run(asked));
    // Its caller hears of a failure; the next turn begins all the same.
    this.#turn = run.catch(() => undefined);
    this.#asked = { ...asked, run };
    return run;
  }

  async #run(asked: Omit<Asked, 'run'>): Promise<void> {
    this.#expectCurrent(asked.generation);
    if (asked.outputs.size === 0) return;
    const { graph, inputs, written } = await this.#compile(asked);
    const changed = [...asked.uploads].filter(([index, data]) => inputs.has(leafName(index)) && written.get(index) !== data);
    await graph.execute(Object.fromEntries(changed.map(([index, data]) => [leafName(index), data])));
    for (const [index, data] of changed) written.set(index, data);
  }

  /** As `execute`. Pipelines are always shared by the device; the cache must be the device's own. */
  async executeWithCache(cache: PipelineCache): Promise<void> {
    if (cache !== this.#webgpu().gpu.pipelines)
      throw new ArgumentError('cache', 'the pipeline cache belongs to another device: pass device.pipelines of this one');
    await this.execute();
  }

  /** A value as the last `execute` before this call leaves it. @throws ArgumentError where there was none since the buffer was recorded. */
  async read(id: BufferId): Promise<Float32Array<ArrayBuffer>> {
    const [values] = await this.readMany([id]);
    return defined(values, 'the values of a buffer');
  }

  /** As `read`, for several buffers in one wait. */
  async readMany(ids: readonly BufferId[]): Promise<Float32Array<ArrayBuffer>[]> {
    const wanted = ids.map((id) => this.#readable(id));
    const missing = wanted.filter((index) => this.#record.values[index]?.kind === 'op' && this.#asked?.outputs.has(index) !== true);
    for (const index of missing) this.#kept.add(index);
    if (missing.length > 0 && this.#asked !== undefined) this.#ask(this.#asked);
    const asked = this.#asked;
    if (asked === undefined) return [];
    await asked.run;
    this.#expectCurrent(asked.generation);
    return this.#fetch(wanted, asked);
  }

  /** The index of a buffer that can be read. */
  #readable(id: BufferId): number {
    const index = this.#record.index(id);
    if (this.#asked === undefined) throw new ArgumentError('id', 'nothing was executed yet: call execute() first');
    if (index >= this.#asked.values) throw new ArgumentError('id', `buffer ${index} was recorded after the last execute(): call execute() first`);
    if (this.#record.values[index]?.kind === 'indices') throw new ArgumentError('id', `buffer ${index} holds indices, not values`);
    return index;
  }

  /** Asks the device before it first waits, so that later runs do not change what it reads. */
  async #fetch(wanted: readonly number[], { uploads }: Asked): Promise<Float32Array<ArrayBuffer>[]> {
    const imported = [...new Set(wanted)].filter((index) => this.#imports.has(index));
    const made = [...new Set(wanted)].filter((index) => !uploads.has(index) && !this.#imports.has(index));
    const [imports, results] = await Promise.all([
      this.#readImports(imported),
      made.length === 0 ? new Map() : defined(this.#compiled, 'what was executed').graph.readAll(made.map(leafName)),
    ]);
    return wanted.map((index) => {
      const values: unknown = uploads.get(index) ?? imports.get(index) ?? results.get(leafName(index));
      if (!(values instanceof Float32Array)) throw new ArgumentError('id', `buffer ${index} holds no f32 values`);
      return values.slice();
    });
  }

  /** Forgets everything recorded; ids given so far are void. */
  reset(): void {
    this.#record.reset();
    this.#release();
    for (const map of [this.#uploads, this.#imports, this.#kept]) map.clear();
    this.#asked = undefined;
  }

  /** Frees what the batch has on the device. Calls in flight end with their results where the work was submitted, else with `DisposedError`, as later ones do. Again is no error. */
  dispose(): void {
    this.#record.dispose();
    this.#release();
  }

  /** As `dispose`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** The plan for what was asked; the one at hand where that covers it. */
  async #compile({ generation, values: count, outputs }: Pick<Asked, 'generation' | 'values' | 'outputs'>): Promise<Compiled> {
    const known = this.#compiled;
    if (known !== undefined && known.values === count && [...outputs].every((index) => known.outputs.has(index))) return known;
    this.#release();
    const values = this.#record.values.slice(0, count);
    const tensors = new TensorStore(this.#backend);
    for (const [index, storage] of this.#imports) tensors.adopt(leafName(index), { dtype: 'f32', shape: this.#record.values[index]?.shape ?? [] }, storage);
    const graph = await CompiledGraph.compile(batchGraph(values, [...outputs]), this.#backend, { tensors, regions: true });
    if (!this.#record.isCurrent(generation)) {
      graph.dispose();
      tensors.dispose();
      this.#expectCurrent(generation);
    }
    const inputs = new Set(graph.plan.graph.nodes.flatMap((node) => (node.op === 'input' ? [node.params.name] : [])));
    this.#compiled = { graph, tensors, outputs, values: count, inputs, written: new Map() };
    return this.#compiled;
  }

  /** Of the first `count` buffers: operations that no other one reads, and those to keep. */
  #outputs(count: number): ReadonlySet<number> {
    const values = this.#record.values.slice(0, count);
    const read = new Set(values.flatMap((value) => (value.kind === 'op' ? value.inputs.map((input) => input.value) : [])));
    return new Set(values.flatMap((value, index) => (value.kind === 'op' && (!read.has(index) || this.#kept.has(index)) ? [index] : [])));
  }

  async #readImports(indices: readonly number[]): Promise<ReadonlyMap<number, Float32Array>> {
    if (indices.length === 0) return new Map();
    const regions = indices.map((index) => {
      const storage = defined(this.#imports.get(index), `the imported buffer ${index}`);
      return { storage, offset: 0, byteLength: elementCount(this.#record.values[index]?.shape ?? []) * 4 };
    });
    const read = await this.#backend.readAll(regions);
    return new Map(read.map((bytes, i) => [indices[i] ?? -1, new Float32Array(Uint8Array.from(bytes).buffer)]));
  }

  #webgpu(): WebGpuBackend {
    if (this.#backend instanceof WebGpuBackend) return this.#backend;
    throw new UnsupportedError('the batch runs on the CPU backend, which has no GPU device, queue or buffers');
  }

  /** @throws DisposedError, or BusyError where the batch was reset since `generation`. */
  #expectCurrent(generation: number): void {
    this.#record.check();
    if (!this.#record.isCurrent(generation)) throw new BusyError('the batch was reset while execute() compiled it: await execute() before reset()');
  }

  #release(): void {
    this.#compiled?.graph.dispose();
    this.#compiled?.tensors.dispose();
    this.#compiled = undefined;
  }
}
