import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TILE_SIZE, tiledMax2d, tiledMin2d, tiledReduce2d, tiledReducePartial, tiledSum2d } from '../../src/compute/tiled/reduce.js';
import { MaxOp, MinOp, type ReduceOp, SumOp } from '../../src/compute/tiled/reduce-op.js';
import { TensorView } from '../../src/core/views/tensor-view.js';

const argumentError = expect.objectContaining({ name: 'ArgumentError', code: 'E_ARGUMENT' });
const shapeError = expect.objectContaining({ name: 'ShapeError', code: 'E_SHAPE_MISMATCH' });

function ramp(count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, index) => index);
}

describe('ReduceOp', () => {
  it('has identities that change nothing', () => {
    for (const op of [SumOp, MaxOp, MinOp]) {
      for (const x of [0, 1.5, -2.25, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) expect(op.combine(op.identity, x)).toBe(x);
    }
  });

  it('sums in f32, NaN included', () => {
    expect(SumOp.combine(16_777_216, 1)).toBe(16_777_216);
    expect(SumOp.combine(1, Number.NaN)).toBeNaN();
    expect(SumOp.combine(Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY)).toBeNaN();
  });

  it('passes over NaN in maxima and minima', () => {
    expect([MaxOp.combine(Number.NaN, 3), MaxOp.combine(3, Number.NaN), MaxOp.combine(Number.NaN, Number.NaN)]).toEqual([3, 3, Number.NEGATIVE_INFINITY]);
    expect([MinOp.combine(Number.NaN, 3), MinOp.combine(3, Number.NaN), MinOp.combine(Number.NaN, Number.NaN)]).toEqual([3, 3, Number.POSITIVE_INFINITY]);
  });

  it('orders zeros', () => {
    expect([MaxOp.combine(-0, 0), MaxOp.combine(0, -0), MinOp.combine(0, -0), MinOp.combine(-0, 0)]).toEqual([0, 0, -0, -0]);
  });
});

describe('tiled sums', () => {
  it.each([
    [4, 4],
    [16, 16],
    [32, 32],
    [20, 20],
    [100, 5],
    [5, 100],
    [17, 17],
    [50, 20],
  ])('of a ramp of %i x %i are those of whole numbers', (width, height) => {
    const count = width * height;
    expect(tiledSum2d(ramp(count), width, height)).toBe((count * (count - 1)) / 2);
  });

  it('of 64 x 64 ones are 4096', () => {
    expect(tiledSum2d(new Float32Array(4096).fill(1), 64, 64)).toBe(4096);
  });

  it('have one partial per tile', () => {
    expect([...tiledReducePartial(SumOp, new Float32Array(1024).fill(1), 32, 32)]).toEqual([256, 256, 256, 256]);
    expect([...tiledReducePartial(SumOp, new Float32Array(400).fill(1), 20, 20)]).toEqual([256, 64, 64, 16]);
    expect(TILE_SIZE).toBe(16);
  });

  it('order partials row-major by tile', () => {
    expect([...tiledReducePartial(MaxOp, ramp(33 * 17), 33, 17)]).toEqual([15 * 33 + 15, 15 * 33 + 31, 15 * 33 + 32, 16 * 33 + 15, 16 * 33 + 31, 16 * 33 + 32]);
  });

  it('follow the tree, which decides their last bits', () => {
    // 2^24 + 1 is lost; the tree adds lanes 1 and 9 first.
    const row = new Float32Array(16);
    row[0] = 16_777_216;
    row[1] = 1;
    row[9] = 1;
    expect(tiledSum2d(row, 16, 1)).toBe(16_777_218);
    row[9] = 0;
    row[8] = 1;
    expect(tiledSum2d(row, 16, 1)).toBe(16_777_216);
  });
});

describe('tiled maxima and minima', () => {
  it('of 16 x 16', () => {
    expect([tiledMax2d(ramp(256), 16, 16), tiledMin2d(ramp(256), 16, 16)]).toEqual([255, 0]);
  });

  it('of negative numbers alone are not the padding', () => {
    const data = ramp(99).map((x) => -x - 1);
    expect([tiledMax2d(data, 9, 11), tiledMin2d(data, 9, 11)]).toEqual([-1, -99]);
    expect(
      tiledMin2d(
        ramp(99).map((x) => x + 1),
        9,
        11,
      ),
    ).toBe(1);
  });

  it('of one element are that element', () => {
    expect([tiledSum2d([42], 1, 1), tiledMax2d([42], 1, 1), tiledMin2d([42], 1, 1)]).toEqual([42, 42, 42]);
  });

  it('defect: of -Infinity alone are -Infinity, whatever the length', () => {
    const data = new Float32Array(255).fill(Number.NEGATIVE_INFINITY);
    expect(tiledMax2d(data, 15, 17)).toBe(Number.NEGATIVE_INFINITY);
    expect(tiledMin2d(data.fill(Number.POSITIVE_INFINITY), 15, 17)).toBe(Number.POSITIVE_INFINITY);
  });
});

describe('arguments of tiled reductions', () => {
  it('give identities where there is nothing', () => {
    for (const [width, height] of [
      [0, 0],
      [0, 5],
      [5, 0],
      [4, 4],
    ] as const) {
      expect([tiledSum2d([], width, height), tiledMax2d([], width, height), tiledMin2d([], width, height)]).toEqual([
        0,
        Number.NEGATIVE_INFINITY,
        Number.POSITIVE_INFINITY,
      ]);
      expect(tiledReducePartial(SumOp, [], width, height)).toHaveLength(0);
    }
    expect(tiledSum2d([1, 2, 3], 0, 3)).toBe(0);
  });

  it('defect: data too short are an error, not a panic; longer data are read in part', () => {
    expect(() => tiledSum2d(ramp(15), 4, 4)).toThrow('width 4 and height 4 has 16 elements, got 15');
    expect(tiledSum2d(ramp(20), 4, 4)).toBe(120);
  });

  it('must be whole numbers, or a matrix alone', () => {
    for (const width of [-1, 1.5, Number.NaN]) expect(() => tiledSum2d(ramp(16), width, 4)).toThrow(argumentError);
    const view = TensorView.over(ramp(24), [2, 3, 4]);
    expect(() => tiledSum2d(view)).toThrow(shapeError);
    expect(tiledSum2d(view.reshape([6, 4]))).toBe(276);
    expect(() => (tiledSum2d as (...args: unknown[]) => number)(view.reshape([6, 4]), 4, 6)).toThrow(argumentError);
  });

  it('may be views of any layout', () => {
    const matrix = TensorView.over(ramp(40 * 24), [40, 24]);
    const slice = matrix.slice(3, 37).sliceDim(1, 2, 21);
    const copy = TensorView.over(slice.toArray(), slice.shape);
    for (const op of [SumOp, MaxOp, MinOp]) {
      expect(tiledReducePartial(op, slice)).toEqual(tiledReducePartial(op, copy));
      expect(tiledReducePartial(op, slice.transpose(0, 1))).toEqual(tiledReducePartial(op, TensorView.over(slice.transpose(0, 1).toArray(), [19, 34])));
    }
    const tiled = TensorView.over(ramp(40 * 24), [40, 20], { layout: { tiled: [8, 8] } });
    expect(tiledReduce2d(SumOp, tiled)).toBe(tiled.toArray().reduce((a, b) => a + b));
  });
});

describe('properties', () => {
  const matrix = fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 })).chain(([width, height]) =>
    fc.record({
      width: fc.constant(width),
      height: fc.constant(height),
      data: fc.float32Array({ minLength: width * height, maxLength: width * height, noNaN: true, noDefaultInfinity: true, min: -1000, max: 1000 }),
    }),
  );

  it('maxima and minima are exact, sums within their rounding', () => {
    fc.assert(
      fc.property(matrix, ({ width, height, data }) => {
        expect(tiledMax2d(data, width, height)).toBe(data.reduce((a, b) => Math.max(a, b)));
        expect(tiledMin2d(data, width, height)).toBe(data.reduce((a, b) => Math.min(a, b)));
        const sum = data.reduce((a, b) => a + b, 0);
        const scale = data.reduce((a, b) => a + Math.abs(b), 0);
        expect(Math.abs(tiledSum2d(data, width, height) - sum)).toBeLessThanOrEqual(1e-6 * scale);
      }),
      { numRuns: 40 },
    );
  });

  it('every partial is that of its tile alone', () => {
    fc.assert(
      fc.property(matrix, fc.constantFrom<ReduceOp>(SumOp, MaxOp, MinOp), ({ width, height, data }, op) => {
        const view = TensorView.over(data, [height, width]);
        const across = Math.ceil(width / TILE_SIZE);
        const alone = Array.from(tiledReducePartial(op, view), (_, index) => {
          const top = Math.floor(index / across) * TILE_SIZE;
          const left = (index % across) * TILE_SIZE;
          const tile = view.slice(top, Math.min(top + TILE_SIZE, height)).sliceDim(1, left, Math.min(left + TILE_SIZE, width));
          return tiledReducePartial(op, tile)[0];
        });
        expect([...tiledReducePartial(op, view)]).toEqual(alone);
      }),
      { numRuns: 40 },
    );
  });
});
