import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type MemoryLayout, rowMajorStrides } from '../../src/core/views/layout.js';
import { TensorView } from '../../src/core/views/tensor-view.js';

function ramp(count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, index) => index);
}

/** A view over 0, 1, 2, ...: every element is its own storage index. */
function counting(shape: readonly number[], layout: MemoryLayout = 'row-major'): TensorView<Float32Array> {
  const { max = -1 } = TensorView.create(shape, { layout }).extent ?? {};
  return TensorView.over(ramp(max + 1), shape, { layout });
}

/** Values of a nested-loop enumeration, last axis fastest. */
function enumerate(shape: readonly number[], value: (index: readonly number[]) => number): number[] {
  if (shape.includes(0)) return [];
  const result: number[] = [];
  const index = shape.map(() => 0);
  for (;;) {
    result.push(value(index));
    let axis = shape.length - 1;
    while (axis >= 0 && index[axis] === (shape[axis] ?? 0) - 1) index[axis--] = 0;
    if (axis < 0) return result;
    index[axis] = (index[axis] ?? 0) + 1;
  }
}

const argumentError = expect.objectContaining({ name: 'ArgumentError', code: 'E_ARGUMENT' });
const shapeError = expect.objectContaining({ name: 'ShapeError', code: 'E_SHAPE_MISMATCH' });

describe('TensorView', () => {
  it('is packed row-major unless told otherwise', () => {
    const view = TensorView.new4d(2, 3, 4, 5);
    expect(view.strides).toEqual([60, 20, 5, 1]);
    expect(view).toMatchObject({ shape: [2, 3, 4, 5], offset: 0, ndim: 4, numel: 120, isEmpty: false, isContiguous: true, layout: 'row-major', dtype: 'f32' });
  });

  it('is made with one to four axes, any other number, and none', () => {
    expect(TensorView.new1d(7)).toMatchObject({ shape: [7], ndim: 1, strides: [1] });
    expect(TensorView.new2d(3, 4)).toMatchObject({ shape: [3, 4], ndim: 2, strides: [4, 1] });
    expect(TensorView.new3d(2, 3, 4)).toMatchObject({ shape: [2, 3, 4], ndim: 3, strides: [12, 4, 1] });
    expect(TensorView.create([2, 2, 2, 2, 2, 3])).toMatchObject({ ndim: 6, numel: 96, strides: [48, 24, 12, 6, 3, 1] });
    const scalar = TensorView.over([42], []);
    expect(scalar).toMatchObject({ ndim: 0, numel: 1, strides: [], isContiguous: true });
    expect(scalar.index()).toBe(42);
  });

  it('keeps trailing axes of size 1', () => {
    expect(TensorView.create([1, 1, 1, 1])).toMatchObject({ ndim: 4, numel: 1, strides: [1, 1, 1, 1] });
    expect(TensorView.create([5, 3, 1, 1])).toMatchObject({ strides: [3, 1, 1, 1], ndim: 4 });
  });

  it('takes strides as they are given', () => {
    const view = TensorView.withStrides([2, 3], [10, 2], { offset: 5 });
    expect(view).toMatchObject({ strides: [10, 2], offset: 5, isContiguous: false });
    expect(view.linearIndex(1, 2)).toBe(19);
  });

  it('tells size and stride of an axis, and refuses axes that are not there', () => {
    const view = TensorView.new3d(2, 3, 4);
    expect([view.dim(0), view.dim(2), view.stride(0), view.stride(1)]).toEqual([2, 4, 12, 4]);
    for (const axis of [3, -1, 0.5, Number.NaN]) {
      expect(() => view.dim(axis)).toThrow(argumentError);
      expect(() => view.stride(axis)).toThrow(argumentError);
    }
  });

  it('slices axis 0 by moving the offset', () => {
    const view = TensorView.create([10, 20]).slice(2, 5);
    expect(view).toMatchObject({ shape: [3, 20], strides: [20, 1], offset: 40 });
  });

  it('slices any axis by moving the offset', () => {
    const view = TensorView.create([10, 20, 30]).sliceDim(1, 5, 15);
    expect(view).toMatchObject({ shape: [10, 10, 30], strides: [600, 30, 1], offset: 150 });
    expect(view.sliceDim(2, 3).offset).toBe(153);
  });

  it('slices with a step', () => {
    const view = counting([10]).slice(1, 10, 4);
    expect([...view.toArray()]).toEqual([1, 5, 9]);
    expect(view.strides).toEqual([4]);
  });

  it('refuses slices outside the axis', () => {
    const view = TensorView.create([4, 6]);
    expect(() => view.slice(0, 5)).toThrow(argumentError);
    expect(() => view.sliceDim(1, 0, 7)).toThrow(argumentError);
    expect(() => view.sliceDim(2, 0, 1)).toThrow(argumentError);
    expect(() => view.slice(-1, 2)).toThrow(argumentError);
    expect(() => view.slice(0, 4, 0)).toThrow(argumentError);
  });

  it('defect: a reversed range is an error, not an underflow', () => {
    expect(() => TensorView.create([10]).slice(5, 2)).toThrow('does not end before it starts, got 5..2');
  });

  it('transposes by exchanging strides', () => {
    const view = TensorView.create([4, 3, 1, 1]).transpose(0, 1);
    expect(view.shape).toEqual([3, 4, 1, 1]);
    expect(view.strides).toEqual([1, 3, 1, 1]);
    expect([...counting([2, 3]).transpose(0, 1).toArray()]).toEqual([0, 3, 1, 4, 2, 5]);
    expect(() => view.transpose(0, 4)).toThrow(argumentError);
  });

  it('defect: a transposed vector is not a column that still says it has one axis', () => {
    expect(() => TensorView.new1d(5).transpose(0, 1)).toThrow(argumentError);
    expect(TensorView.new1d(5).unsqueeze(0).transpose(0, 1)).toMatchObject({ shape: [5, 1], ndim: 2 });
  });

  it('permutes axes', () => {
    const view = counting([2, 3, 4]).permute(2, 0, 1);
    expect(view).toMatchObject({ shape: [4, 2, 3], strides: [1, 12, 4] });
    expect(view.index(3, 1, 2)).toBe(23);
    for (const order of [
      [0, 1],
      [0, 1, 1],
      [0, 1, 3],
    ])
      expect(() => view.permute(...order)).toThrow(argumentError);
  });

  it('is contiguous when packed, not after most slices and transposes', () => {
    const view = TensorView.create([4, 6]);
    expect(view.slice(1, 3).isContiguous).toBe(true);
    expect(view.sliceDim(1, 1, 3).isContiguous).toBe(false);
    expect(view.transpose(0, 1).isContiguous).toBe(false);
    expect(TensorView.create([1, 6]).transpose(0, 1).isContiguous).toBe(true);
  });

  it('reshapes what is contiguous', () => {
    expect(TensorView.create([2, 3, 4]).reshape([6, 4])).toMatchObject({ shape: [6, 4], strides: [4, 1] });
    expect(TensorView.create([24]).reshape([2, 3, 4]).strides).toEqual([12, 4, 1]);
    expect(TensorView.create([]).reshape([1, 1]).strides).toEqual([1, 1]);
    expect(TensorView.create([1, 1]).reshape([]).shape).toEqual([]);
    expect(TensorView.create([0, 3]).reshape([5, 0])).toMatchObject({ shape: [5, 0], isEmpty: true });
  });

  it('refuses to reshape to another number of elements', () => {
    expect(() => TensorView.create([2, 3]).reshape([7])).toThrow(shapeError);
    expect(() => TensorView.create([2, 3]).reshape([2, -3])).toThrow(argumentError);
  });

  it('refuses to reshape what no strides can express, and finds those that do', () => {
    expect(() => TensorView.create([2, 3]).transpose(0, 1).reshape([6])).toThrow('copy it first');
    expect(() => TensorView.create([4, 6]).sliceDim(1, 0, 3).reshape([12])).toThrow(shapeError);
    const split = counting([4, 6]).sliceDim(1, 0, 4).reshape([2, 2, 2, 2]);
    expect(split.strides).toEqual([12, 6, 2, 1]);
    expect(split.index(1, 0, 1, 1)).toBe(15);
  });

  it('defect: a slice that is reshaped keeps its offset and its layout', () => {
    const sliced = counting([4, 6]).slice(2, 4);
    expect(sliced.reshape([3, 4])).toMatchObject({ offset: 12, shape: [3, 4] });
    expect([...sliced.reshape([12]).toArray()]).toEqual([...sliced.toArray()]);
    const column = counting([4, 6], 'column-major').sliceDim(1, 2, 4).reshape([4, 1, 2]);
    expect(column).toMatchObject({ layout: 'column-major', offset: 8, strides: [1, 8, 4] });
  });

  it('squeezes axes of size 1 and keeps the offset', () => {
    const view = TensorView.create([3, 1, 4, 1]).slice(1);
    expect(view.squeeze()).toMatchObject({ shape: [2, 4], strides: [4, 1], offset: 4 });
    expect(view.squeeze(1)).toMatchObject({ shape: [2, 4, 1], strides: [4, 1, 1] });
    expect(() => view.squeeze(0)).toThrow(shapeError);
    expect(TensorView.create([1, 1]).squeeze().shape).toEqual([]);
  });

  it('unsqueezes at every place, beyond four axes too', () => {
    const view = TensorView.create([3, 4]);
    expect(view.unsqueeze(0)).toMatchObject({ shape: [1, 3, 4], strides: [12, 4, 1] });
    expect(view.unsqueeze(1)).toMatchObject({ shape: [3, 1, 4], strides: [4, 4, 1] });
    expect(view.unsqueeze(2)).toMatchObject({ shape: [3, 4, 1], strides: [4, 1, 1] });
    expect(() => view.unsqueeze(3)).toThrow(argumentError);
    expect(TensorView.create([1, 2, 3, 4]).unsqueeze(4).ndim).toBe(5);
  });

  it('broadcasts axes of size 1 and missing ones with stride 0', () => {
    const row = counting([3]).broadcastTo([2, 3]);
    expect(row.strides).toEqual([0, 1]);
    expect([...row.toArray()]).toEqual([0, 1, 2, 0, 1, 2]);
    expect([...counting([2, 1]).broadcastTo([2, 2]).toArray()]).toEqual([0, 0, 1, 1]);
    expect(counting([1]).broadcastTo([0]).isEmpty).toBe(true);
    for (const shape of [[2], [4, 2], [3]]) expect(() => TensorView.create([2, 3]).broadcastTo(shape)).toThrow(shapeError);
  });

  it('flips an axis with a negative stride', () => {
    const view = counting([2, 3]).flip(1);
    expect(view).toMatchObject({ strides: [3, -1], offset: 2, extent: { min: 0, max: 5 } });
    expect([...view.toArray()]).toEqual([2, 1, 0, 5, 4, 3]);
    expect([...view.sliceDim(1, 1).flip(1).toArray()]).toEqual([0, 1, 3, 4]);
    expect(view.sliceDim(1, 3)).toMatchObject({ isEmpty: true });
    expect(() => TensorView.withStrides([3], [-1], { offset: 1 })).toThrow('before its storage');
  });

  it('finds the storage index of an element', () => {
    expect(TensorView.create([2, 3, 4]).linearIndex(1, 2, 3)).toBe(23);
    expect(TensorView.create([10, 20]).slice(2, 5).linearIndex(0, 7)).toBe(47);
  });

  it('defect: coordinates outside the shape are errors, not other elements', () => {
    const view = TensorView.create([2, 3, 4]);
    for (const index of [
      [2, 0, 0],
      [0, 3, 0],
      [0, 0, 4],
      [-1, 0, 0],
      [0.5, 0, 0],
      [0, 0],
    ])
      expect(() => view.linearIndex(...index)).toThrow(argumentError);
  });

  it('may be empty', () => {
    const view = TensorView.create([0, 5]);
    expect(view).toMatchObject({ isEmpty: true, numel: 0, isContiguous: true, extent: undefined });
    expect([...view.linearIndices()]).toEqual([]);
    expect(TensorView.create([4]).slice(4)).toMatchObject({ shape: [0], isEmpty: true });
    expect(() => view.linearIndex(0, 0)).toThrow(argumentError);
  });

  it('refuses sizes and offsets that are none', () => {
    for (const shape of [[-1], [1.5], [Number.NaN], [2 ** 30, 2 ** 30]]) expect(() => TensorView.create(shape)).toThrow(argumentError);
    expect(() => TensorView.create([2], { offset: -1 })).toThrow(argumentError);
    expect(() => TensorView.withStrides([2, 2], [2])).toThrow(shapeError);
    expect(() => TensorView.withStrides([2], [0.5])).toThrow(argumentError);
  });
});

describe('layouts', () => {
  it('defect: column-major changes where the elements are', () => {
    const view = counting([2, 3], 'column-major');
    expect(view.strides).toEqual([1, 2]);
    expect([...view.toArray()]).toEqual([0, 2, 4, 1, 3, 5]);
    expect(view.isContiguous).toBe(false);
    expect(view.transpose(0, 1).isContiguous).toBe(true);
  });

  it('defect: tiles change where the elements are, edges padded to whole tiles', () => {
    const view = counting([3, 5], { tiled: [2, 4] });
    expect([...view.toArray()]).toEqual([0, 1, 2, 3, 8, 4, 5, 6, 7, 12, 16, 17, 18, 19, 24]);
    expect(view.extent).toEqual({ min: 0, max: 24 });
    expect(view.isStrided).toBe(false);
    expect(() => view.strides).toThrow('lies in tiles (tiled 2x4)');
    expect([
      ...counting([2, 3, 5], { tiled: [2, 4] })
        .slice(1)
        .toArray(),
    ]).toEqual([...view.toArray()].map((index) => index + 32));
  });

  it('tiled views are sliced, permuted, flipped, squeezed and broadcast like others', () => {
    const view = counting([5, 7], { tiled: [2, 3] });
    const at = (row: number, column: number): number => view.index(row, column);
    expect([...view.sliceDim(1, 2, 6).transpose(0, 1).flip(0).slice(0, 4, 3).toArray()]).toEqual(
      [5, 2].flatMap((column) => [0, 1, 2, 3, 4].map((row) => at(row, column))),
    );
    expect([...view.slice(3, 4).squeeze().toArray()]).toEqual([0, 1, 2, 3, 4, 5, 6].map((column) => at(3, column)));
    expect([...view.slice(3, 4).broadcastTo([2, 7]).sliceDim(1, 6).toArray()]).toEqual([at(3, 6), at(3, 6)]);
    expect([...view.slice(3, 4).reshape([7, 1]).toArray()]).toEqual([0, 1, 2, 3, 4, 5, 6].map((column) => at(3, column)));
    expect(() => view.reshape([35])).toThrow(shapeError);
  });

  it('refuses tiles of no size and tiled vectors', () => {
    expect(() => TensorView.create([4, 4], { layout: { tiled: [0, 4] } })).toThrow(argumentError);
    expect(() => TensorView.create([4], { layout: { tiled: [2, 2] } })).toThrow(shapeError);
  });

  it('reads a whole tensor in another layout, and no part of one', () => {
    const view = counting([4, 4]);
    expect(view.withLayout('column-major')).toMatchObject({ layout: 'column-major', strides: [1, 4] });
    expect(view.withLayout({ tiled: [2, 2] }).index(0, 2)).toBe(4);
    expect(() => view.transpose(0, 1).withLayout('column-major')).toThrow(shapeError);
    expect(() => view.sliceDim(1, 0, 2).withLayout('column-major')).toThrow(shapeError);
  });
});

describe('linked views', () => {
  it('refuse data too short for what they reach', () => {
    expect(() => TensorView.over(ramp(5), [2, 3])).toThrow('past the 5 elements');
    expect(() => TensorView.over(ramp(6), [2, 3], { offset: 1 })).toThrow(shapeError);
    expect(() => TensorView.over(ramp(15), [3, 5], { layout: { tiled: [2, 4] } })).toThrow(shapeError);
    expect(TensorView.over(ramp(3), [2, 3, 0]).isEmpty).toBe(true);
  });

  it('hold any handle, and move to another', () => {
    const buffer = { label: 'on a device' };
    const view = TensorView.over(buffer, [4, 4], { dtype: 'f16' }).slice(1);
    expect(view.data).toBe(buffer);
    expect(view.dtype).toBe('f16');
    expect(view.withData(ramp(16)).index(0, 0)).toBe(4);
    expect(String(view)).toBe('f16[3, 4] row-major at 4');
  });
});

const sizes = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 2, maxLength: 4 });
const layouts = fc.constantFrom<MemoryLayout>('row-major', 'column-major', { tiled: [2, 3] });

describe('properties', () => {
  it('every layout gives each element a place of its own, inside the extent', () => {
    fc.assert(
      fc.property(sizes, layouts, (shape, layout) => {
        const view = TensorView.create(shape, { layout });
        const indices = [...view.linearIndices()];
        expect(new Set(indices).size).toBe(view.numel);
        expect(indices).toEqual(enumerate(shape, (index) => view.linearIndex(...index)));
        expect(view.extent).toEqual({ min: Math.min(...indices), max: Math.max(...indices) });
      }),
    );
  });

  it('slices, flips and transposes commute with reading', () => {
    fc.assert(
      fc.property(sizes, layouts, fc.nat(), fc.nat(), fc.nat(), (shape, layout, a, b, c) => {
        const view = counting(shape, layout);
        const dim = a % shape.length;
        const size = view.dim(dim);
        const start = b % size;
        const other = c % shape.length;
        const changed = view.sliceDim(dim, start).flip(dim).transpose(dim, other);
        const got = [...changed.toArray()];
        const expected = enumerate(changed.shape, (index) => {
          const back = [...index].with(dim, index[other] ?? 0).with(other, index[dim] ?? 0);
          return view.index(...back.with(dim, size - 1 - (back[dim] ?? 0)));
        });
        expect(got).toEqual(expected);
      }),
    );
  });

  it('a reshape keeps the order of the elements, or is refused', () => {
    fc.assert(
      fc.property(sizes, layouts, fc.integer({ min: 1, max: 6 }), fc.boolean(), (shape, layout, factor, turned) => {
        const base = counting(shape, layout);
        const view = turned ? base.transpose(0, shape.length - 1) : base;
        const target = view.numel % factor === 0 ? [factor, 1, view.numel / factor] : [view.numel, 1];
        let reshaped: TensorView<Float32Array>;
        try {
          reshaped = view.reshape(target);
        } catch (error) {
          expect(error).toEqual(shapeError);
          expect(view.isContiguous).toBe(false);
          return;
        }
        expect([...reshaped.toArray()]).toEqual([...view.toArray()]);
      }),
    );
  });

  it('packed strides are those of nested loops', () => {
    fc.assert(
      fc.property(sizes, (shape) => {
        let next = 0;
        expect(enumerate(shape, (index) => rowMajorStrides(shape).reduce((sum, stride, axis) => sum + stride * (index[axis] ?? 0), 0))).toEqual(
          enumerate(shape, () => next++),
        );
      }),
    );
  });
});
