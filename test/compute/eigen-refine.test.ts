import { describe, expect, it } from 'vitest';
import { symmetricEigen } from '../../src/compute/eigen.js';
import { refineEigen, type TransposedProduct } from '../../src/compute/eigen-refine.js';
import { seededRandom } from '../../src/ops/cases/weight-data.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { eigenErrors, symmetricMatrix } from '../support/eigen-errors.js';

const n = 12;
const random = seededRandom(9);

const multiply: TransposedProduct = async (p, q) =>
  Float64Array.from({ length: n * n }, (_, index) => {
    let sum = 0;
    for (let k = 0; k < n; k++) sum += (p[k * n + Math.floor(index / n)] ?? 0) * (q[k * n + (index % n)] ?? 0);
    return sum;
  });

async function refinedErrors(matrix: Float32Array<ArrayBuffer>) {
  const exact = await symmetricEigen(new CpuBackend(), matrix, n);
  const disturbed = exact.vectors.map((x) => x + (random() - 0.5) * 2e-6);
  const { values, vectors } = await refineEigen(n, matrix, disturbed, multiply);
  return {
    before: eigenErrors(matrix, n, { values: exact.values, vectors: disturbed }),
    after: eigenErrors(matrix, n, { values: Float32Array.from(values), vectors: Float32Array.from(vectors) }),
  };
}

describe('the refinement of eigenvectors', () => {
  it('squares the error of approximate ones', async () => {
    const { before, after } = await refinedErrors(Float32Array.from(symmetricMatrix(n, random)));
    expect(before.orthogonality).toBeGreaterThan(1e-6);
    expect(after.orthogonality).toBeLessThan(1.5e-7);
    expect(before.equation).toBeGreaterThan(3e-6);
    expect(after.equation).toBeLessThan(1e-6);
  });

  it('does not take the noise in nearly equal eigenvalues for turns', async () => {
    // Gaps from 1e-7 to 1e-3 of the largest eigenvalue, in turned axes.
    const axes = (await symmetricEigen(new CpuBackend(), symmetricMatrix(n, random), n)).vectors;
    const matrix = Float32Array.from({ length: n * n }, (_, index) => {
      const [i, j] = [Math.min(Math.floor(index / n), index % n), Math.max(Math.floor(index / n), index % n)];
      let sum = 0;
      for (let k = 0; k < n; k++) sum += (axes[i * n + k] ?? 0) * (1 + 1e-7 * 2 ** (k * 1.1)) * (axes[j * n + k] ?? 0);
      return sum;
    });
    const { before, after } = await refinedErrors(matrix);
    expect(before.orthogonality).toBeGreaterThan(1e-6);
    expect(after.orthogonality).toBeLessThan(1.5e-7);
    expect(after.reconstruction).toBeLessThan(1e-6);
  });

  it('restores orthogonality where eigenvalues are equal', async () => {
    const ones = new Float32Array(n * n).fill(1);
    const { before, after } = await refinedErrors(ones);
    expect(before.orthogonality).toBeGreaterThan(1e-6);
    expect(after.orthogonality).toBeLessThan(1.5e-7);
    expect(after.reconstruction).toBeLessThan(1e-6);
  });
});
