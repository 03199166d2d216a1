import { describe, expect, test } from 'vitest';
import { ropeTable } from '../../src/model/rope-table.js';

const row = (table: Float32Array, position: number, rotated: number): number[] => [...table.subarray(position * rotated, (position + 1) * rotated)];

describe('ropeTable', () => {
  test('begins with no turn, and has a unit vector for every pair', () => {
    const table = ropeTable({ positions: 300, rotated: 8, base: 10_000, positionScale: 1 });
    expect(table).toHaveLength(300 * 8);
    expect(row(table, 0, 8)).toEqual([1, 0, 1, 0, 1, 0, 1, 0]);
    for (let i = 0; i < table.length; i += 2) expect(Math.hypot(table[i] ?? 0, table[i + 1] ?? 0)).toBeCloseTo(1, 6);
  });

  // cos and sin of 100,000 radians, and of 1,234 / 10,000^(1/4) = 123.4, to ten digits.
  test('is right to the last bit of f32 far out', () => {
    const table = ropeTable({ positions: 100_001, rotated: 2, base: 10_000, positionScale: 1 });
    expect(row(table, 100_000, 2)).toEqual([Math.fround(-0.9993608074), Math.fround(0.035748798)].map((value) => expect.closeTo(value, 7)));
    const slow = ropeTable({ positions: 1235, rotated: 8, base: 10_000, positionScale: 1 });
    expect(row(slow, 1234, 8).slice(2, 4)).toEqual([expect.closeTo(Math.cos(123.4), 7), expect.closeTo(Math.sin(123.4), 7)]);
  });

  test('linear scaling divides positions, factors divide frequencies', () => {
    const plain = ropeTable({ positions: 9, rotated: 4, base: 100, positionScale: 1 });
    const scaled = ropeTable({ positions: 9, rotated: 4, base: 100, positionScale: 4 });
    expect(row(scaled, 8, 4)).toEqual(row(plain, 2, 4));
    const factored = ropeTable({ positions: 9, rotated: 4, base: 100, positionScale: 1, factors: Float32Array.of(1, 8) });
    expect(row(factored, 8, 4)).toEqual([...row(plain, 8, 4).slice(0, 2), ...row(plain, 1, 4).slice(2)]);
  });
});
