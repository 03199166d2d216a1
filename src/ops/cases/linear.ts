import type { DType } from '../../core/dtype.js';
import type { CaseInput, OpCase } from '../case.js';
import { floatInput, type HalfKind, randomWeight, seededRandom } from './weight-data.js';

interface LinearCase {
  readonly dtype: DType;
  readonly t: number;
  readonly k: number;
  readonly n: number;
  readonly bias?: boolean;
  readonly residual?: boolean;
  readonly halves?: HalfKind;
  /** x may be rounded: f16 matrices and 8-bit integers are tried where the device has them. */
  readonly rounded?: true;
}

/**
 * Sums of K products in f32: an addition rounds by 2^-24 of a partial sum, in any order, and rounding errors of random signs grow with the square root of K. Scaled
 * by the largest output, since single outputs cancel; the factor leaves room for the decoding of a weight in f32 and for minimums that are subtracted as sums.
 */
const tolerance = (k: number): number => 1e-6 * Math.sqrt(Math.max(1, k / 16));

function linearCase({ dtype, t, k, n, bias = false, residual = false, halves, rounded }: LinearCase, seed: number): OpCase<'linear'> {
  const random = seededRandom(seed);
  const inputs: CaseInput[] = [floatInput('input', [t, k], random), randomWeight(dtype, n, k, random, halves)];
  if (bias) inputs.push(floatInput('param', [n], random));
  if (residual) inputs.push(floatInput('input', [t, n], random));
  const extras = `${bias ? ' bias' : ''}${residual ? ' residual' : ''}${halves === 'subnormal' ? ' subnormal' : ''}${rounded ? ' rounded' : ''}`;
  return {
    name: `linear ${dtype} T${t} K${k} N${n}${extras}`,
    op: 'linear',
    params: { bias, residual, ...(rounded ? { rounded } : {}) },
    inputs,
    tolerance: { relativeToMax: tolerance(k) },
  };
}

const outputCounts = [1, 63, 64, 65, 200] as const;
const plainDepths = [1, 3, 31, 64, 257, 100, 8] as const;
const blockDepths = [32, 96, 256, 1088] as const;
const superDepths = [256, 768, 512] as const;

/** Steps through the sizes of each axis at paces without a common factor: every size of every axis, most pairs, in as many cases as the longest axis has sizes. */
function cover(dtype: DType, depths: readonly number[], rows: readonly number[], offset: number): readonly LinearCase[] {
  return rows.map((t, i) => {
    const at = i + offset;
    const k = depths[at % depths.length] ?? 1;
    const n = outputCounts[(at * 2) % outputCounts.length] ?? 1;
    return { dtype, t, k, n, bias: at % 3 === 1, residual: at % 4 >= 2 };
  });
}

/** Cases of `linear` for every weight type: one row and several, sizes that no tile divides, bias and residual. */
export function linearCases(): readonly OpCase<'linear'>[] {
  const cases: LinearCase[] = [
    ...cover('f32', plainDepths, [1, 2, 3, 5, 8, 16, 17, 33, 64], 0),
    ...cover('f16', plainDepths, [1, 2, 5, 16, 33, 64], 1),
    ...cover('bf16', plainDepths, [1, 3, 17], 2),
    ...cover('q8_0', blockDepths, [1, 2, 5, 8, 16, 33], 0),
    ...cover('q4_0', blockDepths, [1, 3, 8, 17, 64], 1),
    ...cover('q4_1', blockDepths, [1, 3, 17], 2),
    ...cover('q5_0', blockDepths, [1, 3, 17], 3),
    ...cover('q5_1', blockDepths, [1, 3, 17], 0),
    ...cover('q4_k', superDepths, [1, 2, 8, 16, 33], 0),
    ...cover('q5_k', superDepths, [1, 3, 17], 1),
    ...cover('q6_k', superDepths, [1, 3, 8, 64], 2),
    // Long rows, so that every thread takes several chunks, and enough outputs for several rows a team.
    { dtype: 'f32', t: 1, k: 2052, n: 5 },
    { dtype: 'q4_0', t: 1, k: 4096 + 32, n: 6 },
    { dtype: 'q4_k', t: 1, k: 2304, n: 9, bias: true, residual: true },
    { dtype: 'q6_k', t: 1, k: 256, n: 2049 },
    { dtype: 'q8_0', t: 3, k: 64, n: 2050, residual: true },
    { dtype: 'q4_0', t: 1, k: 32, n: 8195, bias: true },
    { dtype: 'f16', t: 1, k: 64, n: 40, halves: 'subnormal' },
    { dtype: 'q4_k', t: 1, k: 256, n: 40, halves: 'subnormal' },
    { dtype: 'q6_k', t: 20, k: 256, n: 40, halves: 'subnormal' },
    // Enough rows for tiles on matrices: whole ones and edges in both directions, rows of x that are no multiple of 16, depths that are padded.
    { dtype: 'f16', t: 128, k: 64, n: 128, rounded: true },
    { dtype: 'f16', t: 130, k: 100, n: 257, residual: true, rounded: true },
    { dtype: 'bf16', t: 64, k: 72, n: 64, bias: true, rounded: true },
    { dtype: 'q8_0', t: 192, k: 96, n: 192, residual: true, rounded: true },
    { dtype: 'q4_0', t: 77, k: 160, n: 140, bias: true, residual: true, rounded: true },
    { dtype: 'q5_0', t: 65, k: 64, n: 66, rounded: true },
    { dtype: 'q4_k', t: 128, k: 256, n: 256, residual: true, rounded: true },
    { dtype: 'q5_k', t: 100, k: 256, n: 130, bias: true, rounded: true },
    { dtype: 'q6_k', t: 200, k: 256, n: 68, rounded: true },
    { dtype: 'q8_0', t: 64, k: 1024, n: 64, residual: true, rounded: true },
    { dtype: 'q4_0', t: 40, k: 2048, n: 36, bias: true, rounded: true },
  ];
  return cases.map((entry, i) => linearCase(entry, 1000 + i));
}
