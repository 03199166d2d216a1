import { ShapeError } from '../core/errors.js';
import { elementCount, formatType } from '../core/tensor.js';
import { need, type OpDefinition } from './definition.js';

/** The same elements in row-major order under another shape: a view. */
const reshape: OpDefinition<'reshape'> = {
  arity: 1,
  type([x], { shape }) {
    const input = need(x);
    const whole = shape.every((size) => Number.isSafeInteger(size) && size >= 1);
    if (!whole || elementCount(shape) !== elementCount(input.shape))
      throw new ShapeError(`reshape: ${formatType(input)} has not the elements of [${shape.join(', ')}]`);
    return { dtype: input.dtype, shape };
  },
  reference([x]) {
    return need(x).data;
  },
};

/** x[start : start + length] along axis 0: a view. */
const narrow: OpDefinition<'narrow'> = {
  arity: 1,
  type([x], { start, length }) {
    const input = need(x);
    const rows = input.shape[0] ?? 0;
    if (!(Number.isInteger(start) && Number.isInteger(length) && start >= 0 && length > 0 && start + length <= rows)) {
      throw new ShapeError(`narrow: rows ${start} to ${start + length} are not inside ${formatType(input)}`);
    }
    return { dtype: input.dtype, shape: [length, ...input.shape.slice(1)] };
  },
  reference([x], { start, length }) {
    const input = need(x);
    const row = elementCount(input.shape.slice(1));
    return input.data.subarray(start * row, (start + length) * row);
  },
};

export const shapeOps = { reshape, narrow };
