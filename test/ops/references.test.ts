import { describe, expect, test } from 'vitest';
import { erf, unaryFunctions, unaryParameters } from '../../src/ops/elementwise.js';
import { reference } from './support.js';

const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];

describe('erf', () => {
  // Abramowitz and Stegun, table 7.1, and the published values of erf and erfc, to f64.
  test.each([
    [0.1, 0.1124629160182849],
    [0.5, 0.5204998778130465],
    [1, 0.8427007929497149],
    [2, 0.9953222650189527],
    [2.9, 0.9999589021219005],
    [3, 0.9999779095030014],
    [4, 0.9999999845827421],
  ])('of %d is right to 5e-16', (x, wanted) => {
    expect(Math.abs(erf(x) - wanted)).toBeLessThanOrEqual(5e-16);
    expect(erf(-x)).toBe(-erf(x));
  });

  test('has its limits, signed zeros and NaN', () => {
    expect([erf(0), erf(-0), erf(inf), erf(-inf), erf(nan), erf(7)]).toEqual([0, -0, 1, -1, nan, 1]);
    expect(erf(1e-300)).toBeCloseTo((2 / Math.sqrt(Math.PI)) * 1e-300, 310);
  });

  test('does not jump where the method changes', () => {
    expect(Math.abs(erf(3 - 1e-12) - erf(3 + 1e-12))).toBeLessThan(1e-15);
    expect(Math.abs(erf(6 - 1e-12) - erf(6 + 1e-12))).toBeLessThan(1e-15);
  });
});

describe('unary functions', () => {
  const scalars = { a: 0.5, b: 2 };

  test.each(Object.keys(unaryFunctions) as (keyof typeof unaryFunctions)[])('%s lets NaN through', (fn) => {
    expect(unaryFunctions[fn](nan, scalars.a, scalars.b)).toBeNaN();
  });

  test('gates are 0 where they close, and pass what is large', () => {
    for (const fn of ['silu', 'gelu', 'geluErf'] as const) {
      expect(unaryFunctions[fn](-inf, 0, 0)).toBe(-0);
      expect(unaryFunctions[fn](inf, 0, 0)).toBe(inf);
      expect(unaryFunctions[fn](-0, 0, 0)).toBe(-0);
      expect(unaryFunctions[fn](1e30, 0, 0)).toBe(1e30);
    }
    expect(unaryFunctions.sigmoid(-800, 0, 0)).toBe(0);
    expect(unaryFunctions.silu(1, 0, 0)).toBeCloseTo(0.731058578630005, 14);
  });

  test('GELU by erf and by tanh are two functions', () => {
    expect(unaryFunctions.geluErf(1, 0, 0)).toBeCloseTo(0.8413447461, 10);
    expect(unaryFunctions.gelu(1, 0, 0)).toBeCloseTo(0.8411919906, 10);
  });

  test('round goes to the nearest, ties to even, and is not the identity', () => {
    const cases = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999999999999994, 1e17, inf];
    expect(cases.map((x) => unaryFunctions.round(x, 0, 0))).toEqual([0, 2, 2, -0, -2, -2, 0, 1e17, inf]);
  });

  test('scalar parameters do what they say', () => {
    expect(unaryFunctions.leakyRelu(-2, 0.1, 0)).toBeCloseTo(-0.2, 15);
    expect(unaryFunctions.elu(-1, 2, 0)).toBeCloseTo(2 * (Math.exp(-1) - 1), 15);
    expect([-5, 0, 5].map((x) => unaryFunctions.clip(x, -1, 2))).toEqual([-1, 0, 2]);
    expect(Object.keys(unaryParameters)).toEqual(['leakyRelu', 'elu', 'clip', 'scale']);
  });
});

describe('binary', () => {
  test('maximum and minimum keep NaN, order the zeros', () => {
    expect(reference('binary', { fn: 'max' }, [[4], [1, nan, -0, inf]], [[4], [nan, 1, 0, -inf]])).toEqual([nan, nan, 0, inf]);
    expect(reference('binary', { fn: 'min' }, [[2], [-0, 3]], [[2], [0, nan]])).toEqual([-0, nan]);
  });

  test('broadcasts in the middle, not only at the end', () => {
    const x = Array.from({ length: 8 }, (_, i) => i);
    // [N, C, H, W] = [1, 2, 2, 2] plus [1, C, 1, 1].
    expect(
      reference(
        'binary',
        { fn: 'add' },
        [[1, 2, 2, 2], x],
        [
          [1, 2, 1, 1],
          [10, 100],
        ],
      ),
    ).toEqual([10, 11, 12, 13, 104, 105, 106, 107]);
    expect(
      reference(
        'binary',
        { fn: 'sub' },
        [
          [2, 1],
          [1, 2],
        ],
        [
          [1, 3],
          [10, 20, 30],
        ],
      ),
    ).toEqual([-9, -19, -29, -8, -18, -28]);
  });

  test('swiglu takes the gate first', () => {
    const [y = nan] = reference('swiglu', {}, [[1], [1]], [[1], [3]]);
    expect(y).toBeCloseTo(3 * 0.731058578630005, 13);
  });
});

describe('linear and its neighbours', () => {
  test('linear is x wᵀ plus bias plus residual', () => {
    const [x, w] = [
      [
        [1, 2],
        [1, 2],
      ],
      [
        [3, 2],
        [1, 0, 0, 1, 1, 1],
      ],
    ] as const;
    expect(reference('linear', { bias: false, residual: false }, x, w)).toEqual([1, 2, 3]);
    expect(
      reference(
        'linear',
        { bias: true, residual: true },
        x,
        w,
        [[3], [10, 20, 30]],
        [
          [1, 3],
          [0.5, 0.5, 0.5],
        ],
      ),
    ).toEqual([11.5, 22.5, 33.5]);
  });

  test('rmsNorm works on each head by itself and scales by the gain', () => {
    const y = reference(
      'rmsNorm',
      { eps: 0 },
      [
        [1, 2, 2],
        [3, 4, 0, 5],
      ],
      [[2], [1, 2]],
    );
    const [a, b] = [Math.sqrt(12.5), Math.sqrt(12.5)];
    for (const [i, wanted] of [3 / a, 8 / a, 0, 10 / b].entries()) expect(y[i]).toBeCloseTo(wanted, 14);
    expect(
      reference(
        'rmsNorm',
        { eps: 1e-6 },
        [
          [1, 2],
          [0, 0],
        ],
        [[2], [1, 1]],
      ),
    ).toEqual([0, 0]);
  });

  test('gatherRows repeats and reorders rows', () => {
    expect(
      reference(
        'gatherRows',
        {},
        [
          [3, 2],
          [1, 2, 3, 4, 5, 6],
        ],
        [[3], [2, 0, 2], 'u32'],
      ),
    ).toEqual([5, 6, 1, 2, 5, 6]);
  });

  test('argmax takes the first of equals, NaN only where there is nothing else', () => {
    const rows = [1, 3, 3, nan, 2, nan, nan, nan, nan, -inf, -inf, nan, -0, 0, -1];
    expect(reference('argmax', {}, [[5, 3], rows])).toEqual([1, 1, 0, 0, 0]);
  });
});
