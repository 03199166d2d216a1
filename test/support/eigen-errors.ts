import type { EigenResult } from '../../src/compute/eigen.js';

/** Errors of an eigendecomposition, in f64, in parts of the largest |a_ij| (orthogonality excepted); 0 for an exact one. */
export interface EigenErrors {
  /** Largest sum over i of |(A v - lambda v)_i|. */
  readonly equation: number;
  /** Largest |(V diag(values) V^T - A)_ij|. */
  readonly reconstruction: number;
  /** Largest |(V^T V - I)_ij|. */
  readonly orthogonality: number;
}

export function eigenErrors(matrix: Float32Array, n: number, { values, vectors }: Pick<EigenResult, 'values' | 'vectors'>): EigenErrors {
  const a = (i: number, j: number): number => matrix[i * n + j] ?? Number.NaN;
  const v = (i: number, j: number): number => vectors[i * n + j] ?? Number.NaN;
  const value = (j: number): number => values[j] ?? Number.NaN;
  const scale = matrix.reduce((most, x) => Math.max(most, Math.abs(x)), 0) || 1;
  const sum = (term: (k: number) => number): number => {
    let total = 0;
    for (let k = 0; k < n; k++) total += term(k);
    return total;
  };
  let [equation, reconstruction, orthogonality] = [0, 0, 0];
  for (let j = 0; j < n; j++) {
    equation = worse(
      equation,
      sum((i) => Math.abs(sum((k) => a(i, k) * v(k, j)) - value(j) * v(i, j))),
    );
    for (let i = 0; i < n; i++) {
      reconstruction = worse(reconstruction, Math.abs(sum((k) => v(i, k) * value(k) * v(j, k)) - a(i, j)));
      orthogonality = worse(orthogonality, Math.abs(sum((k) => v(k, i) * v(k, j)) - (i === j ? 1 : 0)));
    }
  }
  return { equation: equation / scale, reconstruction: reconstruction / scale, orthogonality };
}

/** NaN is the worst. */
function worse(a: number, b: number): number {
  return b <= a ? a : b;
}

/** A symmetric matrix [n, n] of numbers in [-1, 1), and `dominance` more on the diagonal. */
export function symmetricMatrix(n: number, random: () => number, dominance = 0): Float32Array {
  const matrix = new Float32Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = i; j < n; j++) {
      matrix[i * n + j] = random() * 2 - 1;
      matrix[j * n + i] = matrix[i * n + j] ?? 0;
    }
    matrix[i * n + i] = (matrix[i * n + i] ?? 0) + dominance;
  }
  return matrix;
}
