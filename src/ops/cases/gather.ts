import { bytesOf } from '../../core/bytes.js';
import type { DType } from '../../core/dtype.js';
import type { OpCase, Tolerance } from '../case.js';
import { type HalfKind, randomWeight, seededRandom } from './weight-data.js';

interface GatherCase {
  readonly dtype: DType;
  readonly rows: number;
  readonly columns: number;
  readonly ids: readonly number[];
  readonly halves?: HalfKind;
}

/** Types whose values are one f16 scale times an integer, or plain: f32 holds them exactly. */
const exact: readonly DType[] = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q5_0'];

/** The others multiply two scales and subtract a minimum: three roundings of 2^-24, of terms that may cancel. */
const rounded: Tolerance = { relativeToMax: 3e-7 };

function gatherCase({ dtype, rows, columns, ids, halves }: GatherCase, seed: number): OpCase<'gatherRows'> {
  const table = randomWeight(dtype, rows, columns, seededRandom(seed), halves);
  const index = { role: 'input', type: { dtype: 'u32', shape: [ids.length] }, bytes: bytesOf(Uint32Array.from(ids)) } as const;
  const name = `gatherRows ${dtype} [${rows}, ${columns}] x ${ids.length}${halves === 'subnormal' ? ' subnormal' : ''}`;
  return { name, op: 'gatherRows', params: {}, inputs: [table, index], tolerance: exact.includes(dtype) ? { absolute: 0 } : rounded };
}

/** Cases of `gatherRows` for every weight type: first and last row, repeated ids, widths that no vector divides, scales below 2^-14. */
export function gatherCases(): readonly OpCase<'gatherRows'>[] {
  const blocks: readonly DType[] = ['q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1', 'q4_k', 'q5_k', 'q6_k'];
  const cases: GatherCase[] = [
    ...(['f32', 'f16', 'bf16'] as const).flatMap((dtype): GatherCase[] => [
      { dtype, rows: 1, columns: 1, ids: [0] },
      { dtype, rows: 7, columns: 31, ids: [6, 0, 3, 3] },
      { dtype, rows: 65, columns: 64, ids: [64, 1, 0] },
      { dtype, rows: 9, columns: 100, ids: [8, 7] },
    ]),
    ...blocks.flatMap((dtype): GatherCase[] => [
      { dtype, rows: 5, columns: 512, ids: [4, 0, 2, 2, 1] },
      { dtype, rows: 3, columns: 768, ids: [2] },
      { dtype, rows: 4, columns: 256, ids: [3, 1], halves: 'subnormal' },
    ]),
    { dtype: 'f16', rows: 4, columns: 256, ids: [3, 1, 2, 0], halves: 'subnormal' },
    { dtype: 'q4_0', rows: 130, columns: 32, ids: Array.from({ length: 70 }, (_, i) => (i * 37) % 130) },
  ];
  return cases.map((entry, i) => gatherCase(entry, 5000 + i));
}
