import { ArgumentError, DisposedError, UnsupportedError } from '../core/errors.js';
import { elementCount, type Shape, sameShape } from '../core/tensor.js';
import { TensorView } from '../core/views/tensor-view.js';
import type { PipelineCache } from '../gpu/pipeline-cache.js';
import { broadcastShapes } from '../ops/elementwise.js';
import type { BinaryFunction, LeafOp, OpName, OpParams, ReduceFunction, UnaryFunction } from '../ops/params.js';
import type { Backend, Storage } from '../runtime/backend.js';
import { CompiledGraph } from '../runtime/compiled-graph.js';
import { TensorStore } from '../runtime/tensors.js';
import { WebGpuBackend } from '../runtime/webgpu-backend.js';
import { type BatchInput, type BatchValue, batchGraph, leafName } from './batch-program.js';
import { type BatchViewReport, readingOf } from './batch-views.js';
import { backendOf, type ComputeTarget } from './open.js';

/** A buffer of one batch. Only the batch that gave it takes it. */
export class BufferId {
  readonly #batch: GpuCommandBatch;
  /** Counts the batch's buffers from 0. */
  readonly index: number;
  /** f32 elements. */
  readonly size: number;
  /** @internal How often the batch was reset before it gave this id. */
  readonly generation: number;

  /** @internal */
  constructor(batch: GpuCommandBatch, index: number, size: number, generation: number) {
    this.#batch = batch;
    this.index = index;
    this.size = size;
    this.generation = generation;
  }

  belongsTo(batch: GpuCommandBatch): boolean {
    return this.#batch === batch;
  }
}

/** What operations take: a buffer, or a view of one. */
export type BatchTensor = BufferId | TensorView<BufferId>;

/** How a flat buffer is seen as rows of equal length; default one row. */
export interface RowOptions {
  readonly rows?: number;
}

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

interface Compiled {
  readonly graph: CompiledGraph;
  readonly tensors: TensorStore;
  readonly outputs: ReadonlySet<number>;
  /** Uploads that some operation needs. */
  readonly inputs: ReadonlySet<string>;
  readonly values: number;
}

/**
 * Operations recorded now and run together: one encoder and one submit an `execute`, elementwise chains fused into one kernel, buffers shared by liveness. A batch that was executed is a
 * plan: `update` its uploads and `execute` again, and nothing is recorded or made anew. All buffers are f32.
 *
 * Values that no other operation reads are kept for `read`, and those named by `keep`. Reading another one is possible: the batch is planned again with it kept, and run again.
 */
export class GpuCommandBatch {
  readonly #backend: Backend;
  readonly #values: BatchValue[] = [];
  readonly #uploads = new Map<number, Float32Array>();
  readonly #changed = new Set<number>();
  readonly #imports = new Map<number, Storage>();
  readonly #kept = new Set<number>();
  readonly #copies = new Map<TensorView<BufferId>, BufferId>();
  readonly #views: BatchViewReport[] = [];
  #compiled: Compiled | undefined;
  #generation = 0;
  #executed = false;
  #disposed = false;

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

  get queue(): GPUQueue {
    return this.#webgpu().gpu.queue;
  }

  get numOperations(): number {
    return this.#values.filter((value) => value.kind === 'op').length;
  }

  /** Every upload, import and result counts as a buffer. */
  get numBuffers(): number {
    return this.#values.length;
  }

  /** Every view that an operation was given: whether it is read where it lies, or copied first, and why. */
  get views(): readonly BatchViewReport[] {
    return this.#views;
  }

  /** The elements of a view of a buffer, in the view's order, as a buffer of their own: one kernel by the view's strides, or by a list of its elements where it lies in tiles. */
  materialize(view: TensorView<BufferId>): BufferId {
    const source = this.#flat(view.data);
    this.#checkView(view);
    const reading = readingOf(view, view.data.size);
    if (reading.kind !== 'listed') return this.#op('strided', { shape: view.shape, strides: view.strides, offset: view.offset }, [source], [view.numel]);
    const indices = Array.from(view.linearIndices());
    const list = this.#push({ kind: 'indices', values: indices, shape: [indices.length] });
    return this.#op('gather', { axis: 0 }, [source, this.#flat(list)], [indices.length]);
  }

  /** Copies data into the batch; it goes to the device with `execute`. A view is read in its own order. */
  upload(data: Float32Array | TensorView<Float32Array>): BufferId {
    this.#check();
    const values = data instanceof Float32Array ? data.slice() : Float32Array.from(data.toArray());
    if (values.length === 0) throw new ArgumentError('data', 'a buffer has at least one element, got none');
    const id = this.#push({ kind: 'upload', shape: [values.length] });
    this.#uploads.set(id.index, values);
    this.#changed.add(id.index);
    return id;
  }

  /** New data for an upload, of the same length, for the next `execute`. */
  update(id: BufferId, data: Float32Array): void {
    this.#index(id);
    const before = this.#uploads.get(id.index);
    if (before === undefined) throw new ArgumentError('id', `buffer ${id.index} was not uploaded: only uploads can be updated`);
    if (data.length !== before.length) throw new ArgumentError('data', `buffer ${id.index} has ${before.length} elements, got ${data.length}`);
    this.#uploads.set(id.index, data.slice());
    this.#changed.add(id.index);
  }

  /** A buffer of the caller's (usage STORAGE and COPY_SRC) with `size` f32 elements. It must outlive the batch, which never destroys it. WebGPU only. */
  importBuffer(buffer: GPUBuffer, size: number): BufferId {
    const backend = this.#webgpu();
    if (!(Number.isSafeInteger(size) && size > 0)) throw new ArgumentError('size', `size counts f32 elements from 1, got ${size}`);
    if (buffer.size < size * 4) throw new ArgumentError('size', `${size} f32 elements take ${size * 4} bytes, the buffer has ${buffer.size}`);
    const needed = 0x80 | 0x4;
    if ((buffer.usage & needed) !== needed) throw new ArgumentError('buffer', 'an imported buffer needs the usages STORAGE and COPY_SRC');
    const id = this.#push({ kind: 'import', shape: [size] });
    this.#imports.set(id.index, backend.adopt(buffer, leafName(id.index)));
    return id;
  }

  /** y = fn(x), with the function's scalars. */
  unary(fn: UnaryFunction, x: BatchTensor, scalars: { a?: number; b?: number } = {}): BufferId {
    const id = this.#buffer(fn, x);
    return this.#op('unary', { fn, ...scalars }, [this.#flat(id)], [id.size]);
  }

  relu(x: BatchTensor): BufferId {
    return this.unary('relu', x);
  }

  /** x where x > 0, else slope x. */
  leakyRelu(x: BatchTensor, slope: number): BufferId {
    return this.unary('leakyRelu', x, { a: slope });
  }

  elu(x: BatchTensor, alpha: number): BufferId {
    return this.unary('elu', x, { a: alpha });
  }

  clip(x: BatchTensor, min: number, max: number): BufferId {
    if (!(min <= max)) throw new ArgumentError('min', `clip needs min <= max, got ${min} and ${max}`);
    return this.unary('clip', x, { a: min, b: max });
  }

  sigmoid(x: BatchTensor): BufferId {
    return this.unary('sigmoid', x);
  }

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

  scale(x: BatchTensor, factor: number): BufferId {
    return this.unary('scale', x, { a: factor });
  }

  /** y = fn(a, b), element by element; equal sizes, or one of them 1. Views are of one shape, or of the other's size where that is a buffer; those that repeat a buffer are read in place. */
  binary(fn: BinaryFunction, a: BatchTensor, b: BatchTensor): BufferId {
    const [p, q] = [a, b].map((x) => (x instanceof TensorView ? this.#checkView(x).numel : this.#checked(x).size));
    if (p === undefined || q === undefined || (p !== q && p !== 1 && q !== 1))
      throw new ArgumentError('b', `${fn} needs buffers of one size, got ${p} and ${q} elements`);
    const size = Math.max(p, q);
    const shape = [a, b].flatMap((x) => (x instanceof TensorView && x.numel === size ? [x.shape] : []))[0] ?? [size];
    for (const x of [a, b])
      if (x instanceof TensorView && x.numel === size && !sameShape(x.shape, shape))
        throw new ArgumentError('b', `${fn} needs views of one shape, got [${shape.join(', ')}] and [${x.shape.join(', ')}]`);
    const inputs = this.#broadcast(fn, [a, b], shape);
    return this.#op('binary', { fn }, inputs, [size]);
  }

  add(a: BatchTensor, b: BatchTensor): BufferId {
    return this.binary('add', a, b);
  }

  sub(a: BatchTensor, b: BatchTensor): BufferId {
    return this.binary('sub', a, b);
  }

  mul(a: BatchTensor, b: BatchTensor): BufferId {
    return this.binary('mul', a, b);
  }

  div(a: BatchTensor, b: BatchTensor): BufferId {
    return this.binary('div', a, b);
  }

  /** The sum of a[i] b[i]: a buffer of one element. */
  dot(a: BatchTensor, b: BatchTensor): BufferId {
    const [x, y] = [this.#buffer('dot', a), this.#buffer('dot', b)];
    if (x.size !== y.size) throw new ArgumentError('b', `dot needs buffers of one size, got ${x.size} and ${y.size} elements`);
    return this.#op('dot', {}, [this.#flat(x), this.#flat(y)], [1]);
  }

  /** c [m, n] = alpha a [m, k] b [k, n], row-major. A view of a whole buffer that turns rows into columns is read in place. */
  matmul(a: BatchTensor, b: BatchTensor, m: number, k: number, n: number, options: MatmulOptions = {}): BufferId {
    const { transposeA = false, transposeB = false, alpha = 1, rounded = false } = options;
    for (const [name, size] of Object.entries({ m, k, n })) {
      if (!(Number.isSafeInteger(size) && size > 0)) throw new ArgumentError(name, `${name} must be a whole number from 1, got ${size}`);
    }
    const [x, y] = [this.#matrix('a', a, transposeA ? [k, m] : [m, k]), this.#matrix('b', b, transposeB ? [n, k] : [k, n])];
    const turns = { transposeA: transposeA !== x.turned, transposeB: transposeB !== y.turned };
    return this.#op('matmul', { ...turns, alpha, ...(rounded ? { rounded: true as const } : {}) }, [x.input, y.input], [m * n]);
  }

  /** Elements [start, start + length). */
  slice(x: BatchTensor, start: number, length: number): BufferId {
    const id = this.#buffer('slice', x);
    if (!(Number.isSafeInteger(start) && start >= 0 && Number.isSafeInteger(length) && length > 0 && start + length <= id.size))
      throw new ArgumentError('start', `elements ${start} to ${start + length} are not inside a buffer of ${id.size}`);
    return this.#op('slice', { axis: 0, start, length, step: 1 }, [this.#flat(id)], [length]);
  }

  /** Sum, mean, largest, smallest or product of each row: [rows]. */
  reduce(fn: ReduceFunction, x: BatchTensor, options: RowOptions = {}): BufferId {
    const id = this.#buffer(fn, x);
    const shape = this.#rows(id, options);
    return this.#op('reduce', { fn, axes: [1], keepDims: false }, [this.#shaped(id, shape)], [shape[0]]);
  }

  sum(x: BatchTensor, options: RowOptions = {}): BufferId {
    return this.reduce('sum', x, options);
  }

  /** exp(x - max) / sum of each row. */
  softmax(x: BatchTensor, options: RowOptions = {}): BufferId {
    const id = this.#buffer('softmax', x);
    return this.#op('softmax', { axis: 1 }, [this.#shaped(id, this.#rows(id, options))], [id.size]);
  }

  logSoftmax(x: BatchTensor, options: RowOptions = {}): BufferId {
    const id = this.#buffer('logSoftmax', x);
    return this.#op('logSoftmax', { axis: 1 }, [this.#shaped(id, this.#rows(id, options))], [id.size]);
  }

  /** x / sqrt(mean(x^2) + eps) gain, by rows as long as the gain. */
  rmsNorm(x: BatchTensor, gain: BatchTensor, eps: number): BufferId {
    const [id, g] = [this.#buffer('rmsNorm', x), this.#buffer('rmsNorm', gain)];
    return this.#op('rmsNorm', { eps }, [this.#shaped(id, this.#rowsOf(id, g)), this.#flat(g)], [id.size]);
  }

  /** (x - mean) / sqrt(variance + eps) gain + bias, by rows as long as the gain. */
  layerNorm(x: BatchTensor, gain: BatchTensor, bias: BatchTensor, eps: number): BufferId {
    const [id, g, c] = [this.#buffer('layerNorm', x), this.#buffer('layerNorm', gain), this.#buffer('layerNorm', bias)];
    if (c.size !== g.size) throw new ArgumentError('bias', `the bias must be as long as the gain, ${g.size}, got ${c.size}`);
    return this.#op('layerNorm', { eps }, [this.#shaped(id, this.#rowsOf(id, g)), this.#flat(g), this.#flat(c)], [id.size]);
  }

  /** Keeps a value for `read` although other operations read it. Before `execute`. */
  keep(id: BufferId): BufferId {
    this.#kept.add(this.#index(id));
    return id;
  }

  /** Runs everything recorded: compiles what is new, then one submit. Resolves when the work was submitted; results stay on the device. */
  async execute(): Promise<void> {
    this.#check();
    if (this.numOperations > 0) {
      const compiled = await this.#compile();
      const inputs: Record<string, Float32Array> = {};
      for (const index of this.#changed) if (compiled.inputs.has(leafName(index))) inputs[leafName(index)] = this.#uploads.get(index) ?? new Float32Array();
      await compiled.graph.execute(inputs);
    }
    this.#changed.clear();
    this.#executed = true;
  }

  /** As `execute`. Pipelines are always shared by the device; the cache must be the device's own. */
  async executeWithCache(cache: PipelineCache): Promise<void> {
    if (cache !== this.#webgpu().gpu.pipelines)
      throw new ArgumentError('cache', 'the pipeline cache belongs to another device: pass device.pipelines of this one');
    await this.execute();
  }

  /** A value after `execute`. */
  async read(id: BufferId): Promise<Float32Array<ArrayBuffer>> {
    const index = this.#index(id);
    if (!this.#executed) throw new ArgumentError('id', 'nothing was executed yet: call execute() first');
    const value = this.#values[index];
    const uploaded = this.#uploads.get(index);
    if (uploaded !== undefined) return uploaded.slice();
    if (value?.kind === 'indices') throw new ArgumentError('id', `buffer ${index} holds indices, not values`);
    if (value?.kind === 'import') return this.#readImport(index, elementCount(value.shape));
    if (this.#compiled?.outputs.has(index) !== true) {
      this.#kept.add(index);
      await this.execute();
    }
    const data = await this.#compiled?.graph.read(leafName(index));
    if (!(data instanceof Float32Array)) throw new ArgumentError('id', `buffer ${index} holds no f32 values`);
    return data;
  }

  readMany(ids: readonly BufferId[]): Promise<Float32Array<ArrayBuffer>[]> {
    for (const id of ids)
      if (this.#executed && this.#values[this.#index(id)]?.kind === 'op' && this.#compiled?.outputs.has(id.index) !== true) this.#kept.add(id.index);
    return ids.reduce<Promise<Float32Array<ArrayBuffer>[]>>(async (done, id) => [...(await done), await this.read(id)], Promise.resolve([]));
  }

  /** Forgets everything recorded; ids given so far are void. */
  reset(): void {
    this.#check();
    this.#release();
    this.#values.length = 0;
    this.#generation++;
    for (const map of [this.#uploads, this.#changed, this.#imports, this.#kept, this.#copies]) map.clear();
    this.#views.length = 0;
    this.#executed = false;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** The plan for what is recorded now; the one at hand where nothing was added. */
  async #compile(): Promise<Compiled> {
    const outputs = this.#outputs();
    const known = this.#compiled;
    if (known !== undefined && known.values === this.#values.length && outputs.every((index) => known.outputs.has(index))) return known;
    this.#release();
    const tensors = new TensorStore(this.#backend);
    for (const [index, storage] of this.#imports) tensors.adopt(leafName(index), { dtype: 'f32', shape: this.#values[index]?.shape ?? [] }, storage);
    const graph = await CompiledGraph.compile(batchGraph(this.#values, outputs), this.#backend, { tensors, regions: true });
    for (const index of this.#uploads.keys()) this.#changed.add(index);
    const inputs = new Set(graph.plan.graph.nodes.flatMap((node) => (node.op === 'input' ? [node.params.name] : [])));
    this.#compiled = { graph, tensors, outputs: new Set(outputs), inputs, values: this.#values.length };
    return this.#compiled;
  }

  /** Operations that nobody reads, and those to keep. */
  #outputs(): number[] {
    const read = new Set(this.#values.flatMap((value) => (value.kind === 'op' ? value.inputs.map((input) => input.value) : [])));
    return this.#values.flatMap((value, index) => (value.kind === 'op' && (!read.has(index) || this.#kept.has(index)) ? [index] : []));
  }

  async #readImport(index: number, elements: number): Promise<Float32Array<ArrayBuffer>> {
    const storage = this.#imports.get(index);
    if (storage === undefined) throw new ArgumentError('id', `buffer ${index} was not imported`);
    const bytes = Uint8Array.from(await this.#backend.read({ storage, offset: 0, byteLength: elements * 4 }));
    return new Float32Array(bytes.buffer);
  }

  #op<K extends Exclude<OpName, LeafOp>>(op: K, params: OpParams[K], inputs: readonly BatchInput[], shape: readonly number[]): BufferId {
    return this.#push({ kind: 'op', op, params, inputs, shape });
  }

  #push(value: BatchValue): BufferId {
    this.#check();
    this.#values.push(value);
    return new BufferId(this, this.#values.length - 1, elementCount(value.shape), this.#generation);
  }

  /** A buffer with the elements of x: x itself, the buffer that a view is the whole of, or a copy, one for each view. */
  #buffer(operation: string, x: BatchTensor): BufferId {
    if (!(x instanceof TensorView)) return this.#checked(x);
    const { kind } = readingOf(this.#checkView(x), x.data.size);
    if (kind === 'whole') {
      this.#report(operation, x, 'it is the whole buffer in its order');
      return x.data;
    }
    this.#report(operation, x, undefined);
    const copy = this.#copies.get(x) ?? this.materialize(x);
    this.#copies.set(x, copy);
    return copy;
  }

  /** Operands of an elementwise operation on `shape`. */
  #broadcast(operation: string, operands: readonly BatchTensor[], shape: Shape): readonly BatchInput[] {
    const size = elementCount(shape);
    const shapes = operands.map((x): Shape | undefined => {
      const reading = x instanceof TensorView && x.numel === size ? readingOf(x, x.data.size) : undefined;
      return reading?.kind === 'repeated' ? reading.shape : undefined;
    });
    // All of them repeated along one axis would lose it: the first is copied then.
    const whole = shapes.map((repeated) => repeated ?? shape).reduce((p, q) => broadcastShapes(operation, p, q));
    return operands.map((x, i): BatchInput => {
      const repeated = sameShape(whole, shape) || i > 0 ? shapes[i] : undefined;
      if (repeated === undefined || !(x instanceof TensorView)) {
        const id = this.#buffer(operation, x);
        return this.#shaped(id, id.size === size ? shape : [1]);
      }
      this.#report(operation, x, 'the operation broadcasts');
      return this.#shaped(x.data, repeated);
    });
  }

  /** A matrix as it is stored, `shape`; `turned` where the buffer holds its transpose. */
  #matrix(name: string, x: BatchTensor, shape: readonly [number, number]): { readonly input: BatchInput; readonly turned: boolean } {
    const [rows, columns] = shape;
    const size = x instanceof TensorView ? this.#checkView(x).numel : this.#checked(x).size;
    if (size !== rows * columns) throw new ArgumentError(name, `${name} [${rows}, ${columns}] has ${rows * columns} elements, got ${size}`);
    const turned = x instanceof TensorView && sameShape(x.shape, shape) && readingOf(x, x.data.size).kind === 'turned';
    if (!turned) return { input: this.#shaped(this.#buffer('matmul', x), shape), turned: false };
    this.#report('matmul', x, 'the product reads the buffer by columns');
    return { input: this.#shaped(x.data, [columns, rows]), turned: true };
  }

  /** `inPlace` says why a view is read where it lies; undefined: it is copied. */
  #report(operation: string, { shape, data }: TensorView<BufferId>, inPlace: string | undefined): void {
    const reason = inPlace ?? 'the operation reads its elements one after the other';
    this.#views.push({ operation, shape, buffer: data.index, reading: inPlace === undefined ? 'copied' : 'in place', reason });
  }

  #checkView(view: TensorView<BufferId>): TensorView<BufferId> {
    this.#index(view.data);
    const { extent } = view;
    if (extent === undefined) throw new ArgumentError('view', 'the view has no elements: a buffer has at least one');
    if (extent.max >= view.data.size) throw new ArgumentError('view', `the view reaches element ${extent.max} of a buffer of ${view.data.size}`);
    return view;
  }

  #checked(id: BufferId): BufferId {
    this.#index(id);
    return id;
  }

  #flat(id: BufferId): BatchInput {
    return this.#shaped(id, [id.size]);
  }

  #shaped(id: BufferId, shape: readonly number[]): BatchInput {
    return { value: this.#index(id), shape };
  }

  #rows(id: BufferId, { rows = 1 }: RowOptions): [number, number] {
    if (!(Number.isSafeInteger(rows) && rows > 0 && id.size % rows === 0))
      throw new ArgumentError('rows', `${id.size} elements do not make ${rows} equal rows`);
    return [rows, id.size / rows];
  }

  #rowsOf(x: BufferId, gain: BufferId): [number, number] {
    if (x.size % gain.size !== 0) throw new ArgumentError('gain', `${x.size} elements do not make rows of ${gain.size}`);
    return [x.size / gain.size, gain.size];
  }

  #index(id: BufferId): number {
    this.#check();
    if (!(id instanceof BufferId) || !id.belongsTo(this))
      throw new ArgumentError('id', 'the buffer id is of another batch: ids belong to the batch that gave them');
    if (id.generation !== this.#generation) throw new ArgumentError('id', `buffer ${id.index} is void since reset()`);
    return id.index;
  }

  #webgpu(): WebGpuBackend {
    if (this.#backend instanceof WebGpuBackend) return this.#backend;
    throw new UnsupportedError('the batch runs on the CPU backend, which has no GPU device, queue or buffers');
  }

  #release(): void {
    this.#compiled?.graph.dispose();
    this.#compiled?.tensors.dispose();
    this.#compiled = undefined;
  }

  #check(): void {
    if (this.#disposed) throw new DisposedError('the batch');
  }
}
