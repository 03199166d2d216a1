import { bytesOf } from '../../core/bytes.js';
import type { OpCase } from '../case.js';
import { seededRandom } from './weight-data.js';

const { NaN: none, NEGATIVE_INFINITY: least, POSITIVE_INFINITY: most } = Number;

/** Values that decide; the rest of the row is random in [-1, 1) or, where given, `fill`. */
interface ArgmaxCase {
  readonly name: string;
  readonly width: number;
  readonly rows?: number;
  readonly fill?: number;
  readonly at?: Readonly<Record<number, number>>;
}

const plans: readonly ArgmaxCase[] = [
  { name: 'one element', width: 1 },
  { name: 'one NaN', width: 1, fill: none },
  { name: 'short rows', width: 3, rows: 4 },
  { name: 'a chunk less one', width: 2047, rows: 2 },
  { name: 'a chunk', width: 2048 },
  { name: 'a chunk and one', width: 2049, rows: 3 },
  { name: 'a tie within a chunk', width: 500, at: { 77: 5, 200: 5, 499: 5 } },
  { name: 'a tie across chunks', width: 5000, at: { 2100: 5, 4999: 5, 2400: 5 } },
  { name: 'all equal', width: 4100, fill: 1 },
  { name: 'all minus infinity', width: 3000, fill: least },
  { name: 'all NaN', width: 3000, fill: none },
  { name: 'NaN but for minus infinity at 2500', width: 3000, fill: none, at: { 2500: least } },
  { name: 'NaN among numbers', width: 300, at: { 0: none, 50: 3, 51: none, 299: most } },
  { name: 'zeros of both signs', width: 40, fill: -1, at: { 3: -0, 7: 0 } },
  { name: 'a vocabulary', width: 150_000, rows: 2, at: { 149999: 2 } },
];

/** Ties, NaN, infinities, rows of one chunk and of many. */
export function argmaxCases(): readonly OpCase<'argmax'>[] {
  return plans.map(({ name, width, rows = 1, fill, at = {} }, i) => {
    const random = seededRandom(800 + i);
    const data = Float32Array.from({ length: rows * width }, (_, index) => at[index % width] ?? fill ?? random() * 2 - 1);
    return {
      name: `argmax ${name}`,
      op: 'argmax',
      params: {},
      inputs: [{ role: 'input', type: { dtype: 'f32', shape: [rows, width] }, bytes: bytesOf(data) }],
      tolerance: { absolute: 0 },
    };
  });
}
