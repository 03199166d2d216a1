import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type EigenOptions, type EigenResult, symmetricEigen } from '../../src/compute/eigen.js';
import { AbortedError, ArgumentError, ShapeError } from '../../src/core/errors.js';
import { jacobiCheckKernel, jacobiRoundKernel } from '../../src/kernels/jacobi.js';
import { seededRandom } from '../../src/ops/cases/weight-data.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { eigenErrors, symmetricMatrix } from '../support/eigen-errors.js';

const backend = new CpuBackend();
const random = seededRandom(3);

function eigen(matrix: ArrayLike<number>, n: number, options?: EigenOptions): Promise<EigenResult> {
  return symmetricEigen(backend, Float32Array.from(matrix), n, options);
}

async function errorOf(matrix: ArrayLike<number>, n: number, options?: EigenOptions): Promise<unknown> {
  return eigen(matrix, n, options).then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe('symmetricEigen on the CPU', () => {
  it('knows [[3, 1], [1, 3]]', async () => {
    const { values, vectors, ...rest } = await eigen([3, 1, 1, 3], 2, { sorted: 'descending' });
    expect(values).toEqual(Float32Array.of(4, 2));
    const [a = 0, b = 0, c = 0, d = 0] = vectors;
    // Columns: (1, 1) and (1, -1), over the root of 2, up to their signs.
    expect(Math.abs(a)).toBeCloseTo(Math.SQRT1_2, 7);
    expect(c).toBeCloseTo(a, 7);
    expect(d).toBeCloseTo(-b, 7);
    expect(rest).toEqual({ converged: true, sweeps: 1, residual: 0, backend: 'cpu' });
  });

  it.each([1, 2, 3, 10, 50, 64])('decomposes random matrices, n = %i', async (n) => {
    const matrix = symmetricMatrix(n, random);
    const result = await eigen(matrix, n);
    expect(result.converged).toBe(true);
    expect(result.residual).toBeLessThanOrEqual(1e-12);
    const errors = eigenErrors(matrix, n, result);
    expect(errors.equation).toBeLessThan(1e-5);
    expect(errors.reconstruction).toBeLessThan(1e-6);
    expect(errors.orthogonality).toBeLessThan(1e-7);
  });

  it('sorts the eigenvalues of a dominant 100 x 100 matrix, vectors with them', async () => {
    const matrix = symmetricMatrix(100, random, 100);
    const down = await eigen(matrix, 100, { sorted: 'descending' });
    const up = await eigen(matrix, 100, { sorted: 'ascending' });
    expect(down.values).toEqual(down.values.toSorted((a, b) => b - a));
    expect(up.values).toEqual(down.values.toReversed());
    for (const result of [down, up]) {
      const errors = eigenErrors(matrix, 100, result);
      expect(errors.equation * 101).toBeLessThan(1e-4);
      expect(errors.reconstruction * 101).toBeLessThan(1e-5);
    }
  });

  it('keeps eigenvalues in the order of the diagonal unless asked', async () => {
    expect((await eigen([1, 0, 0, 0, 3, 0, 0, 0, 2], 3)).values).toEqual(Float32Array.of(1, 3, 2));
  });

  it('takes diagonal matrices, zeros and nothing', async () => {
    const identity = Float32Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1);
    expect(await eigen([5, 0, 0, 0, -1, 0, 0, 0, 5], 3)).toEqual({
      values: Float32Array.of(5, -1, 5),
      vectors: identity,
      converged: true,
      sweeps: 0,
      residual: 0,
      backend: 'cpu',
    });
    expect(await eigen(new Float32Array(9), 3)).toMatchObject({ values: new Float32Array(3), vectors: identity, converged: true, residual: 0 });
    expect(await eigen([], 0)).toMatchObject({ values: new Float32Array(), vectors: new Float32Array(), converged: true });
  });

  it('keeps the vectors of equal eigenvalues orthogonal', async () => {
    // All ones: n once, and 0.
    const ones = new Float32Array(400).fill(1);
    const result = await eigen(ones, 20, { sorted: 'descending' });
    expect(result.values[0]).toBeCloseTo(20, 5);
    expect(result.values.subarray(1).every((value) => Math.abs(value) < 1e-6)).toBe(true);
    expect(eigenErrors(ones, 20, result).orthogonality).toBeLessThan(1e-7);
  });

  it('holds for any symmetric matrix: orthonormal columns, A = V diag(values) V^T', async () => {
    // Eigenvalues of subnormal numbers would be rounded to few digits.
    const element = fc.float({ noNaN: true, min: -1000, max: 1000 }).map((x) => (Math.abs(x) < 1e-30 ? 0 : x));
    const matrices = fc.integer({ min: 1, max: 6 }).chain((n) =>
      fc.array(element, { minLength: n * n, maxLength: n * n }).map((elements) => ({
        n,
        matrix: Float32Array.from(elements, (_, index) => elements[Math.min(index, (index % n) * n + Math.floor(index / n))] ?? 0),
      })),
    );
    await fc.assert(
      fc.asyncProperty(matrices, async ({ n, matrix }) => {
        const result = await symmetricEigen(backend, matrix, n);
        expect(result.converged).toBe(true);
        const errors = eigenErrors(matrix, n, result);
        expect(errors.reconstruction).toBeLessThan(1e-5);
        expect(errors.orthogonality).toBeLessThan(1e-6);
      }),
      { numRuns: 100 },
    );
  });
});

describe('what eigendecompositions of this kind get wrong', () => {
  it('does not depend on the scale of the matrix', async () => {
    const matrix = symmetricMatrix(10, random);
    const plain = await eigen(matrix, 10);
    for (const scale of [2 ** -110, 2 ** 110]) {
      const scaled = await eigen(
        matrix.map((x) => x * scale),
        10,
      );
      expect(scaled.vectors).toEqual(plain.vectors);
      expect(scaled.values).toEqual(plain.values.map((x) => x * scale));
      expect(scaled.sweeps).toBe(plain.sweeps);
    }
  });

  it('says when it has not converged, and how far it came', async () => {
    const matrix = symmetricMatrix(20, random);
    const one = await eigen(matrix, 20, { maxSweeps: 1 });
    expect(one).toMatchObject({ converged: false, sweeps: 1 });
    const two = await eigen(matrix, 20, { maxSweeps: 2 });
    expect(two.residual).toBeGreaterThan(1e-12);
    expect(two.residual).toBeLessThan(one.residual);
    const loose = await eigen(matrix, 20, { tolerance: two.residual });
    expect(loose.converged).toBe(true);
    expect(loose.residual).toBeLessThanOrEqual(two.residual);
    expect(loose.sweeps).toBeLessThan((await eigen(matrix, 20)).sweeps);
  });

  it('refuses an asymmetric matrix and names the element', async () => {
    const matrix = Float32Array.of(1, 2, 3, 2, 1, 4, 3.5, 4, 1);
    const error = await errorOf(matrix, 3);
    expect(error).toBeInstanceOf(ArgumentError);
    expect(error).toMatchObject({ argument: 'matrix', message: expect.stringMatching(/\[0, 2\] is 3 and \[2, 0\] is 3\.5/) });
    const mean = await eigen(matrix, 3, { symmetryTolerance: 0.2 });
    expect(mean.values).toEqual((await eigen([1, 2, 3.25, 2, 1, 4, 3.25, 4, 1], 3)).values);
    expect(await errorOf([1, 2, 2 + 1e-6, 1], 2)).toBeUndefined();
    expect(await errorOf([1, 2, 2 + 1e-6, 1], 2, { symmetryTolerance: 0 })).toBeInstanceOf(ArgumentError);
  });

  it('gives empty arrays for n = 0', async () => {
    const { values, vectors } = await eigen([], 0);
    expect([values.length, vectors.length]).toEqual([0, 0]);
  });

  it('refuses what is no square matrix, NaN and infinities', async () => {
    expect(await errorOf([1, 2, 3], 2)).toBeInstanceOf(ShapeError);
    expect(await errorOf([1, 2, 3, 4], 1)).toBeInstanceOf(ShapeError);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(await errorOf([1, bad, bad, 1], 2)).toMatchObject({ name: 'ArgumentError', message: expect.stringMatching(/\[0, 1\] is (NaN|Infinity)/) });
    }
  });

  it.each<[string, EigenOptions, number]>([
    ['n', {}, -1],
    ['n', {}, 1.5],
    ['tolerance', { tolerance: Number.NaN }, 2],
    ['tolerance', { tolerance: -1 }, 2],
    ['maxSweeps', { maxSweeps: 1.5 }, 2],
    ['symmetryTolerance', { symmetryTolerance: -1 }, 2],
    ['sorted', { sorted: 'up' as 'ascending' }, 2],
  ])('refuses a wrong %s', async (argument, options, n) => {
    expect(await errorOf([2, 1, 1, 2], n, options)).toMatchObject({ name: 'ArgumentError', argument });
  });

  it('stops at a signal', async () => {
    expect(await errorOf([2, 1, 1, 2], 2, { signal: AbortSignal.abort() })).toBeInstanceOf(AbortedError);
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 0);
    const matrix = symmetricMatrix(300, random);
    await expect(symmetricEigen(backend, matrix, 300, { signal: controller.signal })).rejects.toBeInstanceOf(AbortedError);
  });
});

describe('the kernels of the rounds', () => {
  it('are compiled once for all sizes', () => {
    for (const kernel of [jacobiRoundKernel, jacobiCheckKernel]) {
      expect(kernel(66).key).toBe(kernel(1000).key);
      expect(kernel(66).workgroups).not.toEqual(kernel(1000).workgroups);
    }
  });
});
