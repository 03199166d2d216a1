import { bytesOf } from '../../core/bytes.js';
import { elementCount } from '../../core/tensor.js';
import type { CaseInput, OpCase } from '../case.js';
import type { OpParams, ReduceFunction } from '../params.js';
import { floatInput, randomFloats, seededRandom } from './weight-data.js';

const { NaN: none, NEGATIVE_INFINITY: least, POSITIVE_INFINITY: most } = Number;

/** Largest accepted error of a sum, as a share of the sum of its terms' absolute values. */
const sumError = 1e-6;

const floats = (shape: readonly number[], data: Float32Array): CaseInput => ({ role: 'input', type: { dtype: 'f32', shape }, bytes: bytesOf(data) });

type Axes = readonly number[];

/** Rows, columns, axes apart from each other; lines of one pass and of several. */
const reductions: readonly (readonly [shape: readonly number[], axes: Axes])[] = [
  [[1], [0]],
  [[5], [0]],
  [[255], [0]],
  [[256], [0]],
  [[257], [0]],
  [[7, 3], [1]],
  [[7, 3], [0]],
  [
    [4, 6, 5],
    [0, 2],
  ],
  [[4, 6, 5], [1]],
  [
    [3, 4, 5],
    [0, 1, 2],
  ],
  [
    [2, 3, 4, 5],
    [1, 3],
  ],
  [[3, 1000], [1]],
  [[300, 70], [0]],
  [[2, 4099, 3], [1]],
  [[1, 20_001], [1]],
  [[1500, 40], [1]],
];

const functions: readonly ReduceFunction[] = ['sum', 'mean', 'max', 'min', 'prod'];

function sumOfAbsolutes(data: Float32Array): number {
  return data.reduce((sum, value) => sum + Math.abs(value), 0);
}

function reduceCase(fn: ReduceFunction, shape: readonly number[], axes: Axes, keepDims: boolean, seed: number): OpCase<'reduce'> {
  const random = seededRandom(seed);
  const size = elementCount(shape);
  // Factors near 1 keep a long product within range.
  const data = fn === 'prod' ? randomFloats(size, random).map((v, i) => (i % 11 === 0 ? -1 : 1) * (1 + v * 0.01)) : randomFloats(size, random);
  const lines = elementCount(shape.filter((_, axis) => !axes.includes(axis)));
  const share = (2 * sumOfAbsolutes(data)) / lines;
  const absolute = fn === 'sum' ? sumError * share : fn === 'mean' ? (sumError * share) / (size / lines) : 0;
  return {
    name: `reduce ${fn} [${shape.join(', ')}] over [${axes.join(', ')}]${keepDims ? ' kept' : ''}`,
    op: 'reduce',
    params: { fn, axes, keepDims },
    inputs: [floats(shape, data)],
    tolerance: fn === 'prod' ? { relative: 2e-5 } : { absolute },
  };
}

/** What is not a number, zeros of both signs and infinities, in places that every thread may get. */
function hardReduceCases(): readonly OpCase<'reduce'>[] {
  const rows = [
    [0, -0, 0, -0],
    [-0, -0, -0, -0],
    [most, 1, 2, 3],
    [least, 1, 2, 3],
    [most, least, 1, 2],
    [none, 1, 2, 3],
    [1, 2, none, most],
    [least, least, least, least],
    [none, none, none, none],
    [-3, -2, -5, -4],
  ];
  const rest = rows.map((row) => [...row, ...Array.from({ length: 296 }, (_, i) => row[i % 4] ?? 0)]);
  return functions.flatMap((fn) =>
    [rows, rest].map((list): OpCase<'reduce'> => {
      const width = list[0]?.length ?? 0;
      const data = fn === 'prod' && width > 4 ? rows : list;
      return {
        name: `reduce ${fn} of hard values, rows of ${width}`,
        op: 'reduce',
        params: { fn, axes: [1], keepDims: false },
        inputs: [floats([data.length, data[0]?.length ?? 0], Float32Array.from(data.flat()))],
        tolerance: { relative: 1e-6 },
      };
    }),
  );
}

export function reduceCases(): readonly OpCase<'reduce'>[] {
  const each = reductions.flatMap(([shape, axes], i) => {
    const fn = functions[i % functions.length] ?? 'sum';
    return [reduceCase('sum', shape, axes, i % 2 === 1, 900 + i), ...(fn === 'sum' ? [] : [reduceCase(fn, shape, axes, i % 3 === 0, 950 + i)])];
  });
  return [...each, reduceCase('max', [40, 33, 2], [0, 2], true, 998), ...hardReduceCases(), longSumCase(1_000_000)];
}

/** Equal terms, whose sum no f32 chain of additions gets right. */
export function longSumCase(size: number): OpCase<'reduce'> {
  const data = new Float32Array(size).fill(0.1);
  const params: OpParams['reduce'] = { fn: 'sum', axes: [0], keepDims: false };
  return {
    name: `reduce sum of ${size} equal terms`,
    op: 'reduce',
    params,
    inputs: [floats([size], data)],
    tolerance: { absolute: sumError * sumOfAbsolutes(data) },
  };
}

/** A product of `size` random pairs. */
export function dotCase(size: number, seed: number): OpCase<'dot'> {
  const random = seededRandom(seed);
  const [a, b] = [randomFloats(size, random), randomFloats(size, random)];
  const terms = a.map((value, i) => value * (b[i] ?? 0));
  return {
    name: `dot of ${size}`,
    op: 'dot',
    params: {},
    inputs: [floats([size], a), floats([size], b)],
    tolerance: { absolute: sumError * sumOfAbsolutes(terms) },
  };
}

export function dotCases(): readonly OpCase<'dot'>[] {
  const small = [1, 255, 256, 257, 4097, 1_000_000].map((size, i) => dotCase(size, 1000 + i));
  const [a, b] = [Float32Array.of(1, 2, 3, 4), Float32Array.of(5, 6, 7, 8)];
  const ramp = Float32Array.from({ length: 10_000 }, (_, i) => i);
  return [
    ...small,
    {
      name: 'dot of 1 to 4 and 5 to 8',
      op: 'dot',
      params: {},
      inputs: [floats([4], a), floats([4], b)],
      tolerance: { absolute: 0 },
    },
    {
      name: 'dot of a ramp and ones',
      op: 'dot',
      params: {},
      inputs: [floats([10_000], ramp), floats([10_000], new Float32Array(10_000).fill(1))],
      tolerance: { absolute: 49.995 },
    },
  ];
}

const softmaxShapes: readonly (readonly [shape: readonly number[], axis: number])[] = [
  [[1], 0],
  [[7], 0],
  [[3, 16], 1],
  [[3, 17], 1],
  [[2, 257], 1],
  [[4, 600], 1],
  [[3, 2052], 1],
  [[2, 4099], 1],
  [[5, 3], 0],
  [[2, 40, 3], 1],
  [[300, 33], 0],
  [[2, 300, 5], 1],
  [[2, 9001], 1],
  [[1, 100_000], 1],
  [[2, 3, 4, 5], 2],
];

function softmaxLike<K extends 'softmax' | 'logSoftmax'>(op: K, absolute: number, relative: number): OpCase<K>[] {
  const shaped = softmaxShapes.map(([shape, axis], i): OpCase<K> => {
    const random = seededRandom(1100 + i);
    const data = randomFloats(elementCount(shape), random).map((v) => v * (i % 3 === 0 ? 40 : 6));
    return {
      name: `${op} [${shape.join(', ')}] along ${axis}`,
      op,
      params: { axis },
      inputs: [floats(shape, data)],
      tolerance: { absolute, relative },
    } as OpCase<K>;
  });
  const hard = [20, 300, 9000].map((width): OpCase<K> => {
    const rows = [none, most, least, -1e38, 3e38].map((value) => Float32Array.from({ length: width }, (_, i) => (i === width - 2 ? value : (i % 5) - 2)));
    const whole = [none, most, least, 3e38].map((value) => new Float32Array(width).fill(value));
    // All of one chunk is -infinity, the rest is not.
    const part = Float32Array.from({ length: width }, (_, i) => (i < width / 2 ? least : 1));
    const data = Float32Array.from([...rows, ...whole, part].flatMap((row) => [...row]));
    return {
      name: `${op} of hard values, rows of ${width}`,
      op,
      params: { axis: 1 },
      inputs: [floats([10, width], data)],
      tolerance: { absolute, relative },
    } as OpCase<K>;
  });
  return [...shaped, ...hard];
}

/** Lines of every kind of kernel, and with NaN and infinities. The error of a difference x - max grows with it: 80 of them are 5e-6. */
export function softmaxCases(): readonly OpCase<'softmax'>[] {
  return softmaxLike('softmax', 1e-12, 8e-6);
}

export function logSoftmaxCases(): readonly OpCase<'logSoftmax'>[] {
  return softmaxLike('logSoftmax', 1e-6, 5e-7);
}

/** Rows with and without bias; a row far from 0, where a difference of squares would lose everything. */
export function layerNormCases(): readonly OpCase<'layerNorm'>[] {
  const shapes: readonly (readonly number[])[] = [
    [1, 1],
    [2, 3],
    [3, 64],
    [2, 5, 100],
    [1, 4099],
    [2, 2048],
  ];
  const plain = shapes.map((shape, i): OpCase<'layerNorm'> => {
    const random = seededRandom(1200 + i);
    const width = shape.at(-1) ?? 1;
    const inputs = [floatInput('input', shape, random), floatInput('param', [width], random), ...(i % 2 === 0 ? [floatInput('param', [width], random)] : [])];
    return {
      name: `layerNorm [${shape.join(', ')}]${i % 2 === 0 ? ' with bias' : ''}`,
      op: 'layerNorm',
      params: { eps: 1e-5 },
      inputs,
      tolerance: { absolute: 3e-6, relative: 3e-6 },
    };
  });
  const random = seededRandom(1299);
  const far = Float32Array.from({ length: 512 }, () => 4096 + Math.floor(random() * 64) / 16);
  const inputs = [floats([1, 512], far), floats([512], new Float32Array(512).fill(1))];
  return [...plain, { name: 'layerNorm of a row around 4096', op: 'layerNorm', params: { eps: 1e-5 }, inputs, tolerance: { absolute: 1e-3, relative: 1e-3 } }];
}
