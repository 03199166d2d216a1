import { afterAll, describe, expect, test } from 'vitest';
import { GpuBackend } from '../../src/compute/gpu-backend.js';
import { rowsOfPiece } from '../../src/compute/row-pieces.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';

/** As a device whose bindings hold 4,096 numbers. */
class NarrowBackend extends CpuBackend {
  override get maxBindingBytes(): number {
    return 16_384;
  }
}

test('a piece has as many rows as fit with all that belongs to them', () => {
  expect(rowsOfPiece({ rows: 9001, widths: [1, 1], out: 1 }, 4096)).toBe(4096);
  expect(rowsOfPiece({ rows: 4096, widths: [1], out: 1 }, 4096)).toBe(4096);
  expect(rowsOfPiece({ rows: 100, widths: [30, 0], out: 600 }, 4096)).toBe(4);
  expect(rowsOfPiece({ rows: 100, widths: [1300], out: 1 }, 4096)).toBe(3);
  // A row alone is too long: planning says so.
  expect(rowsOfPiece({ rows: 2, widths: [5000], out: 1 }, 4096)).toBe(2);
});

describe('arrays that are larger than a binding', () => {
  const narrow = new NarrowBackend();
  const ops = new GpuBackend({ device: narrow });
  const whole = new GpuBackend({ device: 'cpu' });
  afterAll(async () => {
    await ops.dispose();
    await whole.dispose();
    narrow.dispose();
  });

  const large = Float32Array.from({ length: 9001 }, (_, i) => ((i * 37) % 101) - 50);
  const exact = (fn: (value: number, i: number) => number): Float32Array => Float32Array.from(large, fn);

  test('go through elementwise operations in pieces', async () => {
    expect(await ops.relu(large)).toEqual(exact((value) => Math.max(0, value)));
    expect(
      await ops.vecAdd(
        large,
        exact((_, i) => i),
      ),
    ).toEqual(exact((value, i) => value + i));
  });

  test('are summed, multiplied and searched in pieces', async () => {
    const sum = large.reduce((all, value) => all + value, 0);
    expect(await ops.sum(large)).toBe(sum);
    expect(await ops.reduce('max', large)).toBe(50);
    expect(await ops.reduce('min', large)).toBe(-50);
    expect(await ops.reduce('mean', large)).toBeCloseTo(sum / large.length, 6);
    expect(await ops.dot(large, large)).toBe(large.reduce((all, value) => all + value * value, 0));
    large[5000] = Number.NaN;
    expect(await ops.reduce('max', large)).toBeNaN();
    large[5000] = 0;
  });

  test('go through row operations in whole rows', async () => {
    const rows = large.subarray(0, 9000);
    const sums = await ops.sum(rows, { rows: 3 });
    expect([...sums]).toEqual([0, 1, 2].map((row) => rows.subarray(3000 * row, 3000 * (row + 1)).reduce((all, value) => all + value, 0)));
    const parts = await ops.softmax(rows, { rows: 3 });
    for (const row of [0, 1, 2])
      expect(parts.subarray(3000 * row, 3000 * (row + 1))).toEqual(await ops.softmax(rows.subarray(3000 * row, 3000 * (row + 1)), { rows: 1 }));
    const gain = new Float32Array(3000).fill(2);
    const normed = await ops.rmsNorm(rows, gain, 1e-6);
    expect(normed.subarray(6000)).toEqual(await ops.rmsNorm(rows.subarray(6000), gain, 1e-6));
  });

  test('are multiplied in rows of a, and in rows of a transposed b', async () => {
    const [m, k, n] = [300, 30, 280];
    const [a, b] = [large.subarray(0, m * k), large.subarray(200, 200 + k * n)];
    for (const transposeB of [true, false])
      for (const transposeA of [true, false]) {
        const options = { transposeA, transposeB, alpha: 0.5 };
        expect(await ops.matmul(a, b, m, k, n, options)).toEqual(await whole.matmul(a, b, m, k, n, options));
      }
    expect(await ops.matmul(large, Float32Array.of(2, -1), 9001, 1, 2)).toEqual(await whole.matmul(large, Float32Array.of(2, -1), 9001, 1, 2));
  });
});
