import { ShapeError } from '../core/errors.js';
import { elementCount, formatType, type TensorType } from '../core/tensor.js';
import { expectKnown, need, type OpDefinition } from './definition.js';
import { broadcastShapes, broadcastStrides, stridedOffset } from './elementwise.js';
import type { CompareFunction } from './params.js';

/** With NaN only `ne` holds; the zeros are equal. */
export const compareFunctions: { readonly [F in CompareFunction]: (x: number, y: number) => boolean } = {
  eq: (x, y) => x === y,
  ne: (x, y) => x !== y,
  lt: (x, y) => x < y,
  le: (x, y) => x <= y,
  gt: (x, y) => x > y,
  ge: (x, y) => x >= y,
};

/** The types whose elements are 4 bytes, which movements and comparisons take. */
export function expectWord(op: string, what: string, type: TensorType): void {
  if (type.dtype !== 'f32' && type.dtype !== 'u32' && type.dtype !== 'i32')
    throw new ShapeError(`${op}: ${what} must be f32, u32 or i32, got ${formatType(type)}`);
}

function expectSameType(op: string, a: TensorType, b: TensorType): void {
  if (a.dtype !== b.dtype) throw new ShapeError(`${op}: both values must have one type, got ${formatType(a)} and ${formatType(b)}`);
}

/** y = 1 where fn(a, b), 0 elsewhere, with broadcasting: a and b of one type, f32, u32 or i32; y u32. */
const compare: OpDefinition<'compare'> = {
  arity: 2,
  type([a, b], { fn }) {
    const [x, y] = [need(a), need(b)];
    expectKnown('compare', fn, compareFunctions);
    expectWord(`compare ${fn}`, 'a', x);
    expectSameType(`compare ${fn}`, x, y);
    return { dtype: 'u32', shape: broadcastShapes(`compare ${fn}`, x.shape, y.shape) };
  },
  reference([a, b], { fn }, { shape }) {
    const [x, y] = [need(a), need(b)];
    const [stridesX, stridesY] = [broadcastStrides(x.shape, shape), broadcastStrides(y.shape, shape)];
    return Float64Array.from({ length: elementCount(shape) }, (_, i) =>
      Number(compareFunctions[fn](x.data[stridedOffset(i, shape, stridesX)] ?? Number.NaN, y.data[stridedOffset(i, shape, stridesY)] ?? Number.NaN)),
    );
  },
};

/** y = a where the condition is not 0, b elsewhere, with broadcasting of all three: condition u32; a and b of one type, f32, u32 or i32, which is y's. */
const where: OpDefinition<'where'> = {
  arity: 3,
  type([condition, a, b]) {
    const [c, x, y] = [need(condition), need(a), need(b)];
    if (c.dtype !== 'u32') throw new ShapeError(`where: the condition must be u32, got ${formatType(c)}`);
    expectWord('where', 'a', x);
    expectSameType('where', x, y);
    return { dtype: x.dtype, shape: broadcastShapes('where', c.shape, broadcastShapes('where', x.shape, y.shape)) };
  },
  reference(inputs, _, { shape }) {
    const [c, x, y] = inputs.map((input) => ({ data: input.data, strides: broadcastStrides(input.shape, shape) }));
    const at = (operand: typeof c, i: number): number => operand?.data[stridedOffset(i, shape, operand.strides)] ?? Number.NaN;
    return Float64Array.from({ length: elementCount(shape) }, (_value, i) => (at(c, i) === 0 ? at(y, i) : at(x, i)));
  },
};

const limits = { i32: [-(2 ** 31), 2 ** 31 - 1], u32: [0, 2 ** 32 - 1] } as const;

/** Towards 0 and held at the ends of an integer type's range, NaN as 0; integers to the nearest f32. */
export function castValue(value: number, to: 'f32' | 'i32' | 'u32'): number {
  if (to === 'f32') return Math.fround(value);
  const [low, high] = limits[to];
  return Number.isNaN(value) ? 0 : Math.trunc(Math.min(Math.max(value, low), high));
}

/** The same numbers in another type: f32, u32 or i32 to each other. */
const cast: OpDefinition<'cast'> = {
  arity: 1,
  type([x], { to }) {
    const input = need(x);
    expectWord('cast', 'x', input);
    return { dtype: to, shape: input.shape };
  },
  reference: ([x], { to }) => need(x).data.map((value) => castValue(value, to)),
};

export const compareOps = { compare, where, cast };
