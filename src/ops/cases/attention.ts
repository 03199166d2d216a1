import { bytesOf } from '../../core/bytes.js';
import type { CaseInput, OpCase } from '../case.js';
import { type CaseCache, cacheInput, sessionInput } from './session.js';
import { floatInput, randomFloats, seededRandom } from './weight-data.js';

interface AttentionCase {
  readonly rows: number;
  readonly live?: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly width: number;
  readonly capacity: number;
  readonly position: number;
  readonly cache?: CaseCache;
  /** Default: 1 / sqrt(width). More makes maxima grow along the keys. */
  readonly scale?: number;
  readonly window?: number;
  readonly softcap?: number;
  /** What is added to random sinks in [-1, 1): 4 outweighs the scores of a few positions. */
  readonly sinks?: number;
}

const decode = (heads: number, kvHeads: number, width: number, capacity: number, position: number, cache: CaseCache = 'f16'): AttentionCase => ({
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

/** Windows that end at, before and after the positions there are, caps within the scores, light and heavy sinks, alone and together; odd ratios of heads and widths between powers of two. */
const variants: readonly AttentionCase[] = [
  { ...decode(10, 2, 32, 100, 80), window: 16 },
  { ...decode(3, 1, 16, 40, 20, 'f32'), window: 1 },
  { ...decode(4, 2, 16, 40, 20), window: 21 },
  { ...decode(4, 2, 16, 40, 20), window: 60 },
  { ...decode(14, 2, 8, 3000, 2500), window: 1100, softcap: 2, sinks: 0 },
  { ...decode(6, 2, 48, 1200, 1100), sinks: 4, softcap: 0.5, scale: 1 },
  { ...decode(5, 1, 96, 60, 41), sinks: 0 },
  { ...decode(7, 7, 112, 50, 49, 'f32'), softcap: 1, scale: 1 },
  { ...decode(3, 1, 5, 40, 30, 'f32'), window: 7, softcap: 1, sinks: 1, scale: 1 },
  { rows: 40, live: 38, heads: 2, kvHeads: 1, width: 16, capacity: 100, position: 50, window: 8 },
  { rows: 70, heads: 4, kvHeads: 2, width: 32, capacity: 80, position: 0, window: 33 },
  { rows: 33, live: 30, heads: 5, kvHeads: 1, width: 48, capacity: 100, position: 61, window: 20, softcap: 1, sinks: 0, scale: 1 },
  { rows: 20, heads: 3, kvHeads: 3, width: 16, capacity: 40, position: 9, window: 1, cache: 'f32' },
  { rows: 9, live: 7, heads: 3, kvHeads: 1, width: 5, capacity: 30, position: 11, window: 3, softcap: 2, sinks: 4, cache: 'f32', scale: 1 },
  { rows: 150, live: 141, heads: 2, kvHeads: 1, width: 16, capacity: 500, position: 250, window: 100, sinks: 4 },
  { rows: 40, heads: 3, kvHeads: 1, width: 112, capacity: 60, position: 20, softcap: 3, scale: 1 },
  { rows: 33, heads: 7, kvHeads: 1, width: 16, capacity: 130, position: 90, sinks: 0, cache: 'f32' },
  { rows: 64, heads: 1, kvHeads: 1, width: 144, capacity: 200, position: 130, window: 64, softcap: 4 },
];

/** Caches in planes: one split and several, an odd number of blocks, tiles. */
const planes: readonly AttentionCase[] = [
  decode(4, 2, 32, 41, 40, 'q8_planes'),
  { ...decode(6, 2, 64, 70, 33, 'q8_planes'), window: 20, sinks: 0 },
  decode(6, 1, 96, 1100, 700, 'q8_planes'),
  { rows: 33, live: 31, heads: 4, kvHeads: 2, width: 32, capacity: 75, position: 40, cache: 'q8_planes' },
  { rows: 20, heads: 3, kvHeads: 1, width: 64, capacity: 51, position: 30, cache: 'q8_planes', window: 30, softcap: 3, sinks: 0 },
];

function describeCase({ rows, live = rows, heads, kvHeads, width, capacity, position, cache = 'f16', ...options }: AttentionCase): string {
  const extras = (['scale', 'window', 'softcap', 'sinks'] as const).filter((name) => options[name] !== undefined).map((name) => ` ${name} ${options[name]}`);
  return `attention ${cache} [${rows}, ${heads}, ${width}] over [${kvHeads}, ${capacity}, ${width}] rows ${live} position ${position}${extras.join('')}`;
}

function sinksInput(heads: number, most: number, random: () => number): CaseInput {
  return { role: 'param', type: { dtype: 'f32', shape: [heads] }, bytes: bytesOf(randomFloats(heads, random).map((value) => value + most)) };
}

/** Scores are sums of products in f32, their errors pass through e^x: 1e-5 of the largest output leaves room for both. */
export function attentionCases(): readonly OpCase<'attention'>[] {
  return [...decodes, ...prefills, ...variants, ...planes].map((plan, i) => {
    const { rows, live = rows, heads, kvHeads, width, capacity, position, cache = 'f16', scale = 1 / Math.sqrt(width) } = plan;
    const { window, softcap, sinks } = plan;
    const random = seededRandom(700 + i);
    const shape = [kvHeads, capacity, width] as const;
    return {
      name: describeCase(plan),
      op: 'attention',
      params: { scale, ...(window === undefined ? {} : { window }), ...(softcap === undefined ? {} : { softcap }) },
      inputs: [
        floatInput('input', [rows, heads, width], random),
        cacheInput(cache, shape, position + live, random),
        cacheInput(cache, shape, position + live, random),
        sessionInput(position, live, rows),
        ...(sinks === undefined ? [] : [sinksInput(heads, sinks, random)]),
      ],
      tolerance: { relativeToMax: 1e-5 },
      liveRows: live,
    };
  });
}
