/** Cyclic Jacobi in f64 on the host. */

import { throwIfAborted } from '../core/errors.js';
import type { EigenPair, EigenProblem } from './eigen-problem.js';

/** Milliseconds of work between turns of the event loop. */
const turnMs = 15;

/** Rotates until no element off the diagonal exceeds `limit`, or for `maxSweeps` sweeps. */
export async function eigenOnCpu({ n, matrix, limit, maxSweeps, signal }: EigenProblem): Promise<EigenPair> {
  const a = Float64Array.from(matrix);
  // Eigenvectors as rows: a rotation touches two of them.
  const v = new Float64Array(n * n);
  for (let i = 0; i < n; i++) v[i * n + i] = 1;
  let sweeps = 0;
  let rest = largestAboveDiagonal(a, n);
  let turn = performance.now();
  while (rest > limit && sweeps < maxSweeps) {
    for (let p = 0; p < n - 1; p++) {
      for (let q = p + 1; q < n; q++) rotatePair(a, v, n, p, q, limit);
      if (performance.now() - turn > turnMs) {
        await nextTurn();
        throwIfAborted(signal, 'the eigendecomposition');
        turn = performance.now();
      }
    }
    sweeps++;
    rest = largestAboveDiagonal(a, n);
  }
  const values = Float64Array.from({ length: n }, (_, i) => a[i * (n + 1)] as number);
  return { values, component: (row, column) => v[column * n + row] as number, rest, sweeps };
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, 0);
  });
}

/** Of the upper triangle, the only one that the rotations keep. */
function largestAboveDiagonal(a: Float64Array, n: number): number {
  let largest = 0;
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) largest = Math.max(largest, Math.abs(a[i * n + j] as number));
  }
  return largest;
}

/** Turns the axes p < q so that a_pq becomes 0; leaves alone what is within `limit`. */
function rotatePair(a: Float64Array, v: Float64Array, n: number, p: number, q: number, limit: number): void {
  const pq = a[p * n + q] as number;
  if (!(Math.abs(pq) > limit)) return;
  const pp = a[p * n + p] as number;
  const qq = a[q * n + q] as number;
  const tau = (qq - pp) / (2 * pq);
  const t = tau >= 0 ? 1 / (tau + Math.sqrt(1 + tau * tau)) : -1 / (-tau + Math.sqrt(1 + tau * tau));
  const c = 1 / Math.sqrt(1 + t * t);
  const s = t * c;
  a[p * n + p] = pp - t * pq;
  a[q * n + q] = qq + t * pq;
  a[p * n + q] = 0;
  // The row and column of p and of q, as far as they are above the diagonal.
  rotateElements(a, c, s, p, n, q, n, p);
  rotateElements(a, c, s, p * n + p + 1, 1, (p + 1) * n + q, n, q - p - 1);
  rotateElements(a, c, s, p * n + q + 1, 1, q * n + q + 1, 1, n - q - 1);
  rotateElements(v, c, s, p * n, 1, q * n, 1, n);
}

/** x' = c x - s y, y' = s x + c y for `count` elements from `x` and `y` on. */
function rotateElements(data: Float64Array, c: number, s: number, x: number, xStride: number, y: number, yStride: number, count: number): void {
  for (let k = 0, i = x, j = y; k < count; k++, i += xStride, j += yStride) {
    const first = data[i] as number;
    const second = data[j] as number;
    data[i] = c * first - s * second;
    data[j] = s * first + c * second;
  }
}
