/**
 * A step towards the exact eigenvectors, from approximate ones V of a symmetric A: with G = V^T V, lambda_j = (v_j A v_j) / G_jj and E = V^T (A V - V diag(lambda)), the
 * step V D has D_ij = E_ij / (lambda_j - lambda_i) and D_jj = (1 - G_jj) / 2. It restores orthogonality and squares the error. Pairs of eigenvalues too close for
 * that become orthogonal only. (Ogita and Aishima, "Iterative refinement for symmetric eigenvalue decomposition", 2018.)
 */

/** P^T Q of matrices [n, n]. */
export type TransposedProduct = (p: Float32Array<ArrayBuffer>, q: Float32Array<ArrayBuffer>) => Promise<Float64Array>;

/** Largest |D_ij|: for pairs of eigenvalues that would take more, a second step would not do. */
const largestTurn = 3e-3;
/** The square of this is below the rounding of f32: no second step then. */
const smallTurn = 5e-5;

export interface RefinedEigen {
  readonly values: Float64Array;
  /** [n, n], eigenvectors as columns. */
  readonly vectors: Float64Array;
}

/**
 * One step, or two where the first was large; each is four products of matrices, and n * n operations in f64 on the host between them.
 * @param a [n, n], symmetric. @param v [n, n], eigenvectors as columns, right to some digits.
 */
export async function refineEigen(n: number, a: Float32Array<ArrayBuffer>, v: Float32Array<ArrayBuffer>, multiply: TransposedProduct): Promise<RefinedEigen> {
  const { largest, ...first } = await refineOnce(n, a, v, multiply);
  if (largest <= smallTurn) return first;
  return refineOnce(n, a, Float32Array.from(first.vectors), multiply);
}

async function refineOnce(
  n: number,
  a: Float32Array<ArrayBuffer>,
  v: Float32Array<ArrayBuffer>,
  multiply: TransposedProduct,
): Promise<RefinedEigen & { readonly largest: number }> {
  const gram = await multiply(v, v);
  const image = await multiply(a, v);
  const values = new Float64Array(n);
  for (let index = 0; index < v.length; index++) values[index % n] = at(values, index % n) + at(v, index) * at(image, index);
  for (let j = 0; j < n; j++) values[j] = at(values, j) / at(gram, j * (n + 1));
  const rest = unitScaled(image.map((x, index) => x - at(values, index % n) * at(v, index)));
  const errors = (await multiply(v, rest.data)).map((x) => x * rest.scale);
  const step = unitScaled(stepOf(n, gram, errors, values));
  const change = await multiply(transposed(n, v), step.data);
  return { values, vectors: change.map((x, index) => at(v, index) + x * step.scale), largest: 2 * step.scale };
}

function stepOf(n: number, gram: Float64Array, errors: Float64Array, values: Float64Array): Float64Array {
  const step = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    step[i * n + i] = (1 - at(gram, i * n + i)) / 2;
    for (let j = i + 1; j < n; j++) {
      const gap = at(values, j) - at(values, i);
      const [upper, lower] = [at(errors, i * n + j), at(errors, j * n + i)];
      // Both or neither: they add up to what is missing from orthogonality.
      const apart = Math.max(Math.abs(upper), Math.abs(lower)) < largestTurn * Math.abs(gap);
      step[i * n + j] = apart ? upper / gap : -at(gram, i * n + j) / 2;
      step[j * n + i] = apart ? -lower / gap : -at(gram, j * n + i) / 2;
    }
  }
  return step;
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
