import type { OpCase } from '../case.js';
import { floatInput, seededRandom } from './weight-data.js';

const shapes: readonly (readonly number[])[] = [
  [1, 1],
  [2, 3],
  [3, 5],
  [1, 8],
  [4, 64],
  [9, 100],
  [1, 2048],
  [2, 4099],
  [1, 100_000],
  [1, 4, 16],
  [7, 11, 64],
  [2, 2, 130],
];

/** Rows from one element to a hundred thousand, whole rows and heads, some for a subgroup each; the tolerance is for sums in f32. */
export function rmsNormCases(): readonly OpCase<'rmsNorm'>[] {
  return shapes.map((shape, i) => {
    const random = seededRandom(400 + i);
    const inputs = [floatInput('input', shape, random), floatInput('param', [shape.at(-1) ?? 1], random)];
    return {
      name: `rmsNorm [${shape.join(', ')}]`,
      op: 'rmsNorm',
      params: { eps: i % 2 === 0 ? 1e-5 : 1e-6 },
      inputs,
      tolerance: { relative: 2e-6, absolute: 1e-9 },
    };
  });
}
