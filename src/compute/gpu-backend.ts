import { ArgumentError, DisposedError, ShapeError } from '../core/errors.js';
import { elementCount } from '../core/tensor.js';
import type { HostData } from '../core/views/tensor-view.js';
import type { GraphBuilder } from '../graph/builder.js';
import type { NodeId } from '../graph/graph.js';
import type { BinaryFunction, ReduceFunction, UnaryFunction } from '../ops/params.js';
import type { Backend, BackendKind } from '../runtime/backend.js';
import type { BackendOptions } from '../runtime/select.js';
import type { MatmulOptions } from './batch.js';
import type { RowOptions } from './batch-record.js';
import { type EigenOptions, type EigenResult, symmetricEigen } from './eigen.js';
import { type HostArray, hostValues } from './host-array.js';
import { openTarget, type TargetChoice } from './open.js';
import { type Operation, OperationCache } from './operation-cache.js';
import { type RowOperation, rowsOfPiece, runColumns, runRows } from './row-pieces.js';
import { foldPartials, type MatrixView, matrixOf } from './tiled/reduce.js';
import { MaxOp, MinOp, type ReduceOp, SumOp } from './tiled/reduce-op.js';

export type { HostArray } from './host-array.js';

/** Where operations run, and how many compiled ones are kept. */
export interface GpuBackendOptions extends Omit<BackendOptions, 'device'> {
  /** Default 'auto': a hardware GPU, else the CPU. A `GpuDevice` or `Backend` of the caller's is used as it is. */
  readonly device?: TargetChoice;
  /** Compiled operations kept for their shapes, oldest first out. Default 64. */
  readonly cachedGraphs?: number;
}

/** Sizes of a convolution, in elements. */
export interface Convolution {
  /** [channels, rows, columns] of the input. */
  readonly channels?: number;
  readonly inRows: number;
  readonly inColumns: number;
  /** [outChannels, channels, kernelRows, kernelColumns] of the kernel. */
  readonly outChannels?: number;
  readonly kernelRows: number;
  readonly kernelColumns: number;
  readonly stride?: number;
  /** 'valid' (default): inside the input only. 'same': output as large as the input over the stride. 'full': wherever kernel and input meet. */
  readonly padding?: 'valid' | 'same' | 'full';
}

const tiledOps = { sum: SumOp, max: MaxOp, min: MinOp } as const;

/**
 * One call, one result: host arrays in, host arrays out, on WebGPU or, where there is none, on the CPU. Each operation is compiled once for its shapes. Chains of operations are faster in a
 * `GpuCommandBatch`, repeated products with one weight in a `GpuMatmulCache`.
 *
 * Calls may run at the same time; the arrays of a call must not change until it resolves.
 *
 * Empty input: elementwise operations, softmax and their like give an empty result, sums 0, `max` -Infinity, `min` Infinity; `vecAdd` refuses it. NaN and infinities go through as IEEE 754
 * says; each method says where it differs. Input may be longer than one dispatch dimension reaches (16,776,960 elements), and longer than one binding of the device holds (its
 * `maxStorageBufferBindingSize`, 128 MiB at least): elementwise operations, sums and their like, row operations whose rows fit, and products with large a [m, k] or large transposed b [n, k] then go through
 * in pieces. The other operands have to fit a binding: UnsupportedError.
 */
export class GpuBackend {
  readonly #opening: () => ReturnType<typeof openTarget>;
  readonly #operations: OperationCache;
  #opened: ReturnType<typeof openTarget> | undefined;
  #disposed = false;

  /** Touches no device before the first operation. */
  constructor(options: GpuBackendOptions = {}) {
    const { device, cachedGraphs = 64, ...rest } = options;
    if (!Number.isSafeInteger(cachedGraphs) || cachedGraphs < 1)
      throw new ArgumentError('cachedGraphs', `cachedGraphs is a whole number of compiled operations from 1, got ${String(cachedGraphs)}`);
    this.#opening = () => openTarget(device, rest);
    this.#operations = new OperationCache(cachedGraphs);
  }

  /** Which backend runs the operations; opens it. */
  async info(): Promise<{ kind: BackendKind; name: string; reason: string }> {
    const { kind, name, reason } = await this.#open();
    return { kind, name, reason };
  }

  /** y = fn(x), with the function's scalars: leakyRelu and elu take `a`, clip `a` and `b`. */
  async unary(fn: UnaryFunction, x: HostArray, scalars: { a?: number; b?: number } = {}): Promise<Float32Array> {
    const data = hostValues('x', x);
    if (data.length === 0) return new Float32Array();
    return this.#elements(`${fn} ${scalars.a} ${scalars.b}`, (g, [a]) => g.unary(fn, need(a), scalars), [data]);
  }

  /** y = fn(a, b) for equal lengths. */
  async binary(fn: BinaryFunction, a: HostArray, b: HostArray): Promise<Float32Array> {
    const [x, y] = [hostValues('a', a), hostValues('b', b)];
    sameLength(fn, x, y);
    if (x.length === 0) return new Float32Array();
    return this.#elements(fn, (g, [p, q]) => g.binary(fn, need(p), need(q)), [x, y]);
  }

  /** a + b for equal lengths. */
  add(a: HostArray, b: HostArray): Promise<Float32Array> {
    return this.binary('add', a, b);
  }

  /** a - b for equal lengths. */
  sub(a: HostArray, b: HostArray): Promise<Float32Array> {
    return this.binary('sub', a, b);
  }

  /** a b, element by element, for equal lengths. */
  mul(a: HostArray, b: HostArray): Promise<Float32Array> {
    return this.binary('mul', a, b);
  }

  /** a / b for equal lengths, as IEEE 754 has it. */
  div(a: HostArray, b: HostArray): Promise<Float32Array> {
    return this.binary('div', a, b);
  }

  /** factor x. */
  scale(x: HostArray, factor: number): Promise<Float32Array> {
    return this.unary('scale', x, { a: factor });
  }

  /** As `add`, but empty vectors are an error. @throws ArgumentError for empty vectors, ShapeError for different lengths. */
  async vecAdd(a: HostArray, b: HostArray): Promise<Float32Array> {
    const [x, y] = [hostValues('a', a), hostValues('b', b)];
    sameLength('vecAdd', x, y);
    if (x.length === 0) throw new ArgumentError('a', 'vecAdd needs at least one element, got empty vectors');
    return this.binary('add', x, y);
  }

  /** The sum of a[i] b[i]; 0 for empty vectors. */
  async dot(a: HostArray, b: HostArray): Promise<number> {
    const [x, y] = [hostValues('a', a), hostValues('b', b)];
    sameLength('dot', x, y);
    if (x.length === 0) return 0;
    const build: Build = (g, inputs) => g.add('dot', {}, inputs);
    return this.#folded(x.length, 'sum', (from, to) => {
      return this.#run({ key: 'dot', shapes: [[to - from], [to - from]], build }, [x.subarray(from, to), y.subarray(from, to)]);
    });
  }

  /** max(x, 0). NaN stays NaN. */
  relu(x: HostArray): Promise<Float32Array> {
    return this.unary('relu', x);
  }

  /** x where x > 0, else slope x. */
  leakyRelu(x: HostArray, negativeSlope: number): Promise<Float32Array> {
    return this.unary('leakyRelu', x, { a: negativeSlope });
  }

  /** x where x > 0, else alpha (e^x - 1), accurate near zero. */
  elu(x: HostArray, alpha: number): Promise<Float32Array> {
    return this.unary('elu', x, { a: alpha });
  }

  /** Between min and max. @throws ArgumentError unless min <= max. */
  async clip(x: HostArray, min: number, max: number): Promise<Float32Array> {
    if (!(min <= max)) throw new ArgumentError('min', `clip needs min <= max, got ${min} and ${max}`);
    return this.unary('clip', x, { a: min, b: max });
  }

  /** 1 / (1 + e^-x), stable on both sides. */
  sigmoid(x: HostArray): Promise<Float32Array> {
    return this.unary('sigmoid', x);
  }

  /** Accurate near zero. */
  tanh(x: HostArray): Promise<Float32Array> {
    return this.unary('tanh', x);
  }

  /** x sigmoid(x) (SiLU); 0 at -Infinity. */
  swish(x: HostArray): Promise<Float32Array> {
    return this.unary('silu', x);
  }

  /** 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), or with `exact` x Phi(x) by erf; 0 at -Infinity. */
  gelu(x: HostArray, options: { exact?: boolean } = {}): Promise<Float32Array> {
    return this.unary(options.exact === true ? 'geluErf' : 'gelu', x);
  }

  /** e^(x - max) / sum over each of `rows` equal rows (default one). */
  softmax(x: HostArray, options: { rows?: number } = {}): Promise<Float32Array> {
    return this.#rowwise('softmax', x, options.rows ?? 1);
  }

  /** x - max - ln(sum e^(x - max)) over each of `rows` equal rows (default one). */
  logSoftmax(x: HostArray, options: { rows?: number } = {}): Promise<Float32Array> {
    return this.#rowwise('logSoftmax', x, options.rows ?? 1);
  }

  /** Elements [start, start + length). */
  async slice(x: HostArray, start: number, length: number): Promise<Float32Array> {
    const data = hostValues('x', x);
    if (!(Number.isSafeInteger(start) && start >= 0 && Number.isSafeInteger(length) && length >= 0 && start + length <= data.length))
      throw new ArgumentError('start', `elements ${start} to ${start + length} are not inside an array of ${data.length}`);
    if (length === 0) return new Float32Array();
    const build = (g: GraphBuilder, inputs: readonly NodeId[]): NodeId => g.add('slice', { axis: 0, start, length, step: 1 }, inputs);
    return this.#run({ key: `slice ${start} ${length}`, shapes: [[data.length]], build }, [data]);
  }

  /** Sum, mean, max, min or product of all elements; with `rows`, of each of so many equal rows. */
  reduce(fn: ReduceFunction, x: HostArray): Promise<number>;
  reduce(fn: ReduceFunction, x: HostArray, options: Required<RowOptions>): Promise<Float32Array>;
  async reduce(fn: ReduceFunction, x: HostArray, options: RowOptions = {}): Promise<number | Float32Array> {
    const data = hostValues('x', x);
    const { rows } = options;
    const shape = rowsOf(data, rows ?? 1);
    if (!Object.hasOwn(emptyReduction, fn)) throw new ArgumentError('fn', `reduce knows ${Object.keys(emptyReduction).join(', ')}, got ${String(fn)}`);
    if (data.length === 0) return rows === undefined ? emptyReduction[fn] : new Float32Array(rows).fill(emptyReduction[fn]);
    const build: Build = (g, inputs) => g.add('reduce', { fn, axes: [1], keepDims: false }, inputs);
    const operation = { key: `reduce ${fn}`, build } as const;
    if (rows === undefined)
      return this.#folded(data.length, fn, (from, to) => this.#run({ ...operation, shapes: [[1, to - from]] }, [data.subarray(from, to)]));
    const width = shape[1];
    return this.#rows({ ...operation, rows, widths: [width], out: 1, shapes: (count) => [[count, width]] }, [data]);
  }

  /** The sum of all elements; with `rows`, of each row. */
  sum(x: HostArray): Promise<number>;
  sum(x: HostArray, options: Required<RowOptions>): Promise<Float32Array>;
  sum(x: HostArray, options?: Required<RowOptions>): Promise<number | Float32Array> {
    return options === undefined ? this.reduce('sum', x) : this.reduce('sum', x, options);
  }

  /** x / sqrt(mean(x^2) + eps) gain, by rows as long as the gain. */
  async rmsNorm(x: HostArray, gain: HostArray, eps: number): Promise<Float32Array> {
    const [data, gains] = [hostValues('x', x), hostValues('gain', gain)];
    const shape = normRows(data, gains);
    if (data.length === 0) return new Float32Array();
    return this.#norm(`rmsNorm ${eps}`, (g, inputs) => g.add('rmsNorm', { eps }, inputs), shape, [data, gains]);
  }

  /** (x - mean) / sqrt(variance + eps) gain + bias, by rows as long as the gain. */
  async layerNorm(x: HostArray, gain: HostArray, bias: HostArray, eps: number): Promise<Float32Array> {
    const [data, gains, biases] = [hostValues('x', x), hostValues('gain', gain), hostValues('bias', bias)];
    const shape = normRows(data, gains);
    sameLength('layerNorm: gain and bias', gains, biases);
    if (data.length === 0) return new Float32Array();
    return this.#norm(`layerNorm ${eps}`, (g, inputs) => g.add('layerNorm', { eps }, inputs), shape, [data, gains, biases]);
  }

  /** c [m, n] = alpha a [m, k] b [k, n], row-major; a as [k, m] and b as [n, k] where they are stored transposed. A zero size gives zeros (k = 0) or nothing (m or n = 0). */
  async matmul(a: HostArray, b: HostArray, m: number, k: number, n: number, options: MatmulOptions = {}): Promise<Float32Array> {
    const { transposeA = false, transposeB = false, alpha = 1, rounded = false } = options;
    const [x, y] = [hostValues('a', a), hostValues('b', b)];
    for (const [name, size] of Object.entries({ m, k, n }))
      if (!(Number.isSafeInteger(size) && size >= 0)) throw new ArgumentError(name, `${name} must be a whole number from 0, got ${size}`);
    const shapes = [transposeA ? [k, m] : [m, k], transposeB ? [n, k] : [k, n]];
    for (const [name, data, shape] of [['a', x, shapes[0] ?? []] as const, ['b', y, shapes[1] ?? []] as const]) {
      if (data.length !== elementCount(shape))
        throw new ShapeError(`matmul: ${name} [${shape.join(', ')}] has ${elementCount(shape)} elements, got ${data.length}`);
    }
    if (!Number.isSafeInteger(m * n)) throw new ArgumentError('m', `a result [${m}, ${n}] has more elements than can be counted exactly`);
    if (m * k * n === 0) return new Float32Array(m * n);
    const build: Build = (g, inputs) => g.add('matmul', { transposeA, transposeB, alpha, ...(rounded ? { rounded: true as const } : {}) }, inputs);
    const key = `matmul ${transposeA} ${transposeB} ${alpha} ${rounded}`;
    // Rows of c are rows of a, and its columns rows of a transposed b: either may be taken in pieces.
    const rows = (b: Float32Array, columns: number): Promise<Float32Array> => {
      const shapeB = transposeB ? [columns, k] : [k, columns];
      if (transposeA) return this.#run({ key, shapes: [[k, m], shapeB], build }, [x, b]);
      return this.#rows({ key, build, rows: m, widths: [k, 0], out: columns, shapes: (count) => [[count, k], shapeB] }, [x, b]);
    };
    if (!transposeB) return rows(y, n);
    const step = rowsOfPiece({ rows: n, widths: [k], out: transposeA ? m : 1 }, await this.#mostNumbers());
    return runColumns((start, count) => rows(y.subarray(start * k, (start + count) * k), count), m, n, step);
  }

  /** Cross-correlation (the kernel is not flipped): out[o, r, c] = sum in[i, r s + p, c s + q] kernel[o, i, p, q]. */
  async convolve2d(input: HostArray, kernel: HostArray, shape: Convolution): Promise<Float32Array> {
    const { channels = 1, outChannels = 1, inRows, inColumns, kernelRows, kernelColumns, stride = 1, padding = 'valid' } = shape ?? {};
    for (const [name, size] of Object.entries({ channels, outChannels, inRows, inColumns, kernelRows, kernelColumns }))
      if (!(Number.isSafeInteger(size) && size >= 1)) throw new ArgumentError(name, `convolve2d: ${name} must be a whole number from 1, got ${String(size)}`);
    const [x, w] = [hostValues('input', input), hostValues('kernel', kernel)];
    const shapes = [
      [1, channels, inRows, inColumns],
      [outChannels, channels, kernelRows, kernelColumns],
    ];
    for (const [name, data, wanted] of [
      ['input', x, shapes[0] ?? []],
      ['kernel', w, shapes[1] ?? []],
    ] as const) {
      if (data.length !== elementCount(wanted))
        throw new ShapeError(`convolve2d: the ${name} [${wanted.join(', ')}] has ${elementCount(wanted)} elements, got ${data.length}`);
    }
    const build = (g: GraphBuilder, inputs: readonly NodeId[]): NodeId => g.add('conv2d', { stride, padding }, inputs);
    return this.#run({ key: `conv2d ${stride} ${padding}`, shapes, build }, [x, w]);
  }

  /** Eigenvalues and eigenvectors of a symmetric matrix [n, n]; see `symmetricEigen`. */
  async symmetricEigen(matrix: HostArray, n: number, options: EigenOptions = {}): Promise<EigenResult> {
    return symmetricEigen(await this.#open(), hostValues('matrix', matrix), n, options);
  }

  /**
   * Reduces a matrix by the 16 x 16 tile tree, bit for bit `tiledReduce2d`: arguments, results for empty input and errors are those of that function.
   * @throws ArgumentError too for an operation that is not `SumOp`, `MaxOp` or `MinOp`: kernels know no others.
   */
  async tiledReduce2d(op: ReduceOp, data: HostData | MatrixView, width?: number, height?: number): Promise<number> {
    return foldPartials(op, await this.tiledReducePartial(op, data, width, height));
  }

  /** The numbers that each tile of 16 x 16 reduces to, row-major by tile, bit for bit those of `tiledReducePartial`. */
  async tiledReducePartial(op: ReduceOp, data: HostData | MatrixView, width?: number, height?: number): Promise<Float32Array> {
    if (tiledOps[op?.name] !== op) throw new ArgumentError('op', 'a tiled reduction on a device is by SumOp, MaxOp or MinOp');
    const matrix = matrixOf(data, width, height);
    if (matrix.isEmpty) return new Float32Array();
    const build = (g: GraphBuilder, inputs: readonly NodeId[]): NodeId => g.add('tileReduce', { fn: op.name }, inputs);
    return this.#run({ key: `tile ${op.name}`, shapes: [matrix.shape], build }, [packedValues(matrix)]);
  }

  /** Sum of a matrix, given as a view or as at least width x height numbers; 0 for an empty one. */
  tiledSum2d(data: HostData | MatrixView, width?: number, height?: number): Promise<number> {
    return this.tiledReduce2d(SumOp, data, width, height);
  }

  /** Largest element, NaN passed over; -Infinity for an empty matrix. */
  tiledMax2d(data: HostData | MatrixView, width?: number, height?: number): Promise<number> {
    return this.tiledReduce2d(MaxOp, data, width, height);
  }

  /** Smallest element, NaN passed over; Infinity for an empty matrix. */
  tiledMin2d(data: HostData | MatrixView, width?: number, height?: number): Promise<number> {
    return this.tiledReduce2d(MinOp, data, width, height);
  }

  /** Frees what was compiled and, where it was opened here, the device. Calls in flight end with their results or with `DisposedError`, as later ones do. Again is no error. */
  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#operations.dispose();
    const opened = await this.#opened?.catch(() => undefined);
    if (opened?.owned === true) opened.backend.dispose();
  }

  /** As `dispose`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #rowwise(op: 'softmax' | 'logSoftmax', x: HostArray, rows: number): Promise<Float32Array> {
    const data = hostValues('x', x);
    const shape = rowsOf(data, rows);
    if (data.length === 0) return new Float32Array();
    const width = shape[1];
    return this.#rows(
      { key: op, build: (g, inputs) => g.add(op, { axis: 1 }, inputs), rows, widths: [width], out: width, shapes: (count) => [[count, width]] },
      [data],
    );
  }

  /** Every element by itself. */
  #elements(key: string, build: Build, inputs: readonly Float32Array[]): Promise<Float32Array> {
    const rows = inputs[0]?.length ?? 0;
    return this.#rows({ key, build, rows, widths: inputs.map(() => 1), out: 1, shapes: (count) => inputs.map(() => [count]) }, inputs);
  }

  /** Rows with what all of them share after them: a gain, a bias. */
  #norm(key: string, build: Build, [rows, width]: readonly [number, number], inputs: readonly Float32Array[]): Promise<Float32Array> {
    const shared = inputs.slice(1).map((data) => [data.length]);
    const operation = { key, build, rows, widths: [width, ...shared.map(() => 0)], out: width, shapes: (count: number) => [[count, width], ...shared] };
    return this.#rows(operation, inputs);
  }

  async #rows(operation: RowOperation, inputs: readonly Float32Array[]): Promise<Float32Array> {
    return runRows((part, data) => this.#run(part, data), operation, inputs, await this.#mostNumbers());
  }

  /** One number of all elements: of what `part` makes of pieces that a binding holds, where there are more of them than that. */
  async #folded(length: number, fn: ReduceFunction, part: (from: number, to: number) => Promise<Float32Array>): Promise<number> {
    const step = rowsOfPiece({ rows: length, widths: [1], out: 1 }, await this.#mostNumbers());
    if (step === length) return (await part(0, length))[0] ?? Number.NaN;
    let whole: number | undefined;
    for (let from = 0; from < length; from += step) {
      const to = Math.min(from + step, length);
      const [value = Number.NaN] = await part(from, to);
      whole = folds[fn](whole, fn === 'mean' ? (value * (to - from)) / length : value);
    }
    return Math.fround(whole ?? Number.NaN);
  }

  async #mostNumbers(): Promise<number> {
    return Math.floor((await this.#open()).maxBindingBytes / 4);
  }

  async #run(operation: Operation, inputs: readonly Float32Array[]): Promise<Float32Array> {
    return this.#operations.run(await this.#open(), operation, inputs);
  }

  async #open(): Promise<Backend> {
    if (this.#disposed) throw new DisposedError('the GPU backend');
    if (this.#opened === undefined) {
      const opening = this.#opening();
      // What failed is tried again by the next call: a driver may be back by then.
      opening.catch(() => {
        if (this.#opened === opening) this.#opened = undefined;
      });
      this.#opened = opening;
    }
    return (await this.#opened).backend;
  }
}

type Build = Operation['build'];

const sumOf = (a: number | undefined, b: number): number => (a ?? 0) + b;
/** Pieces to a whole, in f64. NaN goes through `Math.max` and `Math.min`. */
const folds: { readonly [F in ReduceFunction]: (before: number | undefined, value: number) => number } = {
  sum: sumOf,
  mean: sumOf,
  max: (a, b) => Math.max(a ?? b, b),
  min: (a, b) => Math.min(a ?? b, b),
  prod: (a, b) => (a ?? 1) * b,
};

const emptyReduction: { readonly [F in ReduceFunction]: number } = {
  sum: 0,
  mean: Number.NaN,
  max: Number.NEGATIVE_INFINITY,
  min: Number.POSITIVE_INFINITY,
  prod: 1,
};

function rowsOf(data: Float32Array, rows: number): readonly [number, number] {
  if (!(Number.isSafeInteger(rows) && rows > 0 && data.length % rows === 0))
    throw new ArgumentError('rows', `${data.length} elements do not make ${rows} equal rows`);
  return [rows, data.length / rows];
}

function normRows(data: Float32Array, gain: Float32Array): readonly [number, number] {
  if (gain.length === 0 || data.length % gain.length !== 0)
    throw new ArgumentError('gain', `${data.length} elements do not make rows of ${gain.length}, the length of the gain`);
  return [data.length / gain.length, gain.length];
}

function sameLength(what: string, a: Float32Array, b: Float32Array): void {
  if (a.length !== b.length) throw new ShapeError(`${what}: the vectors have ${a.length} and ${b.length} elements, they must be equally long`);
}

function need(id: NodeId | undefined): NodeId {
  return id ?? -1;
}

/** The first elements of an array where the matrix is just that, else a copy. */
function packedValues(matrix: MatrixView): Float32Array {
  const { data, numel, offset, isContiguous } = matrix;
  return data instanceof Float32Array && isContiguous ? data.subarray(offset, offset + numel) : matrix.toArray();
}
