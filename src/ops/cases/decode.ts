import { bytesOf } from '../../core/bytes.js';
import type { DType } from '../../core/dtype.js';
import type { CaseInput, OpCase } from '../case.js';
import type { RopePairing } from '../params.js';
import { cacheInput, sessionInput } from './session.js';
import { floatInput, randomWeight, seededRandom } from './weight-data.js';

/** Sums of K products in f32, scaled by the largest output; what rounding activations adds is the backend's to say. */
const tolerance = (k: number): { readonly relativeToMax: number } => ({ relativeToMax: 2e-6 * Math.sqrt(Math.max(1, k / 16)) });

const eps = 1e-5;

interface LinearPlan {
  readonly dtype: DType;
  readonly k: number;
  readonly n: number;
  readonly norm?: boolean;
  readonly bias?: boolean;
  readonly residual?: boolean;
}

const linearPlans: readonly LinearPlan[] = [
  { dtype: 'f32', k: 7, n: 5, norm: true },
  { dtype: 'f16', k: 64, n: 40, residual: true },
  { dtype: 'q8_0', k: 96, n: 33, bias: true },
  { dtype: 'q8_0', k: 1024, n: 64, norm: true, residual: true },
  { dtype: 'q4_0', k: 1536, n: 48, residual: true },
  { dtype: 'q4_0', k: 1024, n: 67, norm: true, bias: true },
  { dtype: 'q4_1', k: 1024, n: 32, bias: true },
  { dtype: 'q5_0', k: 1088, n: 31, norm: true },
  { dtype: 'q5_1', k: 1024, n: 32, residual: true },
  { dtype: 'q4_k', k: 1024, n: 96, norm: true },
  { dtype: 'q4_k', k: 2304, n: 160, residual: true },
  { dtype: 'q5_k', k: 1280, n: 32, residual: true },
  { dtype: 'q6_k', k: 1024, n: 130, norm: true },
  { dtype: 'q6_k', k: 3072, n: 32, bias: true, residual: true },
  // Float weights: rows that end within 16 bytes, long ones, and results that no workgroup divides.
  { dtype: 'f16', k: 1028, n: 67, norm: true, bias: true },
  { dtype: 'f16', k: 8200, n: 33, residual: true },
  { dtype: 'bf16', k: 2048, n: 41, norm: true },
  { dtype: 'f32', k: 1532, n: 50, norm: true, residual: true },
];

/** `tokenLinear` for every kind of weight: with a norm, a bias, a residual; widths that 8-bit activations take and widths that they do not. */
export function tokenLinearCases(): readonly OpCase<'tokenLinear'>[] {
  return linearPlans.map(({ dtype, k, n, norm = false, bias = false, residual = false }, i) => {
    const random = seededRandom(4000 + i);
    const inputs: CaseInput[] = [floatInput('input', [1, k], random)];
    if (norm) inputs.push(floatInput('param', [k], random));
    inputs.push(randomWeight(dtype, n, k, random));
    if (bias) inputs.push(floatInput('param', [n], random));
    if (residual) inputs.push(floatInput('input', [1, n], random));
    const extras = `${norm ? ' norm' : ''}${bias ? ' bias' : ''}${residual ? ' residual' : ''}`;
    return {
      name: `tokenLinear ${dtype} K${k} N${n}${extras}`,
      op: 'tokenLinear',
      params: { ...(norm ? { eps } : {}), bias, residual },
      inputs,
      tolerance: tolerance(k),
    };
  });
}

const mixes: readonly (readonly [types: readonly [DType, DType, DType], k: number, rows: readonly [number, number, number], biases: boolean])[] = [
  [['f32', 'f32', 'f32'], 24, [8, 4, 4], true],
  [['q8_0', 'q8_0', 'q8_0'], 64, [32, 16, 16], false],
  [['q4_k', 'q4_k', 'q6_k'], 1024, [64, 32, 32], false],
  [['q4_0', 'q8_0', 'q4_1'], 1152, [48, 16, 16], true],
  [['q5_k', 'q4_k', 'q4_k'], 2048, [33, 17, 9], false],
  [['f16', 'f32', 'q8_0'], 1024, [40, 17, 9], false],
];

/** `qkv` over weights of one type and of several. */
export function qkvCases(): readonly OpCase<'qkv'>[] {
  return mixes.map(([types, k, rows, biases], i) => {
    const random = seededRandom(4100 + i);
    const weights = types.map((dtype, part) => randomWeight(dtype, rows[part] ?? 1, k, random));
    const inputs = [floatInput('input', [1, k], random), floatInput('param', [k], random), ...weights];
    if (biases) inputs.push(...rows.map((count) => floatInput('param', [count], random)));
    return {
      name: `qkv ${types.join(', ')} K${k} N${rows.join('+')}${biases ? ' biases' : ''}`,
      op: 'qkv',
      params: { eps, biases },
      inputs,
      tolerance: tolerance(k),
    };
  });
}

/** `gatedProduct`: small widths and widths for 8-bit activations. */
export function gatedProductCases(): readonly OpCase<'gatedProduct'>[] {
  const plans: readonly (readonly [DType, DType, number, number])[] = [
    ['f32', 'f32', 9, 6],
    ['q4_0', 'q4_0', 64, 40],
    ['q8_0', 'q8_0', 1024, 96],
    ['q4_k', 'q4_k', 2048, 64],
    ['q4_k', 'q6_k', 2560, 32],
    ['f16', 'bf16', 2048, 50],
  ];
  return plans.map(([gate, up, k, n], i) => {
    const random = seededRandom(4200 + i);
    // Gains of a size that keeps the gate's exponent small.
    const gain = floatInput('param', [k], () => 0.5 + 0.02 * random());
    const inputs = [floatInput('input', [1, k], random), gain, randomWeight(gate, n, k, random), randomWeight(up, n, k, random)];
    return {
      name: `gatedProduct ${gate}, ${up} K${k} N${n}`,
      op: 'gatedProduct',
      params: { eps },
      inputs,
      tolerance: { relativeToMax: 4 * tolerance(k).relativeToMax },
    };
  });
}

interface AttendPlan {
  readonly heads: number;
  readonly kvHeads: number;
  readonly width: number;
  readonly capacity: number;
  readonly position: number;
  readonly window?: number;
  readonly pairing?: RopePairing;
  readonly norm?: boolean;
  readonly cache?: 'f32' | 'f16';
  /** Keys that grow along the positions, so that late scores exceed the first ones by far. */
  readonly rising?: boolean;
  /** Angles of the position alone, not of all before it. */
  readonly row?: boolean;
}

const attendPlans: readonly AttendPlan[] = [
  { heads: 2, kvHeads: 1, width: 8, capacity: 9, position: 3, cache: 'f32' },
  { heads: 2, kvHeads: 2, width: 6, capacity: 9, position: 0, pairing: 'halves', norm: true },
  { heads: 1, kvHeads: 1, width: 32, capacity: 5, position: 0 },
  { heads: 8, kvHeads: 2, width: 32, capacity: 64, position: 63 },
  { heads: 4, kvHeads: 4, width: 64, capacity: 130, position: 77, pairing: 'halves' },
  { heads: 8, kvHeads: 1, width: 64, capacity: 600, position: 511, window: 512, norm: true },
  { heads: 14, kvHeads: 2, width: 64, capacity: 300, position: 1, pairing: 'halves', norm: true, row: true },
  { heads: 4, kvHeads: 2, width: 128, capacity: 520, position: 300, window: 512, pairing: 'halves', norm: true },
  { heads: 2, kvHeads: 1, width: 128, capacity: 200, position: 199 },
  { heads: 2, kvHeads: 2, width: 256, capacity: 40, position: 20 },
  { heads: 8, kvHeads: 2, width: 64, capacity: 700, position: 650, pairing: 'halves', norm: true },
  { heads: 4, kvHeads: 1, width: 128, capacity: 1300, position: 1100 },
  { heads: 3, kvHeads: 1, width: 48, capacity: 40, position: 11 },
  // Long windows, whose positions several workgroups share: at the borders of their parts, and where most have none.
  { heads: 2, kvHeads: 2, width: 64, capacity: 1280, position: 0, pairing: 'halves' },
  { heads: 12, kvHeads: 2, width: 64, capacity: 1280, position: 1 },
  { heads: 6, kvHeads: 1, width: 128, capacity: 3000, position: 2999, pairing: 'halves', norm: true },
  { heads: 4, kvHeads: 1, width: 128, capacity: 4096, position: 2048 },
  { heads: 4, kvHeads: 1, width: 128, capacity: 4096, position: 2049, rising: true },
  { heads: 2, kvHeads: 1, width: 32, capacity: 1300, position: 1299, rising: true, norm: true, row: true },
  { heads: 8, kvHeads: 1, width: 256, capacity: 1100, position: 1030, pairing: 'halves' },
  { heads: 16, kvHeads: 2, width: 32, capacity: 1030, position: 1029 },
  { heads: 5, kvHeads: 1, width: 16, capacity: 1100, position: 900, pairing: 'halves' },
  { heads: 4, kvHeads: 1, width: 32, capacity: 8200, position: 8131, pairing: 'halves' },
];

/** An angle table [positions, half, 2] of true rotations, of positions from `first` on. */
function angles(positions: number, half: number, first = 0): CaseInput {
  const values = new Float32Array(positions * half * 2);
  for (let i = 0; i < positions * half; i++) {
    const angle = (first + Math.floor(i / half)) * 100 ** (-(i % half) / half);
    values[2 * i] = Math.cos(angle);
    values[2 * i + 1] = Math.sin(angle);
  }
  return { role: 'param', type: { dtype: 'f32', shape: [positions, half, 2] }, bytes: bytesOf(values) };
}

/** Keys and values of the token are rounded to f16 in an f16 cache, which moves an output by up to 2^-11 of its size and its weight by as much of a score. */
export function attendTokenCases(): readonly OpCase<'attendToken'>[] {
  return attendPlans.map((plan, i) => {
    const {
      heads,
      kvHeads,
      width,
      capacity,
      position,
      window = capacity,
      pairing = 'adjacent',
      norm = false,
      cache = 'f16',
      rising = false,
      row = false,
    } = plan;
    const random = seededRandom(4300 + i);
    const shape = [kvHeads, capacity, width] as const;
    const inputs = [
      cacheInput(cache, shape, position, random, rising ? 400 : 0),
      cacheInput(cache, shape, position, random),
      floatInput('input', [1, (heads + 2 * kvHeads) * width], random),
      row ? angles(1, width / 2, position) : angles(capacity, width / 2),
      sessionInput(position, 1, 1),
      ...(norm ? [floatInput('param', [width], random), floatInput('param', [width], random)] : []),
    ];
    return {
      name: `attendToken ${cache} ${pairing}${norm ? ' norms' : ''} [${heads}, ${width}] over [${shape.join(', ')}] position ${position} window ${window}${rising ? ', rising' : ''}${row ? ', one row of angles' : ''}`,
      op: 'attendToken',
      params: { scale: 1 / Math.sqrt(width), pairing, window, ...(norm ? { eps } : {}) },
      inputs,
      tolerance: { relativeToMax: cache === 'f16' ? 2e-3 : 1e-5 },
    };
  });
}

/** `chooseNext`: one part and several, ties, infinities, and NaN, which no number beats. */
export function chooseNextCases(): readonly OpCase<'chooseNext'>[] {
  return [
    [5, false],
    [5000, false],
    [5000, true],
  ].map(([size, broken], i) => {
    const width = Number(size);
    const random = seededRandom(4400 + i);
    const values = Float32Array.from({ length: width }, () => Math.fround(random() * 4 - 2));
    values[width - 2] = 3;
    values[Math.floor(width / 2)] = 3;
    values[0] = Number.NEGATIVE_INFINITY;
    if (broken) values[width - 3] = Number.NaN;
    const logits: CaseInput = { role: 'input', type: { dtype: 'f32', shape: [1, width] }, bytes: bytesOf(values) };
    return {
      name: `chooseNext ${width}${broken ? ' with a NaN' : ''}`,
      op: 'chooseNext',
      params: {},
      inputs: [sessionInput(7 + i, 1, 4), logits],
      tolerance: {},
    };
  });
}
