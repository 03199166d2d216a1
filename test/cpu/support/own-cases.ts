/** Small cases for every operation but the products: shapes at the edges, positions, padding, broadcasting, special values. */

import type { DType } from '../../../src/core/dtype.js';
import { elementCount, type Shape } from '../../../src/core/tensor.js';
import type { CaseInput, OpCase } from '../../../src/ops/case.js';
import { unaryFunctions } from '../../../src/ops/elementwise.js';
import type { BinaryFunction, UnaryFunction } from '../../../src/ops/params.js';
import { stateWord, stateWords } from '../../../src/ops/state.js';
import { quantize } from '../../../src/quant/index.js';

function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state / 2 ** 32) * 4 - 2;
  };
}

function tensor(role: CaseInput['role'], shape: Shape, seed: number, dtype: DType = 'f32'): CaseInput {
  const next = generator(seed);
  const values = Float32Array.from({ length: elementCount(shape) }, next);
  const bytes = dtype === 'f32' ? new Uint8Array(values.buffer) : quantize(dtype, values, shape.at(-1) ?? 1);
  return { role, type: { dtype, shape }, bytes };
}

function state(position: number, rows: number, maxRows: number): CaseInput {
  const words = new Uint32Array(stateWords(maxRows));
  words[stateWord.position] = position;
  words[stateWord.rows] = rows;
  return { role: 'state', type: { dtype: 'u32', shape: [words.length] }, bytes: new Uint8Array(words.buffer) };
}

const special = Float32Array.of(
  0,
  -0,
  1e-30,
  -1e-30,
  0.5,
  -0.5,
  87,
  -87,
  88.5,
  -88.5,
  104,
  -104,
  1e30,
  -1e30,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  Number.NaN,
);

function unaryCases(): OpCase[] {
  const parameters = { leakyRelu: { a: 0.1 }, elu: { a: 1.5 }, clip: { a: -0.5, b: 0.5 }, scale: { a: 3 } } as Partial<
    Record<UnaryFunction, { a: number; b?: number }>
  >;
  return (Object.keys(unaryFunctions) as UnaryFunction[]).flatMap((fn) => {
    const params = { fn, ...parameters[fn] };
    const tolerance = { absolute: 1e-37, relative: 3e-7 };
    const values: CaseInput = { role: 'input', type: { dtype: 'f32', shape: [special.length] }, bytes: new Uint8Array(special.slice().buffer) };
    return [
      { name: `unary ${fn}`, op: 'unary' as const, params, inputs: [tensor('input', [3, 67], 1)], tolerance },
      ...(fn === 'silu' || fn === 'sigmoid' ? [{ name: `unary ${fn}, special values`, op: 'unary' as const, params, inputs: [values], tolerance }] : []),
    ];
  });
}

function binaryCases(): OpCase[] {
  const pairs: [Shape, Shape][] = [
    [
      [5, 7],
      [5, 7],
    ],
    [[5, 7], [7]],
    [
      [5, 1],
      [5, 7],
    ],
    [
      [2, 1, 3],
      [4, 1],
    ],
    [[1], [9]],
  ];
  return (['add', 'sub', 'mul', 'div', 'max', 'min', 'pow'] as BinaryFunction[]).flatMap((fn) =>
    pairs.map(([a, b]) => ({
      name: `binary ${fn} [${a}] [${b}]`,
      op: 'binary',
      params: { fn },
      inputs: [tensor('input', a, 2), tensor('input', b, 3)],
      tolerance: { relative: 2e-7, absolute: 1e-30 },
    })),
  );
}

interface AttentionCase {
  readonly rows: number;
  readonly live: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly width: number;
  readonly position: number;
  readonly capacity: number;
  readonly cache: 'f32' | 'f16';
}

const attentionShapes: readonly AttentionCase[] = [
  { rows: 1, live: 1, heads: 1, kvHeads: 1, width: 8, position: 0, capacity: 1, cache: 'f32' },
  { rows: 1, live: 1, heads: 4, kvHeads: 2, width: 16, position: 6, capacity: 7, cache: 'f32' },
  { rows: 5, live: 4, heads: 4, kvHeads: 4, width: 32, position: 3, capacity: 9, cache: 'f16' },
  { rows: 3, live: 3, heads: 8, kvHeads: 1, width: 48, position: 17, capacity: 23, cache: 'f32' },
  { rows: 2, live: 2, heads: 3, kvHeads: 1, width: 80, position: 61, capacity: 65, cache: 'f16' },
  { rows: 1, live: 1, heads: 16, kvHeads: 8, width: 128, position: 130, capacity: 131, cache: 'f32' },
  { rows: 2, live: 1, heads: 2, kvHeads: 2, width: 256, position: 2, capacity: 5, cache: 'f16' },
  { rows: 2, live: 2, heads: 4, kvHeads: 2, width: 6, position: 4, capacity: 8, cache: 'f32' },
  { rows: 2, live: 2, heads: 2, kvHeads: 1, width: 10, position: 1, capacity: 3, cache: 'f16' },
];

function attentionCases(): OpCase[] {
  return attentionShapes.map(({ rows, live, heads, kvHeads, width, position, capacity, cache }) => ({
    name: `attention ${cache} ${heads}/${kvHeads} heads of ${width}, ${live} of ${rows} rows at ${position} of ${capacity}`,
    op: 'attention',
    params: { scale: 1 / Math.sqrt(width) },
    inputs: [
      tensor('input', [rows, heads, width], 4),
      tensor('state', [kvHeads, capacity, width], 5, cache),
      tensor('state', [kvHeads, capacity, width], 6, cache),
      state(position, live, rows),
    ],
    tolerance: { absolute: 2e-6, relative: 2e-6 },
    liveRows: live,
  }));
}

function ropeCases(): OpCase[] {
  return (['adjacent', 'halves'] as const).flatMap((pairing) =>
    [
      [4, 3, 5, 16, 8],
      [1, 1, 1, 10, 3],
      [3, 2, 2, 6, 3],
    ].map(([rows = 1, live = 1, heads = 1, width = 2, half = 1]) => ({
      name: `rope ${pairing} ${live} of ${rows} rows, ${heads} heads of ${width}, ${half} pairs`,
      op: 'rope',
      params: { pairing },
      inputs: [tensor('input', [rows, heads, width], 7), tensor('param', [9, half, 2], 8), state(5, live, rows)],
      tolerance: { absolute: 1e-6 },
      liveRows: live,
    })),
  );
}

function stateCases(): OpCase[] {
  const exact = { absolute: 0 };
  return [
    ...(['f32', 'f16'] as const).map(
      (cache): OpCase => ({
        name: `cacheWrite ${cache}, 2 of 3 rows at 4 of 6`,
        op: 'cacheWrite',
        params: {},
        inputs: [tensor('state', [2, 6, 5], 9, cache), tensor('input', [3, 2, 5], 10), state(4, 2, 3)],
        // An f16 keeps 11 bits.
        tolerance: cache === 'f16' ? { relative: 2 ** -11 } : exact,
      }),
    ),
    { name: 'lastRow, 3 of 4 rows', op: 'lastRow', params: {}, inputs: [tensor('input', [4, 7], 11), state(2, 3, 4)], tolerance: exact },
    {
      name: 'advance',
      op: 'advance',
      params: {},
      inputs: [state(4, 3, 3), { role: 'input', type: { dtype: 'u32', shape: [1] }, bytes: new Uint8Array(Uint32Array.of(4_000_000_000).buffer) }],
      tolerance: exact,
    },
  ];
}

function reductionCases(): OpCase[] {
  const exact = { absolute: 0 };
  const logits = (name: string, rows: number, values: readonly number[]): OpCase => ({
    name: `argmax ${name}`,
    op: 'argmax',
    params: {},
    inputs: [{ role: 'input', type: { dtype: 'f32', shape: [rows, values.length / rows] }, bytes: new Uint8Array(Float32Array.from(values).buffer) }],
    tolerance: exact,
  });
  return [
    logits('of equals', 2, [1, 3, 3, 2, 5, 5]),
    logits('with NaN', 1, [Number.NaN, -5, Number.NaN, -4, -6]),
    logits('of NaN alone', 1, [Number.NaN, Number.NaN]),
    logits('of infinities', 1, [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY]),
    { name: 'argmax of many', op: 'argmax', params: {}, inputs: [tensor('input', [3, 1003], 12)], tolerance: exact },
    {
      name: 'rmsNorm rows',
      op: 'rmsNorm',
      params: { eps: 1e-6 },
      inputs: [tensor('input', [3, 67], 13), tensor('param', [67], 14)],
      tolerance: { relative: 3e-7 },
    },
    {
      name: 'rmsNorm heads',
      op: 'rmsNorm',
      params: { eps: 1e-5 },
      inputs: [tensor('input', [2, 3, 16], 15), tensor('param', [16], 16)],
      tolerance: { relative: 3e-7 },
    },
    {
      name: 'swiglu',
      op: 'swiglu',
      params: {},
      inputs: [tensor('input', [3, 37], 17), tensor('input', [3, 37], 18)],
      tolerance: { relative: 5e-7, absolute: 1e-37 },
    },
  ];
}

export function ownCases(): OpCase[] {
  return [...unaryCases(), ...binaryCases(), ...attentionCases(), ...ropeCases(), ...stateCases(), ...reductionCases()];
}
