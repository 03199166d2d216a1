/** Products with cached weights, and their f64 references. */

import type { GpuMatmulCache } from '../../src/compute/matmul-cache/index.js';
import { byteLengthOf, type DType, dtypes } from '../../src/core/dtype.js';
import { randomFloats, randomWeight, seededRandom } from '../../src/ops/cases/weight-data.js';
import { dequantize } from '../../src/quant/index.js';

export interface MatmulCase {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly type: DType;
}

export const cachedTypes = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1', 'q4_k', 'q5_k', 'q6_k'] as const satisfies readonly DType[];
export const sizes = { m: [1, 2, 3, 4, 5, 16, 17, 64, 257], k: [1, 3, 31, 64, 257, 1536], n: [1, 63, 64, 65, 1000] } as const;

export function caseName({ m, k, n, type }: MatmulCase): string {
  return `m ${m}, K ${k}, N ${n}, ${type}`;
}

/** Every combination that the blocks allow. */
export function allCases(n: readonly number[] = sizes.n): MatmulCase[] {
  return cachedTypes.flatMap((type) =>
    sizes.k.filter((k) => k % dtypes[type].block === 0).flatMap((k) => n.flatMap((width) => sizes.m.map((m) => ({ m, k, n: width, type })))),
  );
}

/** Some of the cases that together have every pair of values that any of them has: each next one has the most pairs that are missing. */
export function pairwise(cases: readonly MatmulCase[]): MatmulCase[] {
  const pairs = cases.map(({ m, k, n, type }) => [`m${m} k${k}`, `m${m} n${n}`, `m${m} ${type}`, `k${k} n${n}`, `k${k} ${type}`, `n${n} ${type}`]);
  const missing = new Set(pairs.flat());
  const chosen: MatmulCase[] = [];
  while (missing.size > 0) {
    let [best, most] = [0, 0];
    for (const [index, list] of pairs.entries()) {
      const count = list.filter((pair) => missing.has(pair)).length;
      if (count > most) [best, most] = [index, count];
    }
    for (const pair of pairs[best] ?? []) missing.delete(pair);
    chosen.push(cases[best] as MatmulCase);
  }
  return chosen;
}

/** Largest error of a product as a multiple of what is accepted, and where: at most 1 passes. */
export interface MatmulError {
  readonly worst: number;
  readonly where: string;
}

/** Uploads a random weight of the case's shape, multiplies by it once and compares with f64: every output, or `samples` of them. */
export async function checkProduct(cache: GpuMatmulCache, matmul: MatmulCase, samples = 4096): Promise<MatmulError> {
  const { m, k, n, type } = matmul;
  const random = seededRandom(m * 7 + k * 11 + n * 13 + type.length);
  const weight = randomWeight(type, n, k, random).bytes;
  const x = randomFloats(m * k, random);
  await cache.uploadWeight('w', weight, n, k, { type });
  const y = await cache.matmulCached('w', x, m);
  if (y.length !== m * n) return { worst: Number.POSITIVE_INFINITY, where: `${y.length} outputs instead of ${m * n}` };
  return compareProduct(matmul, x, weight, y, cache.backend.kind === 'cpu', samples);
}

/**
 * Sums in f32 err by a few units in the last place of the sum of the absolute terms; the CPU backend also rounds the activations of packed weights to 16 bits, uniformly in half a step
 * to either side: six standard deviations.
 */
export function compareProduct(
  { m, k, n, type }: MatmulCase,
  x: Float32Array,
  weight: Uint8Array,
  y: Float32Array,
  rounds: boolean,
  samples: number,
): MatmulError {
  const largest = x.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  const step = rounds && dtypes[type].block > 1 ? largest / 32_767 : 0;
  const rowBytes = byteLengthOf(type, k);
  const stride = Math.max(1, Math.floor((m * n) / samples));
  let [worst, where] = [0, ''];
  let row = -1;
  let w: Float32Array = new Float32Array();
  // Weight by weight, so that each is decoded once.
  for (let j = 0; j < m * n; j += stride) {
    const [t, o] = [stride === 1 ? j % m : ((j / stride) * 7919) % m, Math.floor(j / m)];
    if (o !== row) [row, w] = [o, dequantize(type, weight.subarray(o * rowBytes, (o + 1) * rowBytes))];
    let [sum, terms, squares] = [0, 0, 0];
    for (let i = 0; i < k; i++) {
      const term = (x[t * k + i] ?? 0) * (w[i] ?? 0);
      sum += term;
      terms += Math.abs(term);
      squares += (w[i] ?? 0) ** 2;
    }
    const got = y[t * n + o] ?? Number.NaN;
    const error = Math.abs(got - sum) / (1e-6 * terms + 6 * Math.sqrt((squares * step ** 2) / 12) + Number.MIN_VALUE);
    if (!(error <= worst)) [worst, where] = [Number.isNaN(error) ? Number.POSITIVE_INFINITY : error, `[${t}, ${o}]: ${got} instead of ${sum}`];
  }
  return { worst, where };
}
