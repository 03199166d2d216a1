import type { OpCase } from '../case.js';
import { cacheInput, sessionInput } from './session.js';
import { floatInput, seededRandom } from './weight-data.js';

/** Rows, live rows, KV heads, capacity, elements of a head, position. */
const sizes = [
  [1, 1, 1, 1, 2, 0],
  [1, 1, 2, 9, 64, 8],
  [5, 3, 4, 16, 8, 2],
  [16, 16, 2, 40, 48, 24],
  [16, 1, 1, 20, 6, 19],
  [3, 2, 8, 5, 128, 1],
] as const;

/** Both cache types, padding rows that would fall beyond the capacity, the last position. An f16 is within 2^-11 of its number. */
export function cacheWriteCases(): readonly OpCase<'cacheWrite'>[] {
  const cases = sizes.flatMap(([rows, live, heads, capacity, width, position], i) =>
    (['f32', 'f16'] as const).map((dtype) => ({ dtype, rows, live, heads, capacity, width, position, seed: 600 + i })),
  );
  const odd = { dtype: 'f32' as const, rows: 3, live: 3, heads: 2, capacity: 7, width: 5, position: 1, seed: 650 };
  return [...cases, odd].map(({ dtype, rows, live, heads, capacity, width, position, seed }) => {
    const random = seededRandom(seed);
    return {
      name: `cacheWrite ${dtype} [${heads}, ${capacity}, ${width}] rows ${live} of ${rows} position ${position}`,
      op: 'cacheWrite',
      params: {},
      inputs: [
        cacheInput(dtype, [heads, capacity, width], capacity, random),
        floatInput('input', [rows, heads, width], random),
        sessionInput(position, live, rows),
      ],
      tolerance: dtype === 'f32' ? { absolute: 0 } : { relative: 2 ** -11, absolute: 2 ** -24 },
    };
  });
}
