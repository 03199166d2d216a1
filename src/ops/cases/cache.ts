import { bytesOf } from '../../core/bytes.js';
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

/** The same for caches in planes: blocks in pairs and alone, an odd number of them in all, more than a workgroup writes, heads that meet within a pair in a whole cache. */
const planesSizes = [
  [1, 1, 2, 9, 64, 8],
  [5, 3, 3, 7, 32, 2],
  [3, 3, 1, 5, 96, 1],
  [70, 67, 2, 81, 32, 9],
  [4, 4, 2, 6, 128, 2],
  [4, 3, 3, 3, 96, 0],
] as const;

/** Half a step of an f16; of a signed byte, and that of its scale, for values of up to 1. */
const tolerances = {
  f32: { absolute: 0 },
  f16: { relative: 2 ** -11, absolute: 2 ** -24 },
  q8_planes: { absolute: 0.5 / 127 + 2 ** -11 },
} as const;

/** Numbers at the ends of f16: the largest, those that round to it, subnormals, the tie between 0 and the smallest. */
const edges = [65_504, 65_519, -65_519, 2 ** -14, 6.1e-5, 1e-6, 6e-8, -(2 ** -24), 2 ** -25, 3 * 2 ** -25, 0, -0];

function edgeCase(): OpCase<'cacheWrite'> {
  const x = { role: 'input', type: { dtype: 'f32', shape: [1, 1, edges.length] }, bytes: bytesOf(Float32Array.from(edges)) } as const;
  return {
    name: 'cacheWrite f16 at the ends of its range',
    op: 'cacheWrite',
    params: {},
    inputs: [cacheInput('f16', [1, 2, edges.length], 2, seededRandom(660)), x, sessionInput(1, 1, 1)],
    tolerance: { relative: 2 ** -11, absolute: 2 ** -25 },
  };
}

/** All cache types, padding rows that would fall beyond the capacity, the last position. An f16 is within 2^-11 of its number. */
export function cacheWriteCases(): readonly OpCase<'cacheWrite'>[] {
  const cases = sizes.flatMap(([rows, live, heads, capacity, width, position], i) =>
    (['f32', 'f16'] as const).map((dtype) => ({ dtype, rows, live, heads, capacity, width, position, seed: 600 + i })),
  );
  const planes = planesSizes.map(([rows, live, heads, capacity, width, position], i) => ({
    ...{ dtype: 'q8_planes' as const, rows, live, heads, capacity, width, position, seed: 670 + i },
  }));
  const odd = { dtype: 'f32' as const, rows: 3, live: 3, heads: 2, capacity: 7, width: 5, position: 1, seed: 650 };
  const plain = [...cases, odd, ...planes].map(({ dtype, rows, live, heads, capacity, width, position, seed }): OpCase<'cacheWrite'> => {
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
      tolerance: tolerances[dtype],
    };
  });
  return [...plain, edgeCase()];
}
