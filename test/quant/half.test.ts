import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bfloatToFloat, floatToBfloat, floatToHalf, halfToFloat } from '../../src/quant/index.js';

/** The f16 nearest to |value|, by comparing with both neighbours in f64. */
function nearestHalf(value: number): number {
  const magnitude = Math.abs(value);
  let low = 0;
  let high = 0x7c00;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (halfToFloat(middle) <= magnitude) low = middle;
    else high = middle;
  }
  // Past the largest f16 (65504) the next step would be 65536: that is what infinity stands for in rounding.
  const above = high === 0x7c00 ? 65536 : halfToFloat(high);
  const down = magnitude - halfToFloat(low);
  const up = above - magnitude;
  const bits = down < up || (down === up && low % 2 === 0) ? low : high;
  return Object.is(Math.sign(value), -1) || Object.is(value, -0) ? bits | 0x8000 : bits;
}

describe('f16', () => {
  it('reads the landmarks', () => {
    const landmarks: [number, number][] = [
      [0x0000, 0],
      [0x8000, -0],
      [0x0001, 2 ** -24],
      [0x03ff, 1023 * 2 ** -24],
      [0x0400, 2 ** -14],
      [0x3c00, 1],
      [0xc000, -2],
      [0x7bff, 65504],
      [0x7c00, Infinity],
      [0xfc00, -Infinity],
      [0x7e00, NaN],
    ];
    for (const [bits, value] of landmarks) expect(halfToFloat(bits)).toBe(value);
  });

  it('returns every bit pattern that is not a NaN', () => {
    for (let bits = 0; bits < 65536; bits++) {
      const value = halfToFloat(bits);
      if (Number.isNaN(value)) expect(floatToHalf(value) & 0x7fff).toBe(0x7e00);
      else if (floatToHalf(value) !== bits) expect.fail(`0x${bits.toString(16)} came back as 0x${floatToHalf(value).toString(16)}`);
    }
  });

  it('rounds every f32 to the nearest f16, ties to even', () => {
    const f32 = fc.float({ noNaN: true, noDefaultInfinity: true });
    const nearRange = fc.float({ noNaN: true, min: -Math.fround(1e5), max: Math.fround(1e5) });
    const ties = fc.integer({ min: 0, max: 0x7bfe }).map((bits) => (halfToFloat(bits) + halfToFloat(bits + 1)) / 2);
    const subnormal = fc.float({ noNaN: true, min: 0, max: Math.fround(2 ** -13) });
    fc.assert(
      fc.property(fc.oneof(f32, nearRange, ties, subnormal), (value) => floatToHalf(value) === nearestHalf(value)),
      { numRuns: 20000 },
    );
    expect(floatToHalf(65519.99)).toBe(0x7bff);
    expect(floatToHalf(65520)).toBe(0x7c00);
    expect(floatToHalf(2 ** -25)).toBe(0);
    expect(floatToHalf(Math.fround(2 ** -25 * 1.000001))).toBe(1);
  });
});

describe('bf16', () => {
  it('returns every bit pattern that is not a NaN, and rounds ties to even', () => {
    for (let bits = 0; bits < 65536; bits++) {
      const value = bfloatToFloat(bits);
      if (!Number.isNaN(value) && floatToBfloat(value) !== bits) expect.fail(`0x${bits.toString(16)} came back as 0x${floatToBfloat(value).toString(16)}`);
    }
    expect(Number.isNaN(bfloatToFloat(floatToBfloat(NaN)))).toBe(true);
    expect(floatToBfloat(1 + 2 ** -8)).toBe(0x3f80);
    expect(floatToBfloat(1 + 3 * 2 ** -8)).toBe(0x3f82);
    expect(floatToBfloat(3.4e38)).toBe(0x7f80);
  });
});
