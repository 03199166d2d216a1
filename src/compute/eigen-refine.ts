/**
 * A step towards the exact eigenvectors, from approximate ones V of a symmetric A: with G = V^T V, lambda_j = (v_j A v_j) / G_jj and E = V^T (A V - V diag(lambda)), the
 * step V D has D_ij = E_ij / (lambda_j - lambda_i) and D_jj = (1 - G_jj) / 2. It restores orthogonality and squares the error. Pairs of eigenvalues too close for
 * that become orthogonal only. (Ogita and Aishima, "Iterative refinement for symmetric eigenvalue decomposition", 2018.)
 */

/** P^T Q of matrices [n, n]. */
export type TransposedProduct = (p: Float32Array<ArrayBuffer>, q: Float32Array<ArrayBuffer>) => Promise<Float64Array>;

/** Largest |D_ij|, and largest sum of a row of |D_ij|: below 1 by far, so that what the step leaves is small against what it takes away. */
const largestTurn = 3e-3;
const largestRow = 0.1;
/** Eigenvalues closer than this part of the largest are not told apart: their difference is mostly error, and any basis of their vectors is as good. */
const smallestGap = 1e-5;
/** Length of a row of D whose square, which is what the step leaves of orthogonality, is below the rounding of f32. */
const smallTurn = 2e-4;

export interface RefinedEigen {
  readonly values: Float64Array;
  /** [n, n], eigenvectors as columns. */
  readonly vectors: Float64Array;
}

/**
 * One step of four products of matrices, and where it was large, one or two more for orthogonality alone, of two products; n * n operations in f64 on the host between them.
 * @param a [n, n], symmetric. @param v [n, n], eigenvectors as columns, right to some digits.
 */
export async function refineEigen(n: number, a: Float32Array<ArrayBuffer>, v: Float32Array<ArrayBuffer>, multiply: TransposedProduct): Promise<RefinedEigen> {
  const gram = await multiply(v, v);
  const image = await multiply(a, v);
  const values = new Float64Array(n);
  for (let index = 0; index < v.length; index++) values[index % n] = at(values, index % n) + at(v, index) * at(image, index);
  for (let j = 0; j < n; j++) values[j] = at(values, j) / at(gram, j * (n + 1));
  const rest = unitScaled(image.map((x, index) => x - at(values, index % n) * at(v, index)));
  const errors = (await multiply(v, rest.data)).map((x) => x * rest.scale);
  let step = stepOf(n, gram, errors, values);
  let vectors = await turned(n, v, step, multiply);
  for (let round = 0; round < 2 && longestRow(n, step) > smallTurn; round++) {
    const rough = Float32Array.from(vectors);
    step = lossOf(n, await multiply(rough, rough));
    vectors = await turned(n, rough, step, multiply);
  }
  return { values, vectors };
}

/** V + V D. */
async function turned(n: number, v: Float32Array<ArrayBuffer>, step: Float64Array, multiply: TransposedProduct): Promise<Float64Array> {
  const { data, scale } = unitScaled(step);
  return (await multiply(transposed(n, v), data)).map((x, index) => at(v, index) + x * scale);
}

/** (I - V^T V) / 2. */
function lossOf(n: number, gram: Float64Array): Float64Array {
  return gram.map((x, index) => ((index % (n + 1) === 0 ? 1 : 0) - x) / 2);
}

function stepOf(n: number, gram: Float64Array, errors: Float64Array, values: Float64Array): Float64Array {
  const step = lossOf(n, gram);
  const limit = Math.min(largestTurn, largestRow / n);
  const apart = smallestGap * values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) {
      const gap = at(values, j) - at(values, i);
      const [upper, lower] = [at(errors, i * n + j), at(errors, j * n + i)];
      // Both or neither: they add up to what is missing from orthogonality.
      if (Math.abs(gap) < apart || Math.max(Math.abs(upper), Math.abs(lower)) > limit * Math.abs(gap)) continue;
      step[i * n + j] = upper / gap;
      step[j * n + i] = -lower / gap;
    }
  }
  return step;
}

function longestRow(n: number, matrix: Float64Array): number {
  let longest = 0;
  for (let start = 0; start < matrix.length; start += n) {
    let square = 0;
    for (let index = start; index < start + n; index++) square += at(matrix, index) ** 2;
    longest = Math.max(longest, square);
  }
  return Math.sqrt(longest);
}

/** data * scale is the matrix, scale a power of two, the largest |data| from 1 to 2. */
function unitScaled(matrix: Float64Array): { data: Float32Array<ArrayBuffer>; scale: number } {
  const largest = matrix.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const scale = largest > 0 ? 2 ** Math.floor(Math.log2(largest)) : 1;
  return { data: Float32Array.from(matrix, (x) => x / scale), scale };
}

function transposed(n: number, matrix: Float32Array): Float32Array<ArrayBuffer> {
  const result = new Float32Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) result[j * n + i] = at(matrix, i * n + j);
  }
  return result;
}

function at(data: Float32Array | Float64Array, index: number): number {
  return data[index] as number;
}
