import { ShapeError } from '../core/errors.js';
import { formatType } from '../core/tensor.js';
import { expectFloat, need, type OpDefinition } from './definition.js';

/** Whether a precedes b: the larger one, numbers before NaN, the lower index among equals. */
export function precedes(data: ArrayLike<number>, a: number, b: number): boolean {
  const [x, y] = [data[a] ?? Number.NaN, data[b] ?? Number.NaN];
  if (x > y) return true;
  if (x === y || (Number.isNaN(x) && Number.isNaN(y))) return a < b;
  return Number.isNaN(y) && !Number.isNaN(x);
}

/**
 * The k largest elements along the last axis, largest first, or their indices: x f32 [..., N], y [..., k], f32 or u32. Among equals the lower index comes first (the zeros
 * are equal); NaN comes after all numbers.
 */
const topK: OpDefinition<'topK'> = {
  arity: 1,
  type([x], { k, output }) {
    const input = need(x);
    expectFloat('topK', 'x', input);
    const size = input.shape.at(-1);
    if (size === undefined || !(Number.isInteger(k) && k >= 1 && k <= size))
      throw new ShapeError(`topK: k must be from 1 to the last axis of ${formatType(input)}, got ${k}`);
    return { dtype: output === 'values' ? 'f32' : 'u32', shape: [...input.shape.slice(0, -1), k] };
  },
  reference([x], { k, output }) {
    const { shape, data } = need(x);
    const width = shape.at(-1) ?? 1;
    const rows = data.length / width;
    const y = new Float64Array(rows * k);
    for (let row = 0; row < rows; row++) {
      const values = data.subarray(row * width, (row + 1) * width);
      const order = Array.from({ length: width }, (_, i) => i).sort((a, b) => (precedes(values, a, b) ? -1 : 1));
      for (let i = 0; i < k; i++) y[row * k + i] = output === 'indices' ? (order[i] ?? 0) : (values[order[i] ?? 0] ?? Number.NaN);
    }
    return y;
  },
};

export const selectOps = { topK };
