import type { OpCase } from '../case.js';
import { floatInput, seededRandom } from './weight-data.js';

/** One product of random matrices. Errors are those of sums that cancel. */
export function matmulCase(m: number, k: number, n: number, transposeA: boolean, transposeB: boolean, alpha = 1, seed = 1): OpCase<'matmul'> {
  const random = seededRandom(seed);
  const inputs = [floatInput('input', transposeA ? [k, m] : [m, k], random), floatInput('input', transposeB ? [n, k] : [k, n], random)];
  const turned = `${transposeA ? ' a turned' : ''}${transposeB ? ' b turned' : ''}${alpha === 1 ? '' : ` times ${alpha}`}`;
  return { name: `matmul ${m}x${k}x${n}${turned}`, op: 'matmul', params: { transposeA, transposeB, alpha }, inputs, tolerance: { relativeToMax: 3e-6 } };
}

const sizes: readonly (readonly [m: number, k: number, n: number])[] = [
  [1, 1, 1],
  [2, 2, 2],
  [2, 3, 2],
  [1, 300, 70],
  [70, 300, 1],
  [3, 33, 130],
  [130, 33, 4],
  [2, 2000, 3],
  [5, 7, 9],
  [33, 20, 34],
  [64, 64, 64],
  [65, 66, 67],
  [40, 1024, 36],
  [100, 48, 20],
  [6, 1001, 8],
];

/** Each size with every way to lie, in turn; edges in every direction, vectors, depths that are split. */
export function matmulCases(): readonly OpCase<'matmul'>[] {
  return sizes.flatMap(([m, k, n], i) => [
    matmulCase(m, k, n, i % 2 === 1, i % 4 >= 2, i % 3 === 0 ? -0.5 : 1, 1400 + i),
    matmulCase(m, k, n, i % 2 === 0, i % 4 < 2, 1, 1450 + i),
  ]);
}
