import { ArgumentError, ShapeError, shown } from '../core/errors.js';
import { elementCount } from '../core/tensor.js';
import type { HostData } from '../core/views/tensor-view.js';
import type { NodeId } from '../graph/graph.js';
import type { BinaryFunction, ReduceFunction, UnaryFunction } from '../ops/params.js';
import type { BackendKind } from '../runtime/backend.js';
import { ArrayRunner, type GpuBackendOptions } from './array-runner.js';
import type { MatmulOptions } from './batch.js';
import type { RowOptions } from './batch-record.js';
import { type EigenOptions, type EigenResult, symmetricEigen } from './eigen.js';
import { type HostArray, hostValues } from './host-array.js';
import type { Operation } from './operation-cache.js';
import { foldPartials, type MatrixView, matrixOf } from './tiled/reduce.js';
import { MaxOp, MinOp, type ReduceOp, SumOp } from './tiled/reduce-op.js';

export type { GpuBackendOptions } from './array-runner.js';
export type { HostArray } from './host-array.js';

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
  readonly #arrays: ArrayRunner;

  /** Touches no device before the first operation. */
  constructor(options: GpuBackendOptions = {}) {
    this.#arrays = new ArrayRunner(options);
  }

  /** Which backend runs the operations; opens it. */
  async info(): Promise<{ kind: BackendKind; name: string; reason: string }> {
    const { kind, name, reason } = await this.#arrays.open();
    return { kind, name, reason };
  }

  /** y = fn(x), with the function's scalars: leakyRelu and elu take `a`, clip `a` and `b`. */
  async unary(fn: UnaryFunction, x: HostArray, scalars: { a?: number; b?: number } = {}): Promise<Float32Array> {
    const data = hostValues('x', x);
    if (data.length === 0) return new Float32Array();
    return this.#arrays.elements(`${fn} ${scalars.a} ${scalars.b}`, (g, [a]) => g.unary(fn, need(a), scalars), [data]);
  }

  /** y = fn(a, b) for equal lengths. */
  async binary(fn: BinaryFunction, a: HostArray, b: HostArray): Promise<Float32Array> {
    const [x, y] = [hostValues('a', a), hostValues('b', b)];
    sameLength(fn, x, y);
    if (x.length === 0) return new Float32Array();
    return this.#arrays.elements(fn, (g, [p, q]) => g.binary(fn, need(p), need(q)), [x, y]);
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
    return this.#arrays.fold(x.length, 'sum', (from, to) => {
      return this.#arrays.run({ key: 'dot', shapes: [[to - from], [to - from]], build }, [x.subarray(from, to), y.subarray(from, to)]);
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
    const build: Build = (g, inputs) => g.add('slice', { axis: 0, start, length, step: 1 }, inputs);
    return this.#arrays.run({ key: `slice ${start} ${length}`, shapes: [[data.length]], build }, [data]);
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
      return this.#arrays.fold(data.length, fn, (from, to) => this.#arrays.run({ ...operation, shapes: [[1, to - from]] }, [data.subarray(from, to)]));
    const width = shape[1];
    return this.#arrays.rows({ ...operation, rows, widths: [width], out: 1, shapes: (count) => [[count, width]] }, [data]);
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
    expectShape('matmul: a', x, transposeA ? [k, m] : [m, k]);
    expectShape('matmul: b', y, transposeB ? [n, k] : [k, n]);
    if (!Number.isSafeInteger(m * n)) throw new ArgumentError('m', `a result [${m}, ${n}] has more elements than can be counted exactly`);
    if (m * k * n === 0) return new Float32Array(m * n);
    const build: Build = (g, inputs) => g.add('matmul', { transposeA, transposeB, alpha, ...(rounded ? { rounded: true as const } : {}) }, inputs);
    const key = `matmul ${transposeA} ${transposeB} ${alpha} ${rounded}`;
    // Rows of c are rows of a, and its columns rows of a transposed b: either may be taken in pieces.
    const rows = (b: Float32Array, columns: number): Promise<Float32Array> => {
      const shapeB = transposeB ? [columns, k] : [k, columns];
      if (transposeA) return this.#arrays.run({ key, shapes: [[k, m], shapeB], build }, [x, b]);
      return this.#arrays.rows({ key, build, rows: m, widths: [k, 0], out: columns, shapes: (count) => [[count, k], shapeB] }, [x, b]);
    };
    if (!transposeB) return rows(y, n);
    const shape = { rows: m, columns: n, width: k, out: transposeA ? m : 1 };
    return this.#arrays.columns(shape, (start, count) => rows(y.subarray(start * k, (start + count) * k), count));
  }

  /** Cross-correlation (the kernel is not flipped): out[o, r, c] = sum in[i, r s + p, c s + q] kernel[o, i, p, q]. */
  async convolve2d(input: HostArray, kernel: HostArray, shape: Convolution): Promise<Float32Array> {
    const { channels = 1, outChannels = 1, inRows, inColumns, kernelRows, kernelColumns, stride = 1, padding = 'valid' } = shape ?? {};
    for (const [name, size] of Object.entries({ channels, outChannels, inRows, inColumns, kernelRows, kernelColumns }))
      if (!(Number.isSafeInteger(size) && size >= 1)) throw new ArgumentError(name, `convolve2d: ${name} must be a whole number from 1, got ${String(size)}`);
    const [x, w] = [hostValues('input', input), hostValues('kernel', kernel)];
    const shapes = { input: [1, channels, inRows, inColumns], kernel: [outChannels, channels, kernelRows, kernelColumns] };
    expectShape('convolve2d: the input', x, shapes.input);
    expectShape('convolve2d: the kernel', w, shapes.kernel);
    const build: Build = (g, inputs) => g.add('conv2d', { stride, padding }, inputs);
    return this.#arrays.run({ key: `conv2d ${stride} ${padding}`, shapes: [shapes.input, shapes.kernel], build }, [x, w]);
  }

  /** Eigenvalues and eigenvectors of a symmetric matrix [n, n]; see `symmetricEigen`. */
  async symmetricEigen(matrix: HostArray, n: number, options: EigenOptions = {}): Promise<EigenResult> {
    return symmetricEigen(await this.#arrays.open(), hostValues('matrix', matrix), n, options);
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
    if (tiledOps[op?.name] !== op)
      throw new ArgumentError(
        'op',
        `a tiled reduction on a device is by SumOp, MaxOp or MinOp, got ${shown(op?.name)}: the function tiledReduce2d takes any other, on the CPU`,
      );
    const matrix = matrixOf(data, width, height);
    if (matrix.isEmpty) return new Float32Array();
    const build: Build = (g, inputs) => g.add('tileReduce', { fn: op.name }, inputs);
    return this.#arrays.run({ key: `tile ${op.name}`, shapes: [matrix.shape], build }, [packedValues(matrix)]);
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
    await this.#arrays.dispose();
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
    return this.#arrays.rows(
      { key: op, build: (g, inputs) => g.add(op, { axis: 1 }, inputs), rows, widths: [width], out: width, shapes: (count) => [[count, width]] },
      [data],
    );
  }

  /** Rows with what all of them share after them: a gain, a bias. */
  #norm(key: string, build: Build, [rows, width]: readonly [number, number], inputs: readonly Float32Array[]): Promise<Float32Array> {
    const shared = inputs.slice(1).map((data) => [data.length]);
    const operation = { key, build, rows, widths: [width, ...shared.map(() => 0)], out: width, shapes: (count: number) => [[count, width], ...shared] };
    return this.#arrays.rows(operation, inputs);
  }
}

type Build = Operation['build'];

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

function expectShape(what: string, data: Float32Array, shape: readonly number[]): void {
  const wanted = elementCount(shape);
  if (data.length !== wanted) throw new ShapeError(`${what} [${shape.join(', ')}] has ${wanted} elements, got ${data.length}`);
}

function need(id: NodeId | undefined): NodeId {
  return id ?? -1;
}

/** The first elements of an array where the matrix is just that, else a copy. */
function packedValues(matrix: MatrixView): Float32Array {
  const { data, numel, offset, isContiguous } = matrix;
  return data instanceof Float32Array && isContiguous ? data.subarray(offset, offset + numel) : matrix.toArray();
}
