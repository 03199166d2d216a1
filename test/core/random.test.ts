import { describe, expect, test } from 'vitest';
import { philox, seedKey, uniform } from '../../src/core/random.js';

type Words = readonly [number, number, number, number];

function hex(key: readonly [number, number], counter: Words): string {
  const out = new Uint32Array(4);
  philox(out, key, counter);
  return [...out].map((word) => word.toString(16).padStart(8, '0')).join(' ');
}

describe('philox', () => {
  // The known answers that Random123 publishes for philox4x32-10.
  test.each<[string, readonly [number, number], Words, string]>([
    ['zeros', [0, 0], [0, 0, 0, 0], '6627e8d5 e169c58d bc57ac4c 9b00dbd8'],
    ['ones', [0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], '408f276d 41c83b0e a20bc7c6 6d5451fd'],
    ['digits of pi', [0xa4093822, 0x299f31d0], [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], 'd16cfe09 94fdcceb 5001e420 24126ea1'],
  ])('answers %s as published', (_, key, counter, wanted) => {
    expect(hex(key, counter)).toBe(wanted);
  });

  test('every word of key and counter counts', () => {
    const base = hex([1, 2], [3, 4, 5, 6]);
    const others = [
      hex([0, 2], [3, 4, 5, 6]),
      hex([1, 0], [3, 4, 5, 6]),
      ...[0, 1, 2, 3].map((i) => hex([1, 2], [3, 4, 5, 6].map((w, j) => w + Number(i === j)) as unknown as Words)),
    ];
    expect(new Set([base, ...others]).size).toBe(7);
  });
});

test('seeds up to 2^53 - 1 have keys of their own', () => {
  expect(seedKey(0)).toEqual([0, 0]);
  expect(seedKey(2 ** 32 + 5)).toEqual([5, 1]);
  expect(seedKey(Number.MAX_SAFE_INTEGER)).toEqual([0xffffffff, 0x1fffff]);
});

test('uniform numbers stay inside (0, 1), in f32 too', () => {
  for (const word of [0, 255, 256, 0x80000000, 0xffffffff]) {
    const value = uniform(word);
    expect(value).toBeGreaterThan(0);
    expect(Math.fround(value)).toBeLessThan(1);
    expect(Math.fround(value)).toBe(value);
  }
});
