import type { OpCase } from '../case.js';
import { cacheInput, sessionInput } from './session.js';
import { floatInput, seededRandom } from './weight-data.js';

interface AttentionCase {
  readonly rows: number;
  readonly live?: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly width: number;
  readonly capacity: number;
  readonly position: number;
  readonly cache?: 'f32' | 'f16';
  /** Default: 1 / sqrt(width). More makes maxima grow along the keys. */
  readonly scale?: number;
}

const decode = (heads: number, kvHeads: number, width: number, capacity: number, position: number, cache: 'f32' | 'f16' = 'f16'): AttentionCase => ({
  rows: 1,
  heads,
  kvHeads,
  width,
  capacity,
  position,
  cache,
});

/** One row: every ratio of query to KV heads, every head size, short caches and caches of several splits, the ends of splits. */
const decodes: readonly AttentionCase[] = [
  decode(1, 1, 8, 1, 0),
  decode(1, 1, 5, 9, 8, 'f32'),
  decode(2, 1, 6, 9, 3),
  decode(4, 2, 16, 40, 17, 'f32'),
  decode(8, 2, 32, 64, 63),
  decode(8, 1, 48, 100, 50),
  decode(3, 3, 64, 130, 129, 'f32'),
  decode(14, 2, 64, 300, 260),
  decode(4, 4, 80, 33, 20),
  decode(4, 1, 128, 200, 150),
  decode(2, 2, 256, 70, 69),
  decode(2, 1, 256, 70, 40, 'f32'),
  decode(8, 2, 64, 1025, 0),
  decode(8, 2, 64, 1300, 127),
  decode(8, 2, 64, 1300, 128, 'f32'),
  decode(8, 1, 128, 1300, 1299),
  decode(4, 1, 256, 1100, 700, 'f32'),
  decode(14, 2, 48, 1200, 513),
  decode(3, 1, 5, 1100, 400, 'f32'),
  decode(16, 1, 80, 1100, 300),
  decode(2, 1, 16, 8200, 600),
  decode(2, 2, 8, 33_000, 1100),
];

/** Several rows: tiles that are not full, padding rows, rows after a prefix. */
const prefills: readonly AttentionCase[] = [
  { rows: 2, heads: 1, kvHeads: 1, width: 8, capacity: 2, position: 0 },
  { rows: 5, live: 3, heads: 4, kvHeads: 2, width: 16, capacity: 12, position: 7, cache: 'f32' },
  { rows: 16, live: 16, heads: 8, kvHeads: 2, width: 64, capacity: 40, position: 0 },
  { rows: 16, live: 9, heads: 4, kvHeads: 4, width: 32, capacity: 60, position: 33 },
  { rows: 33, heads: 8, kvHeads: 1, width: 48, capacity: 90, position: 50 },
  { rows: 64, live: 61, heads: 4, kvHeads: 2, width: 128, capacity: 200, position: 70 },
  { rows: 64, live: 1, heads: 2, kvHeads: 1, width: 80, capacity: 100, position: 99, cache: 'f32' },
  { rows: 70, heads: 2, kvHeads: 2, width: 64, capacity: 70, position: 0, cache: 'f32' },
  { rows: 16, live: 12, heads: 3, kvHeads: 1, width: 6, capacity: 20, position: 4 },
  { rows: 9, heads: 2, kvHeads: 1, width: 5, capacity: 20, position: 4, cache: 'f32' },
  { rows: 20, live: 18, heads: 2, kvHeads: 1, width: 256, capacity: 40, position: 10 },
  { rows: 100, live: 80, heads: 7, kvHeads: 1, width: 64, capacity: 150, position: 20 },
  { rows: 48, live: 45, heads: 6, kvHeads: 2, width: 96, capacity: 300, position: 200, cache: 'f32' },
  { rows: 130, heads: 4, kvHeads: 1, width: 32, capacity: 131, position: 0 },
  { rows: 96, live: 70, heads: 4, kvHeads: 2, width: 160, capacity: 170, position: 31 },
  { rows: 64, heads: 2, kvHeads: 2, width: 128, capacity: 64, position: 0 },
  { rows: 100, live: 97, heads: 4, kvHeads: 2, width: 64, capacity: 400, position: 300, scale: 4 },
  { rows: 40, heads: 2, kvHeads: 1, width: 256, capacity: 200, position: 150, cache: 'f32', scale: 2 },
];

/** Scores are sums of products in f32, their errors pass through e^x: 1e-5 of the largest output leaves room for both. */
export function attentionCases(): readonly OpCase<'attention'>[] {
  return [...decodes, ...prefills].map((plan, i) => {
    const { rows, live = rows, heads, kvHeads, width, capacity, position, cache = 'f16', scale = 1 / Math.sqrt(width) } = plan;
    const random = seededRandom(700 + i);
    const shape = [kvHeads, capacity, width] as const;
    return {
      name: `attention ${cache} [${rows}, ${heads}, ${width}] over [${shape.join(', ')}] rows ${live} position ${position}${plan.scale === undefined ? '' : ` scale ${scale}`}`,
      op: 'attention',
      params: { scale },
      inputs: [
        floatInput('input', [rows, heads, width], random),
        cacheInput(cache, shape, position + live, random),
        cacheInput(cache, shape, position + live, random),
        sessionInput(position, live, rows),
      ],
      tolerance: { relativeToMax: 1e-5 },
      liveRows: live,
    };
  });
}
