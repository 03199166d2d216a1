import { bytesOf } from '../../core/bytes.js';
import { elementCount, type TensorType } from '../../core/tensor.js';
import type { CaseInput, OpCase } from '../case.js';
import type { CompareFunction, ConvPadding, RegionStep } from '../params.js';
import { floatInput, randomFloats, seededRandom } from './weight-data.js';

const { NaN: none, NEGATIVE_INFINITY: least, POSITIVE_INFINITY: most } = Number;

const exact = { absolute: 0 } as const;

const hard = [0, -0, 1, -1, 0.5, 3e38, -3e38, 1e-20, most, least, none];

function input(dtype: TensorType['dtype'], shape: readonly number[], data: Float32Array | Uint32Array | Int32Array): CaseInput {
  return { role: 'input', type: { dtype, shape }, bytes: bytesOf(new Uint32Array(data.buffer, data.byteOffset, data.length)) };
}

const floats = (shape: readonly number[], values: readonly number[]): CaseInput => input('f32', shape, Float32Array.from(values));
const words = (shape: readonly number[], values: readonly number[]): CaseInput => input('u32', shape, Uint32Array.from(values));

function counted(shape: readonly number[]): CaseInput {
  return words(
    shape,
    Array.from({ length: elementCount(shape) }, (_, i) => (i * 2_654_435_761) % 2 ** 32),
  );
}

const comparisons: readonly CompareFunction[] = ['eq', 'ne', 'lt', 'le', 'gt', 'ge'];

/** Every comparison on all pairs of hard values, of integers (neighbours that are one number in f32 among them), and with broadcasting. */
export function compareCases(): readonly OpCase<'compare'>[] {
  const size = hard.length;
  const make = (name: string, fn: CompareFunction, inputs: readonly CaseInput[]): OpCase<'compare'> => ({
    name: `compare ${fn} ${name}`,
    op: 'compare',
    params: { fn },
    inputs,
    tolerance: exact,
  });
  return comparisons.flatMap((fn, i) => [
    make('hard values', fn, [floats([size, 1], hard), floats([1, size], hard)]),
    i % 2 === 0
      ? make('u32', fn, [words([5], [0, 5, 16_777_216, 4_000_000_000, 4_000_000_001]), words([3, 1], [5, 16_777_217, 4_000_000_000])])
      : make('i32', fn, [input('i32', [4], Int32Array.of(0, -5, 7, -16_777_217)), input('i32', [3, 1], Int32Array.of(-5, 7, -16_777_216))]),
    make('wide', fn, [floatInput('input', [2, 300], seededRandom(1500 + i)), floatInput('input', [300], seededRandom(1510 + i))]),
  ]);
}

export function whereCases(): readonly OpCase<'where'>[] {
  const make = (name: string, inputs: readonly CaseInput[]): OpCase<'where'> => ({ name: `where ${name}`, op: 'where', params: {}, inputs, tolerance: exact });
  const random = seededRandom(1520);
  const mask = words(
    [4, 8],
    Array.from({ length: 32 }, (_, i) => (i % 3 === 0 ? 0 : i)),
  );
  return [
    make('of one shape', [mask, floatInput('input', [4, 8], random), floatInput('input', [4, 8], random)]),
    make('with broadcasting of all three', [words([3, 1, 1], [0, 1, 7]), floatInput('input', [5, 1], random), floatInput('input', [4], random)]),
    make('of integers', [words([2, 1], [0, 1]), words([3], [1, 16_777_217, 4_294_967_295]), words([1], [2_147_483_649])]),
    make('of hard values', [
      words(
        [hard.length],
        hard.map((_, i) => i % 2),
      ),
      floats([hard.length], hard),
      floats([1], [none]),
    ]),
  ];
}

export function castCases(): readonly OpCase<'cast'>[] {
  const values = [...hard, 1.9, -1.9, 2147483520, 2147483648, -2147483648, 4294967040, 4294967296, -0.5];
  const data: Record<'f32' | 'u32' | 'i32', CaseInput> = {
    f32: floats([values.length], values),
    u32: words([5], [0, 1, 2147483647, 2147483648, 4294967295]),
    i32: input('i32', [4], Int32Array.of(0, -1, 2147483647, -2147483648)),
  };
  const types = ['f32', 'u32', 'i32'] as const;
  return types.flatMap((from) =>
    types.map(
      (to): OpCase<'cast'> => ({
        name: `cast ${from} to ${to}`,
        op: 'cast',
        params: { to },
        inputs: [data[from]],
        tolerance: from !== 'f32' && to === 'f32' ? { relative: 1e-7 } : exact,
      }),
    ),
  );
}

/** Moving operations: every element is another number. */
export function movementCases(): readonly OpCase[] {
  const concat = (axis: number, shapes: readonly (readonly number[])[]): OpCase<'concat'> => ({
    name: `concat ${shapes.map((shape) => `[${shape.join(', ')}]`).join(' ')} along ${axis}`,
    op: 'concat',
    params: { axis },
    inputs: shapes.map((shape, i) => floatInput('input', shape, seededRandom(1600 + i))),
    tolerance: exact,
  });
  const gather = (shape: readonly number[], axis: number, indices: readonly number[], indexShape: readonly number[]): OpCase<'gather'> => ({
    name: `gather [${shape.join(', ')}] along ${axis} by [${indexShape.join(', ')}]`,
    op: 'gather',
    params: { axis },
    inputs: [counted(shape), words(indexShape, indices)],
    tolerance: exact,
  });
  const permute = (shape: readonly number[], perm: readonly number[]): OpCase<'permute'> => ({
    name: `permute [${shape.join(', ')}] by [${perm.join(', ')}]`,
    op: 'permute',
    params: { perm },
    inputs: [counted(shape)],
    tolerance: exact,
  });
  const expand = (from: readonly number[], shape: readonly number[]): OpCase<'expand'> => ({
    name: `expand [${from.join(', ')}] to [${shape.join(', ')}]`,
    op: 'expand',
    params: { shape },
    inputs: [counted(from)],
    tolerance: exact,
  });
  const slice = (shape: readonly number[], axis: number, start: number, length: number, step: number): OpCase<'slice'> => ({
    name: `slice [${shape.join(', ')}] axis ${axis} from ${start}, ${length} by ${step}`,
    op: 'slice',
    params: { axis, start, length, step },
    inputs: [counted(shape)],
    tolerance: exact,
  });
  const strided = (from: readonly number[], shape: readonly number[], strides: readonly number[], offset: number): OpCase<'strided'> => ({
    name: `strided [${from.join(', ')}] as [${shape.join(', ')}] by [${strides.join(', ')}] from ${offset}`,
    op: 'strided',
    params: { shape, strides, offset },
    inputs: [counted(from)],
    tolerance: exact,
  });
  return [
    concat(0, [[3], [1], [5]]),
    concat(1, [
      [2, 3],
      [2, 1],
      [2, 70],
    ]),
    concat(1, [
      [2, 2, 3],
      [2, 5, 3],
    ]),
    gather([5], 0, [4, 0, 9], [3]),
    gather([3, 4, 5], 1, [3, 0, 1, 1], [2, 2]),
    gather([6, 300], 0, [5, 5, 0], [3]),
    gather([2, 7], 1, [6], [1]),
    permute([7], [0]),
    permute([3, 5], [1, 0]),
    permute([2, 3, 4], [2, 0, 1]),
    permute([2, 3, 4, 5], [0, 2, 1, 3]),
    permute([70, 45], [1, 0]),
    permute([3, 40, 66], [0, 2, 1]),
    expand([1], [5]),
    expand([4, 1], [4, 6]),
    expand([3, 1, 2], [2, 3, 4, 2]),
    slice([10], 0, 9, 4, -3),
    slice([4, 6, 5], 1, 1, 2, 3),
    slice([4, 300], 1, 17, 100, 1),
    slice([5, 3], 0, 4, 5, -1),
    slice([2, 3, 8], 2, 2, 4, 1),
    strided([30], [2, 3, 2], [10, -2, 3], 6),
    strided([5, 100], [50, 60], [1, 7], 0),
    strided([9], [2, 2, 2], [0, 4, 0], 1),
  ];
}

export function cumsumCases(): readonly OpCase<'cumsum'>[] {
  const shapes: readonly (readonly [readonly number[], number])[] = [
    [[1], 0],
    [[7], 0],
    [[3, 1024], 1],
    [[2, 1025], 1],
    [[5, 3], 0],
    [[2, 300, 3], 1],
    [[2, 5, 4], 1],
    [[1, 20_001], 1],
  ];
  return shapes.map(([shape, axis], i) => {
    const random = seededRandom(1700 + i);
    const size = shape[axis] ?? 1;
    // A running sum is as good as the sum of the terms' absolute values, half a unit each.
    return {
      name: `cumsum [${shape.join(', ')}] along ${axis}${i % 2 === 1 ? ' exclusive' : ''}`,
      op: 'cumsum',
      params: { axis, exclusive: i % 2 === 1 },
      inputs: [floatInput('input', shape, random)],
      tolerance: { absolute: 5e-7 * size + 1e-7 },
    };
  });
}

/** A row of more chunks than add up their totals for themselves; all its sums are small whole numbers, hence exact. */
export function longCumsumCase(size: number): OpCase<'cumsum'> {
  const values = Array.from({ length: size }, (_, i) => (i % 7) - 3);
  return { name: `cumsum of ${size}`, op: 'cumsum', params: { axis: 0, exclusive: false }, inputs: [floats([size], values)], tolerance: exact };
}

export function topKCases(): readonly OpCase<'topK'>[] {
  const outputs = ['values', 'indices'] as const;
  const make = (name: string, shape: readonly number[], values: readonly number[], k: number): OpCase<'topK'>[] =>
    outputs.map((output) => ({ name: `top ${k} ${name}: ${output}`, op: 'topK', params: { k, output }, inputs: [floats(shape, values)], tolerance: exact }));
  const random = seededRandom(1800);
  const rows = [...randomFloats(3 * 500, random)];
  const long = [...randomFloats(2 * 5000, random)];
  const ties = Array.from({ length: 3000 }, (_, i) => i % 7);
  return [
    ...make('of one', [1], [3], 1),
    ...make('of hard values', [hard.length], hard, hard.length),
    ...make('of rows', [3, 500], rows, 5),
    ...make('of rows of several chunks', [2, 2100], long.slice(0, 4200), 40),
    ...make('of more lists than are merged at once', [2100], long.slice(0, 2100), 300),
    ...make('with ties across chunks', [3000], ties, 600),
    ...make('of all', [2, 1500], long.slice(0, 3000), 1500),
  ];
}

export function convCases(): readonly OpCase<'conv2d'>[] {
  const shapes: readonly (readonly [input: readonly number[], kernel: readonly number[], stride: number])[] = [
    [[1, 3, 3], [1, 1, 2, 2], 1],
    [[1, 5, 7], [2, 1, 3, 3], 1],
    [[3, 8, 9], [4, 3, 3, 2], 2],
    [[2, 2, 6, 5], [3, 2, 1, 1], 3],
    [[1, 1, 1, 1], [1, 1, 1, 1], 1],
    [[2, 4, 11], [1, 2, 4, 5], 1],
  ];
  // Enough channels for a product in tiles: rows of four places, and others; two images.
  const tiled: readonly (readonly [input: readonly number[], kernel: readonly number[], stride: number, padding: ConvPadding])[] = [
    [[3, 9, 12], [18, 3, 3, 3], 1, 'same'],
    [[2, 2, 14, 11], [33, 2, 3, 4], 2, 'full'],
  ];
  const every = (['valid', 'same', 'full'] as const).map((padding, p) => [padding, p, shapes] as const);
  const chosen = tiled.map(([x, kernel, stride, padding], i) => [padding, 3 + i, [[x, kernel, stride] as const]] as const);
  return [...every, ...chosen].flatMap(([padding, p, list]) =>
    list.map(([x, kernel, stride], i): OpCase<'conv2d'> => {
      const random = seededRandom(1900 + 10 * p + i);
      return {
        name: `conv2d [${x.join(', ')}] [${kernel.join(', ')}] ${padding} by ${stride}`,
        op: 'conv2d',
        params: { stride, padding },
        inputs: [floatInput('input', x, random), floatInput('input', kernel, random)],
        tolerance: { relativeToMax: 1e-6, absolute: 1e-7 },
      };
    }),
  );
}

export function tileReduceCases(): readonly OpCase<'tileReduce'>[] {
  const shapes = [
    [4, 4],
    [16, 16],
    [20, 20],
    [17, 33],
    [1, 1],
    [9, 11],
    [100, 5],
  ] as const;
  return shapes.flatMap(([rows, columns], i) =>
    (['sum', 'max', 'min'] as const).map((fn): OpCase<'tileReduce'> => {
      const data = randomFloats(rows * columns, seededRandom(2000 + i));
      if (i === 3) [data[0], data[40], data[41]] = [none, most, -0];
      return {
        name: `tileReduce ${fn} [${rows}, ${columns}]`,
        op: 'tileReduce',
        params: { fn },
        inputs: [input('f32', [rows, columns], data)],
        tolerance: fn === 'sum' ? { absolute: 2e-5 } : exact,
      };
    }),
  );
}

/** Chains that use every kind of step, operand and broadcast. */
export function regionCases(): readonly OpCase<'region'>[] {
  const gate: readonly RegionStep[] = [
    { op: 'unary', fn: 'silu', x: { input: 0 } },
    { op: 'binary', fn: 'mul', x: { step: 0 }, y: { input: 1 } },
    { op: 'unary', fn: 'scale', a: 0.5, x: { step: 1 } },
    { op: 'binary', fn: 'add', x: { step: 2 }, y: { value: -1.5 } },
  ];
  const choice: readonly RegionStep[] = [
    { op: 'compare', fn: 'lt', x: { input: 0 }, y: { value: 0 } },
    { op: 'unary', fn: 'clip', a: -0.5, b: most, x: { input: 0 } },
    { op: 'where', condition: { step: 0 }, x: { value: least }, y: { step: 1 } },
    { op: 'where', condition: { input: 1 }, x: { step: 2 }, y: { input: 2 } },
  ];
  const sums: readonly RegionStep[] = Array.from(
    { length: 32 },
    (_, i): RegionStep => ({ op: 'binary', fn: i % 2 === 0 ? 'add' : 'sub', x: i === 0 ? { input: 0 } : { step: i - 1 }, y: { input: i % 7 } }),
  );
  const signs: readonly RegionStep[] = [
    { op: 'unary', fn: 'neg', x: { input: 0 } },
    { op: 'compare', fn: 'ge', x: { step: 0 }, y: { input: 1 } },
  ];
  const random = seededRandom(2100);
  const make = (name: string, steps: readonly RegionStep[], inputs: readonly CaseInput[]): OpCase<'region'> => ({
    name: `region ${name}`,
    op: 'region',
    params: { steps },
    inputs,
    tolerance: { relative: 2e-6, absolute: 1e-6 },
  });
  const shape = [5, 6, 4];
  return [
    make('of a gate and a row', gate, [floatInput('input', [3, 64], random), floatInput('input', [64], random)]),
    make('of a gate and a column', gate, [floatInput('input', [3, 5, 7], random), floatInput('input', [5, 1], random)]),
    make('with conditions', choice, [
      floats([hard.length], hard),
      words(
        [hard.length],
        hard.map((_, i) => i % 2),
      ),
      floats([1], [7]),
    ]),
    make(
      'of seven inputs and thirty-two steps',
      sums,
      [shape, [6, 4], [4], [1], [5, 1, 1], [6, 1], shape].map((s) => floatInput('input', s, random)),
    ),
    make('that compares', signs, [floatInput('input', [1025], random), floatInput('input', [1], random)]),
  ];
}

export function tensorCases(): readonly OpCase[] {
  return [
    ...compareCases(),
    ...whereCases(),
    ...castCases(),
    ...movementCases(),
    ...cumsumCases(),
    ...topKCases(),
    ...convCases(),
    ...tileReduceCases(),
    ...regionCases(),
  ];
}
