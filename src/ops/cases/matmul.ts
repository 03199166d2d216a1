import { bytesOf } from '../../core/bytes.js';
import type { OpCase } from '../case.js';
import type { RegionStep } from '../params.js';
import { floatInput, seededRandom } from './weight-data.js';

/** One product of random matrices. Errors are those of sums that cancel. */
export function matmulCase(m: number, k: number, n: number, transposeA: boolean, transposeB: boolean, alpha = 1, seed = 1): OpCase<'matmul'> {
  const random = seededRandom(seed);
  const inputs = [floatInput('input', transposeA ? [k, m] : [m, k], random), floatInput('input', transposeB ? [n, k] : [k, n], random)];
  const turned = `${transposeA ? ' a turned' : ''}${transposeB ? ' b turned' : ''}${alpha === 1 ? '' : ` times ${alpha}`}`;
  return { name: `matmul ${m}x${k}x${n}${turned}`, op: 'matmul', params: { transposeA, transposeB, alpha }, inputs, tolerance: { relativeToMax: 3e-6 } };
}

const sizes: readonly (readonly [m: number, k: number, n: number])[] = [
  [1, 1, 1],
  [2, 2, 2],
  [2, 3, 2],
  [1, 300, 70],
  [70, 300, 1],
  [3, 33, 130],
  [130, 33, 4],
  [2, 2000, 3],
  [5, 7, 9],
  [33, 20, 34],
  [64, 64, 64],
  [65, 66, 67],
  [40, 1024, 36],
  [100, 48, 20],
  [6, 1001, 8],
];

/** A bias of the columns, a further tensor, one of the rows and a number, through an activation, over tiles and over a few lines; whole and split depths. */
function epilogueCase(m: number, k: number, n: number, transposeB: boolean, seed: number): OpCase<'matmul'> {
  const plain = matmulCase(m, k, n, false, transposeB, 0.5, seed);
  const random = seededRandom(seed + 1000);
  const steps: readonly RegionStep[] = [
    { op: 'binary', fn: 'add', x: { input: 0 }, y: { input: 1 } },
    { op: 'unary', fn: 'silu', x: { step: 0 } },
    { op: 'binary', fn: 'mul', x: { step: 1 }, y: { input: 2 } },
    { op: 'binary', fn: 'sub', x: { step: 2 }, y: { input: 3 } },
    { op: 'binary', fn: 'add', x: { step: 3 }, y: { value: 0.25 } },
  ];
  const extras = [[n], [m, n], [m, 1]].map((shape) => floatInput('input', shape, random));
  return { ...plain, name: `${plain.name} finished`, params: { ...plain.params, epilogue: steps }, inputs: [...plain.inputs, ...extras] };
}

/** Rows with an infinity and with NaN stay NaN times 0, whatever a compiler knows of products with 0. */
function zeroFactorCase(): OpCase<'matmul'> {
  const plain = matmulCase(3, 2, 2, false, false, 0, 1470);
  const a = Float32Array.of(1, Number.POSITIVE_INFINITY, Number.NaN, 2, 3, 4);
  return { ...plain, inputs: plain.inputs.map((input, i) => (i === 0 ? { ...input, bytes: bytesOf(a) } : input)) };
}

const finished: readonly (readonly [m: number, k: number, n: number, transposeB: boolean])[] = [
  [2, 64, 70, false],
  [70, 300, 3, true],
  [33, 20, 36, false],
  [9, 1024, 17, true],
];

/** Operands that may be rounded to f16: on devices with matrices, edges and whole tiles, turned and as they lie, whole and split depths. */
const roundable: readonly (readonly [m: number, k: number, n: number, transposeA: boolean, transposeB: boolean, alpha: number])[] = [
  [128, 128, 128, false, true, 1],
  [130, 150, 140, true, false, 1],
  [128, 1024, 132, false, false, -0.5],
];

/** Each size with every way to lie, in turn; edges in every direction, vectors, depths that are split. */
export function matmulCases(): readonly OpCase<'matmul'>[] {
  const plain = sizes.flatMap(([m, k, n], i) => [
    matmulCase(m, k, n, i % 2 === 1, i % 4 >= 2, i % 3 === 0 ? -0.5 : 1, 1400 + i),
    matmulCase(m, k, n, i % 2 === 0, i % 4 < 2, 1, 1450 + i),
  ]);
  const rounded = roundable.map(([m, k, n, transposeA, transposeB, alpha], i): OpCase<'matmul'> => {
    const exact = matmulCase(m, k, n, transposeA, transposeB, alpha, 1490 + i);
    return { ...exact, name: `${exact.name} rounded`, params: { ...exact.params, rounded: true } };
  });
  return [...plain, zeroFactorCase(), ...rounded, ...finished.map(([m, k, n, transposeB], i) => epilogueCase(m, k, n, transposeB, 1480 + i))];
}
