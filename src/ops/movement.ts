import { ShapeError } from '../core/errors.js';
import { elementCount, formatType, type Shape, sameShape } from '../core/tensor.js';
import { expectAxis, linesAlong } from './axes.js';
import { expectWord } from './compare.js';
import { need, type OpDefinition } from './definition.js';
import { broadcastShapes, broadcastStrides, stridedOffset } from './elementwise.js';

/** Inputs of one `concat` at most. */
const maxConcatInputs = 64;

/** Tensors one after another along `axis`: at least one, all of one 4-byte type and equal in the other axes. */
const concat: OpDefinition<'concat'> = {
  arity: [1, maxConcatInputs],
  type(inputs, { axis }) {
    const first = need(inputs[0]);
    expectWord('concat', 'every part', first);
    expectAxis('concat', first, axis);
    let size = 0;
    for (const input of inputs) {
      const others = input.shape.map((length, i) => (i === axis ? 1 : length));
      const fits = sameShape(
        others,
        first.shape.map((length, i) => (i === axis ? 1 : length)),
      );
      if (input.dtype !== first.dtype || !fits) throw new ShapeError(`concat: ${formatType(input)} does not continue ${formatType(first)} along axis ${axis}`);
      size += input.shape[axis] ?? 0;
    }
    return { dtype: first.dtype, shape: first.shape.map((length, i) => (i === axis ? size : length)) };
  },
  reference(inputs, { axis }, output) {
    const y = new Float64Array(elementCount(output.shape));
    const { count: total } = linesAlong(output.shape, [axis]);
    let start = 0;
    for (const { shape, data } of inputs) {
      const { outer, count, inner } = linesAlong(shape, [axis]);
      for (let o = 0; o < outer; o++) y.set(data.subarray(o * count * inner, (o + 1) * count * inner), (o * total + start) * inner);
      start += count;
    }
    return y;
  },
};

/** The shape of `gather`: the axis gives way to the shape of the indices. */
function gatheredShape(shape: Shape, indices: Shape, axis: number): Shape {
  return [...shape.slice(0, axis), ...indices, ...shape.slice(axis + 1)];
}

/**
 * y[..., i..., ...] = x[..., indices[i...], ...] along `axis`: x of any 4-byte type, indices u32 of any shape, which takes the axis' place. An index beyond the axis
 * reads its last element.
 */
const gather: OpDefinition<'gather'> = {
  arity: 2,
  type([x, indices], { axis }) {
    const [input, index] = [need(x), need(indices)];
    expectWord('gather', 'x', input);
    expectAxis('gather', input, axis);
    if (index.dtype !== 'u32') throw new ShapeError(`gather: indices must be u32, got ${formatType(index)}`);
    return { dtype: input.dtype, shape: gatheredShape(input.shape, index.shape, axis) };
  },
  reference([x, indices], { axis }) {
    const [input, index] = [need(x), need(indices).data];
    const { outer, count, inner } = linesAlong(input.shape, [axis]);
    const y = new Float64Array(outer * index.length * inner);
    for (let o = 0; o < outer; o++) {
      index.forEach((wanted, i) => {
        const from = (o * count + Math.min(wanted, count - 1)) * inner;
        y.set(input.data.subarray(from, from + inner), (o * index.length + i) * inner);
      });
    }
    return y;
  },
};

/** y's axis i is x's axis perm[i]. */
const permute: OpDefinition<'permute'> = {
  arity: 1,
  type([x], { perm }) {
    const input = need(x);
    expectWord('permute', 'x', input);
    const rank = input.shape.length;
    if (perm.length !== rank || new Set(perm).size !== rank)
      throw new ShapeError(`permute: perm must name each of the ${rank} axes of ${formatType(input)} once, got [${perm.join(', ')}]`);
    for (const axis of perm) expectAxis('permute', input, axis);
    return { dtype: input.dtype, shape: perm.map((axis) => input.shape[axis] ?? 1) };
  },
  reference([x], { perm }, { shape }) {
    const input = need(x);
    const strides = rowMajor(input.shape);
    const turned = perm.map((axis) => strides[axis] ?? 0);
    return input.data.map((_, i) => input.data[stridedOffset(i, shape, turned)] ?? Number.NaN);
  },
};

function rowMajor(shape: Shape): number[] {
  return shape.map((_, axis) => elementCount(shape.slice(axis + 1)));
}

/** x repeated to `shape` by the rules of broadcasting. */
const expand: OpDefinition<'expand'> = {
  arity: 1,
  type([x], { shape }) {
    const input = need(x);
    expectWord('expand', 'x', input);
    if (!sameShape(broadcastShapes('expand', input.shape, shape), shape))
      throw new ShapeError(`expand: ${formatType(input)} does not fit into [${shape.join(', ')}]`);
    return { dtype: input.dtype, shape };
  },
  reference([x], { shape }) {
    const input = need(x);
    const strides = broadcastStrides(input.shape, shape);
    return Float64Array.from({ length: elementCount(shape) }, (_, i) => input.data[stridedOffset(i, shape, strides)] ?? Number.NaN);
  },
};

/** Elements start, start + step, ... along `axis`, `length` of them; any 4-byte type. */
const slice: OpDefinition<'slice'> = {
  arity: 1,
  type([x], { axis, start, length, step }) {
    const input = need(x);
    expectWord('slice', 'x', input);
    expectAxis('slice', input, axis);
    const size = input.shape[axis] ?? 0;
    const last = start + (length - 1) * step;
    const whole = [start, length, step].every(Number.isInteger) && step !== 0 && length >= 1;
    if (!whole || start < 0 || start >= size || last < 0 || last >= size)
      throw new ShapeError(`slice: ${length} elements from ${start} in steps of ${step} are not inside axis ${axis} of ${formatType(input)}`);
    return { dtype: input.dtype, shape: input.shape.map((s, i) => (i === axis ? length : s)) };
  },
  reference([x], { axis, start, length, step }) {
    const input = need(x);
    const { outer, count, inner } = linesAlong(input.shape, [axis]);
    const y = new Float64Array(outer * length * inner);
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < length; i++) {
        const from = (o * count + start + i * step) * inner;
        y.set(input.data.subarray(from, from + inner), (o * length + i) * inner);
      }
    }
    return y;
  },
};

/** A window of any strides onto x, as a tensor of its own; any 4-byte type. */
const strided: OpDefinition<'strided'> = {
  arity: 1,
  type([x], { shape, strides, offset }) {
    const input = need(x);
    expectWord('strided', 'x', input);
    const whole = [...shape, ...strides, offset].every(Number.isSafeInteger) && shape.every((size) => size >= 1) && strides.length === shape.length;
    if (!whole)
      throw new ShapeError(`strided: a shape with one stride an axis is wanted, got [${shape.join(', ')}] and [${strides.join(', ')}] from ${offset}`);
    const reach = (pick: (a: number, b: number) => number): number => shape.reduce((sum, size, i) => sum + pick(0, (size - 1) * (strides[i] ?? 0)), offset);
    const [first, last] = [reach(Math.min), reach(Math.max)];
    if (first < 0 || last >= elementCount(input.shape)) throw new ShapeError(`strided: elements ${first} to ${last} are not all inside ${formatType(input)}`);
    return { dtype: input.dtype, shape };
  },
  reference([x], { shape, strides, offset }) {
    const { data } = need(x);
    return Float64Array.from({ length: elementCount(shape) }, (_, i) => data[offset + stridedOffset(i, shape, strides)] ?? Number.NaN);
  },
};

/** y[i] = x[0] + ... + x[i] along `axis`; with `exclusive` without x[i] itself. f32. */
const cumsum: OpDefinition<'cumsum'> = {
  arity: 1,
  type([x], { axis }) {
    const input = need(x);
    if (input.dtype !== 'f32') throw new ShapeError(`cumsum: x must be f32, got ${formatType(input)}`);
    expectAxis('cumsum', input, axis);
    return input;
  },
  reference([x], { axis, exclusive }) {
    const input = need(x);
    const { outer, count, inner } = linesAlong(input.shape, [axis]);
    const y = new Float64Array(input.data.length);
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        let sum = 0;
        for (let c = 0; c < count; c++) {
          const at = (o * count + c) * inner + i;
          const next = sum + (input.data[at] ?? Number.NaN);
          y[at] = exclusive ? sum : next;
          sum = next;
        }
      }
    }
    return y;
  },
};

export const movementOps = { concat, gather, permute, expand, slice, strided, cumsum };
