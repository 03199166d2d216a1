import { ArgumentError, defined, UnsupportedError } from '../core/errors.js';
import { sameShape } from '../core/tensor.js';
import { TensorView } from '../core/views/tensor-view.js';
import { bufferUsage } from '../gpu/constants.js';
import type { PipelineCache } from '../gpu/pipeline-cache.js';
import type { BinaryFunction, ReduceFunction, UnaryFunction } from '../ops/params.js';
import type { Backend } from '../runtime/backend.js';
import { WebGpuBackend } from '../runtime/webgpu-backend.js';
import { leafName } from './batch-program.js';
import { BatchRecord, type BatchTensor, type BufferId, type RowOptions } from './batch-record.js';
import { BatchRunner } from './batch-runner.js';
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
  readonly #runner: BatchRunner;

  constructor(target: ComputeTarget) {
    this.#backend = backendOf(target);
    this.#runner = new BatchRunner(this.#backend, this.#record);
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
    this.#runner.uploads.set(id.index, values);
    return id;
  }

  /** New data for an upload, of the same length, for the `execute` calls from now on. */
  update(id: BufferId, data: HostArray): void {
    this.#record.index(id);
    const before = this.#runner.uploads.get(id.index);
    if (before === undefined) throw new ArgumentError('id', `buffer ${id.index} was not uploaded: only uploads can be updated`);
    const values = hostValues('data', data).slice();
    if (values.length !== before.length) throw new ArgumentError('data', `buffer ${id.index} has ${before.length} elements, got ${values.length}`);
    this.#runner.uploads.set(id.index, values);
  }

  /** A buffer of the caller's (usage STORAGE and COPY_SRC) with `size` f32 elements. It must outlive the batch, which never destroys it. WebGPU only. */
  importBuffer(buffer: GPUBuffer, size: number): BufferId {
    const backend = this.#webgpu();
    if (!(Number.isSafeInteger(size) && size > 0)) throw new ArgumentError('size', `size counts f32 elements from 1, got ${size}`);
    if (buffer.size < size * 4) throw new ArgumentError('size', `${size} f32 elements take ${size * 4} bytes, the buffer has ${buffer.size}`);
    const needed = bufferUsage.storage | bufferUsage.copySrc;
    if ((buffer.usage & needed) !== needed)
      throw new ArgumentError('buffer', `an imported buffer needs the usages STORAGE and COPY_SRC, "${buffer.label}" has 0x${buffer.usage.toString(16)}`);
    const id = this.#record.push({ kind: 'import', shape: [size] });
    this.#runner.imports.set(id.index, backend.adopt(buffer, leafName(id.index)));
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
    this.#runner.kept.add(this.#record.index(id));
    return id;
  }

  /**
   * Runs everything recorded: compiles what is new, then one submit. Resolves when the work was submitted; results stay on the device. What is recorded or updated after the call is for
   * the next one.
   */
  execute(): Promise<void> {
    return this.#runner.execute();
  }

  /** Plans and compiles what is recorded, kernels side by side, so that the next `execute` only submits. */
  warm(): Promise<void> {
    return this.#runner.warm();
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
    return this.#runner.read(ids.map((id) => this.#record.index(id)));
  }

  /** Forgets everything recorded; ids given so far are void. */
  reset(): void {
    this.#record.reset();
    this.#runner.reset();
  }

  /** Frees what the batch has on the device. Calls in flight end with their results where the work was submitted, else with `DisposedError`, as later ones do. Again is no error. */
  dispose(): void {
    this.#record.dispose();
    this.#runner.release();
  }

  /** As `dispose`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #webgpu(): WebGpuBackend {
    if (this.#backend instanceof WebGpuBackend) return this.#backend;
    throw new UnsupportedError("the batch runs on the CPU backend, which has no GPU device, queue or buffers: open one by openBackend({ device: 'webgpu' })");
  }
}
