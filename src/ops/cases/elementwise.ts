import { bytesOf } from '../../core/bytes.js';
import { elementCount } from '../../core/tensor.js';
import type { CaseInput, OpCase, Tolerance } from '../case.js';
import type { BinaryFunction, UnaryFunction } from '../params.js';
import { floatInput, seededRandom } from './weight-data.js';

/** Results below the smallest normal f32 may be flushed to 0. */
const smallestNormal = 2 ** -126;

const infinities = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN];
const around = [0, -0, 1, -1, 0.5, -0.5, 2, -2, 1e-6, -1e-6, 1e-20, 3.25, -3.25, 7.5, -7.5, 20, -20, 87, -87, 1e4, -1e4, 1e15, -1e15];

interface UnaryPlan {
  /** A unit in the last place of f32 is 6e-8 to 1.2e-7 of the value. */
  readonly relative: number;
  readonly absolute?: number;
  readonly a?: number;
  readonly b?: number;
  /** Arguments beside the random ones; results must be f32 numbers or true infinities. */
  readonly points: readonly number[];
  /** Range of the random arguments. */
  readonly range: readonly [number, number];
}

const wide: readonly [number, number] = [-12, 12];
const angles = [Math.PI, Math.PI / 2, 355, 710, 1e5, -1e5, 8388608, 1e10, -1e22, 3e38, 12345.678, 0.7853982, -0.7853981];

const unaryPlans: { readonly [F in UnaryFunction]: readonly UnaryPlan[] } = {
  silu: [{ relative: 6e-7, absolute: 90 * smallestNormal, points: [...around, ...infinities, -100, 100], range: wide }],
  relu: [{ relative: 0, points: [...around, ...infinities], range: wide }],
  leakyRelu: [0.1, 0].map((a) => ({ relative: 2e-7, a, points: [...around, ...infinities], range: wide })),
  elu: [
    { relative: 5e-7, a: 1, points: [...around, ...infinities, -1e-3, -0.1, -0.25, -0.499, -0.501], range: [-2, 1] },
    { relative: 5e-7, a: 0.7, points: around, range: wide },
  ],
  clip: [
    { relative: 0, a: -0.5, b: 0.75, points: [...around, ...infinities], range: wide },
    { relative: 0, a: 0, b: Number.POSITIVE_INFINITY, points: [...around, ...infinities], range: wide },
  ],
  sigmoid: [{ relative: 5e-7, points: [...around, ...infinities, -100, 100], range: wide }],
  tanh: [{ relative: 5e-7, points: [...around, ...infinities, 0.624, 0.626, 1e-3, 0.1], range: [-2, 2] }],
  gelu: [{ relative: 2e-6, absolute: 1e-9, points: [...around, ...infinities], range: wide }],
  geluErf: [{ relative: 2e-6, absolute: 1e-9, points: [...around, ...infinities], range: wide }],
  exp: [{ relative: 4e-7, points: [...around.filter((x) => x < 88), ...infinities, 88.5, -88, -103, -105], range: [-80, 80] }],
  log: [
    { relative: 4e-7, points: [...around, ...infinities, 0.999999, 1.000001, Math.fround(Math.SQRT2), Math.fround(Math.SQRT1_2), 3e38, 2e-38], range: [-1, 5] },
  ],
  sqrt: [{ relative: 1e-6, points: [...around, ...infinities], range: [-1, 50] }],
  rsqrt: [{ relative: 1e-6, points: [...around, ...infinities], range: [-1, 50] }],
  neg: [{ relative: 0, points: [...around, ...infinities], range: wide }],
  abs: [{ relative: 0, points: [...around, ...infinities], range: wide }],
  scale: [-0.3, 0].map((a) => ({ relative: 2e-7, a, points: [...around, ...infinities], range: wide })),
  square: [{ relative: 2e-7, points: [...around, ...infinities], range: wide }],
  reciprocal: [{ relative: 4e-7, points: [...around, ...infinities], range: wide }],
  sin: [{ relative: 5e-7, points: [...around, ...infinities, ...angles], range: [-40, 40] }],
  cos: [{ relative: 5e-7, points: [...around, ...infinities, ...angles], range: [-40, 40] }],
  tan: [{ relative: 1e-6, points: [...around, ...infinities, ...angles], range: [-40, 40] }],
  atan: [{ relative: 5e-7, points: [...around, ...infinities, 0.41421357, 2.4142136, 1e30], range: [-4, 4] }],
  round: [{ relative: 0, points: [...around, ...infinities, 1.5, 2.5, -1.5, -2.5, 0.49999997, 8388609, 4.5], range: wide }],
};

function values(points: readonly number[], [low, high]: readonly [number, number], random: () => number, count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => points[i] ?? low + (high - low) * random());
}

function floats(role: CaseInput['role'], shape: readonly number[], data: Float32Array): CaseInput {
  return { role, type: { dtype: 'f32', shape }, bytes: bytesOf(data) };
}

function unaryCase(fn: UnaryFunction, plan: UnaryPlan, shape: readonly number[], seed: number): OpCase<'unary'> {
  const { relative, absolute = 0, a, b, points, range } = plan;
  const data = values(points, range, seededRandom(seed), elementCount(shape));
  return {
    name: `unary ${fn}${a === undefined ? '' : ` ${a}`} [${shape.join(', ')}]`,
    op: 'unary',
    params: { fn, ...(a === undefined ? {} : { a }), ...(b === undefined ? {} : { b }) },
    inputs: [floats('input', shape, data)],
    tolerance: { relative, absolute: absolute + smallestNormal },
  };
}

/** Every function at its hard arguments (zeros, infinities, NaN, ends of its ranges) and at random ones; sizes with and without whole vectors. */
export function unaryCases(): readonly OpCase<'unary'>[] {
  const functions = Object.entries(unaryPlans) as unknown as readonly (readonly [UnaryFunction, readonly UnaryPlan[]])[];
  const hard = functions.flatMap(([fn, plans], i) => plans.map((plan, j) => unaryCase(fn, plan, [4, 64], i * 10 + j)));
  const [silu] = unaryPlans.silu;
  const sizes = silu === undefined ? [] : [[1], [3, 5], [1025], [2, 3, 2, 1], [70_001]].map((shape, i) => unaryCase('silu', silu, shape, 900 + i));
  return [...hard, ...sizes];
}

const binaryTolerances: { readonly [F in BinaryFunction]: number } = { add: 2e-7, sub: 2e-7, mul: 2e-7, div: 4e-7, max: 0, min: 0, pow: 3e-6 };

const tolerance = (fn: BinaryFunction): Tolerance => ({ relative: binaryTolerances[fn], absolute: smallestNormal });

const broadcasts: readonly (readonly [readonly number[], readonly number[]])[] = [
  [[1], [1]],
  [[7], [7]],
  [
    [4, 8],
    [4, 8],
  ],
  [[4, 8], [8]],
  [[8], [4, 8]],
  [[4, 8], [1]],
  [[1], [3, 5]],
  [
    [4, 8],
    [4, 1],
  ],
  [
    [2, 3, 4],
    [3, 1],
  ],
  [
    [2, 1, 4],
    [1, 3, 4],
  ],
  [
    [3, 1, 5, 1],
    [1, 2, 1, 7],
  ],
  [
    [1, 6, 8],
    [5, 1, 8],
  ],
  [
    [2, 3, 4, 5],
    [3, 4, 1],
  ],
  [[1300], [1300]],
];

function broadcastCase(fn: BinaryFunction, a: readonly number[], b: readonly number[], seed: number): OpCase<'binary'> {
  const random = seededRandom(seed);
  const inputs = [floatInput('input', a, random), floatInput('input', b, random)];
  return { name: `binary ${fn} [${a.join(', ')}] [${b.join(', ')}]`, op: 'binary', params: { fn }, inputs, tolerance: tolerance(fn) };
}

function tableCase(fn: BinaryFunction, xs: readonly number[], ys: readonly number[]): OpCase<'binary'> {
  const inputs = [floats('input', [xs.length, 1], Float32Array.from(xs)), floats('input', [1, ys.length], Float32Array.from(ys))];
  return { name: `binary ${fn} at hard arguments`, op: 'binary', params: { fn }, inputs, tolerance: tolerance(fn) };
}

/** Every function with every kind of broadcasting in turn, and on pairs of hard arguments. */
export function binaryCases(): readonly OpCase<'binary'>[] {
  const functions = Object.keys(binaryTolerances) as readonly BinaryFunction[];
  const shapes = broadcasts.flatMap(([a, b], i) => [
    broadcastCase('sub', a, b, 100 + i),
    broadcastCase(functions.filter((fn) => fn !== 'pow')[i % 6] ?? 'add', a, b, 200 + i),
  ]);
  const plain = [0, -0, 1, -1, 0.5, -3.25, 1e10, -1e10, ...infinities];
  const bases = [0, -0, 0.5, -0.5, 1, -1, 1.5, -2, 3, 10, 0.1, ...infinities];
  const exponents = [0, -0, 1, -1, 2, 3, -3, 0.5, -0.5, 2.5, 7, 16, -16, 0.3333333, ...infinities];
  const hard = functions.filter((fn) => fn !== 'pow').map((fn) => tableCase(fn, plain, plain));
  return [...shapes, ...hard, tableCase('pow', bases, exponents)];
}

/** A gate below the smallest normal f32 may be flushed to 0 before it meets x = -90. */
const flushedGate = 90 * smallestNormal;

/** SwiGLU with and without whole vectors, and where the gate is infinite. */
export function swigluCases(): readonly OpCase<'swiglu'>[] {
  return [[1], [3, 5], [2, 64], [1030], [5, 300]].map((shape, i) => {
    const random = seededRandom(300 + i);
    const gate = values(i % 2 === 0 ? [Number.NEGATIVE_INFINITY, -0, 90, -90] : [], wide, random, elementCount(shape));
    const inputs = [floats('input', shape, gate), floatInput('input', shape, random)];
    return { name: `swiglu [${shape.join(', ')}]`, op: 'swiglu', params: {}, inputs, tolerance: { relative: 8e-7, absolute: flushedGate } };
  });
}
