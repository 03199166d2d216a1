import { ArgumentError, CentellaError, ShapeError, throwIfAborted } from '../core/errors.js';
import type { BackendKind } from '../runtime/backend.js';
import { WebGpuBackend } from '../runtime/webgpu-backend.js';
import { eigenOnCpu } from './eigen-cpu.js';
import { eigenOnDevice } from './eigen-device.js';
import type { EigenPair, EigenProblem } from './eigen-problem.js';
import { backendOf, type ComputeTarget } from './open.js';

/** How far `symmetricEigen` goes, and what it takes for symmetric. */
export interface EigenOptions {
  /** Order of the eigenvalues. Default 'none': as they come out on the diagonal. */
  readonly sorted?: 'none' | 'descending' | 'ascending';
  /** Sweeps end when no element off the diagonal exceeds this part of the Frobenius norm. Default 1e-8 on a GPU, in f32, and 1e-12 on the CPU, in f64. */
  readonly tolerance?: number;
  /** Most sweeps over all pairs of indices. Default 50. */
  readonly maxSweeps?: number;
  /** Largest |a_ij - a_ji| that still counts as symmetric, in parts of the largest element. Default 1e-5. The mean of the two is used. */
  readonly symmetryTolerance?: number;
  /** Ends the work between two sweeps (GPU) or rows (CPU) with an AbortedError. */
  readonly signal?: AbortSignal;
}

/** A = V diag(values) V^T. */
export interface EigenResult {
  /** Eigenvalues [n]. Infinite where one is beyond the largest f32. */
  readonly values: Float32Array<ArrayBuffer>;
  /** [n, n], row-major; column j is the eigenvector of `values[j]`, of length 1. Signs are as they come out. */
  readonly vectors: Float32Array<ArrayBuffer>;
  /** Whether the tolerance was reached. Where not, values and vectors are those of the last sweep. */
  readonly converged: boolean;
  readonly sweeps: number;
  /** Largest element off the diagonal that is left, in parts of the Frobenius norm. */
  readonly residual: number;
  /** Where the rotations ran: small matrices, and diagonal ones, which need none, stay on the CPU. */
  readonly backend: BackendKind;
}

/** From this n on a GPU is asked: below, f64 on the host is done before a device has answered once a sweep. */
const smallestOnDevice = 65;

const defaultTolerance: Readonly<Record<BackendKind, number>> = { webgpu: 1e-8, cpu: 1e-12 };

/**
 * Eigenvalues and eigenvectors of a symmetric matrix [n, n], row-major, by Jacobi rotations: with tau = (a_qq - a_pp) / (2 a_pq), t = sign(tau) / (|tau| + sqrt(1 + tau^2)) and
 * c = 1 / sqrt(1 + t^2), s = t c, a pair (p, q) takes a_pp - t a_pq, a_qq + t a_pq and v_p' = c v_p - s v_q, v_q' = s v_p + c v_q. On WebGPU n/2 pairs turn at once, in f32, and when that has converged, one step of refinement gives the vectors the digits of f32; on
 * the CPU one after the other, in f64. The result does not depend on the scale of the matrix. n = 0 gives empty arrays.
 * @throws ShapeError unless the matrix has n * n elements.
 * @throws ArgumentError for NaN, infinities, an asymmetric matrix (the element is named), or options out of range.
 * @throws UnsupportedError where the matrix exceeds a binding of the device; AbortedError; what the device reports.
 */
export async function symmetricEigen(target: ComputeTarget, matrix: Float32Array, n: number, options: EigenOptions = {}): Promise<EigenResult> {
  const backend = backendOf(target);
  checkArguments(matrix, n, options);
  throwIfAborted(options.signal, 'the eigendecomposition');
  const { sum, rest, ...checked } = symmetrized(matrix, n, options.symmetryTolerance ?? 1e-5);
  const norm = Math.sqrt(sum);
  const wanted: BackendKind = backend instanceof WebGpuBackend && n >= smallestOnDevice ? 'webgpu' : 'cpu';
  const tolerance = options.tolerance ?? defaultTolerance[wanted];
  const problem: EigenProblem = { ...checked, n, limit: tolerance * norm, maxSweeps: options.maxSweeps ?? 50, signal: options.signal };
  const onDevice = wanted === 'webgpu' && rest > problem.limit && problem.maxSweeps > 0;
  const pair = onDevice ? await eigenOnDevice((backend as WebGpuBackend).gpu, problem) : await eigenOnCpu(problem);
  if (pair.values.some(Number.isNaN))
    throw new CentellaError('E_NUMERICAL', `the eigenvalues of a finite matrix [${n}, ${n}] came back as NaN: the device's arithmetic is at fault`);
  return {
    ...arranged(pair, n, options.sorted ?? 'none'),
    converged: pair.rest <= problem.limit,
    sweeps: pair.sweeps,
    residual: norm === 0 ? 0 : pair.rest / norm,
    backend: onDevice ? 'webgpu' : 'cpu',
  };
}

function checkArguments(matrix: Float32Array, n: number, { sorted = 'none', tolerance = 0, maxSweeps = 0, symmetryTolerance = 0 }: EigenOptions): void {
  if (!Number.isSafeInteger(n) || n < 0) throw new ArgumentError('n', `n is a whole number from 0, got ${n}`);
  if (matrix.length !== n * n) throw new ShapeError(`a matrix [${n}, ${n}] has ${n * n} elements, got ${matrix.length}`);
  if (!['none', 'descending', 'ascending'].includes(sorted))
    throw new ArgumentError('sorted', `sorted is 'none', 'descending' or 'ascending', got ${String(sorted)}`);
  if (!Number.isFinite(tolerance) || tolerance < 0) throw new ArgumentError('tolerance', `tolerance is a number from 0, got ${tolerance}`);
  if (!Number.isSafeInteger(maxSweeps) || maxSweeps < 0) throw new ArgumentError('maxSweeps', `maxSweeps is a whole number from 0, got ${maxSweeps}`);
  if (!(symmetryTolerance >= 0)) throw new ArgumentError('symmetryTolerance', `symmetryTolerance is a number from 0, got ${symmetryTolerance}`);
}

/** The matrix in f64 with a_ij = a_ji, its largest element, the sum of its squares, and its largest element off the diagonal. */
function symmetrized(source: Float32Array, n: number, tolerance: number): { matrix: Float64Array; largest: number; sum: number; rest: number } {
  let largest = 0;
  for (let index = 0; index < source.length; index++) {
    const value = source[index] as number;
    if (!Number.isFinite(value))
      throw new ArgumentError('matrix', `element [${Math.floor(index / n)}, ${index % n}] is ${value}: an eigendecomposition needs finite numbers`);
    largest = Math.max(largest, Math.abs(value));
  }
  const matrix = new Float64Array(n * n);
  let sum = 0;
  let rest = 0;
  for (let i = 0; i < n; i++) {
    const diagonal = source[i * n + i] as number;
    matrix[i * n + i] = diagonal;
    sum += diagonal ** 2;
    for (let j = i + 1; j < n; j++) {
      const upper = source[i * n + j] as number;
      const lower = source[j * n + i] as number;
      if (Math.abs(upper - lower) > tolerance * largest) {
        throw new ArgumentError(
          'matrix',
          `the matrix is not symmetric: element [${i}, ${j}] is ${upper} and [${j}, ${i}] is ${lower}. Symmetrise it, or raise symmetryTolerance (now ${tolerance})`,
        );
      }
      const mean = (upper + lower) / 2;
      matrix[i * n + j] = mean;
      matrix[j * n + i] = mean;
      sum += 2 * mean ** 2;
      rest = Math.max(rest, Math.abs(mean));
    }
  }
  return { matrix, largest, sum, rest };
}

/** Values and columns of length 1, in the order asked for, in f32. */
function arranged(pair: EigenPair, n: number, sorted: 'none' | 'descending' | 'ascending'): Pick<EigenResult, 'values' | 'vectors'> {
  const order = Array.from({ length: n }, (_, index) => index);
  const value = (index: number): number => pair.values[index] as number;
  if (sorted === 'ascending') order.sort((i, j) => value(i) - value(j));
  if (sorted === 'descending') order.sort((i, j) => value(j) - value(i));
  const squares = new Float64Array(n);
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < n; column++) squares[column] = (squares[column] as number) + pair.component(row, column) ** 2;
  }
  const inverse = squares.map((square) => 1 / Math.sqrt(square));
  const vectors = new Float32Array(n * n);
  for (let row = 0; row < n; row++) {
    for (let target = 0; target < n; target++) {
      const column = order[target] as number;
      vectors[row * n + target] = pair.component(row, column) * (inverse[column] as number);
    }
  }
  return { values: Float32Array.from(order, value), vectors };
}
