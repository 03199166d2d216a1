import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { symmetricEigen } from '../../src/compute/eigen.js';
import { AbortedError, DeviceLostError, UnsupportedError } from '../../src/core/errors.js';
import { countCalls } from '../../src/gpu/call-counter.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { seededRandom } from '../../src/ops/cases/weight-data.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { eigenErrors, symmetricMatrix } from '../support/eigen-errors.js';

const random = seededRandom(7);
const odd = symmetricMatrix(65, random);

describe('symmetricEigen on WebGPU', () => {
  let backend: WebGpuBackend;
  beforeAll(async () => {
    backend = new WebGpuBackend(await GpuDevice.request({ checked: true }));
  });
  afterAll(() => backend.dispose());

  it('decomposes a matrix of odd size, with the values of the CPU', async () => {
    const result = await symmetricEigen(backend, odd, 65, { sorted: 'ascending' });
    expect(result).toMatchObject({ backend: 'webgpu', converged: true });
    expect(result.residual).toBeLessThanOrEqual(1e-8);
    const errors = eigenErrors(odd, 65, result);
    expect(errors.equation).toBeLessThan(1e-5);
    expect(errors.reconstruction).toBeLessThan(1e-6);
    expect(errors.orthogonality).toBeLessThan(2e-7);
    const cpu = await symmetricEigen(new CpuBackend(), odd, 65, { sorted: 'ascending' });
    expect(cpu.backend).toBe('cpu');
    expect(result.values.every((value, index) => Math.abs(value - (cpu.values[index] ?? Number.NaN)) < 2e-6)).toBe(true);
    expect(backend.ledger().bytes).toBe(0);
  });

  it('sorts the eigenvalues of a dominant 100 x 100 matrix', async () => {
    const matrix = symmetricMatrix(100, random, 100);
    const result = await symmetricEigen(backend, matrix, 100, { sorted: 'descending' });
    expect(result).toMatchObject({ backend: 'webgpu', converged: true });
    expect(result.values).toEqual(result.values.toSorted((a, b) => b - a));
    const errors = eigenErrors(matrix, 100, result);
    // Not in parts of the largest element, which is about 101.
    expect(errors.equation * 101).toBeLessThan(1e-4);
    expect(errors.reconstruction * 101).toBeLessThan(1e-5);
  });

  it('needs no memory that the device zeroes', async () => {
    const unchecked = new WebGpuBackend(await GpuDevice.request({ checked: false }));
    const options = { sorted: 'ascending' } as const;
    expect(await symmetricEigen(unchecked, odd, 65, options)).toEqual(await symmetricEigen(backend, odd, 65, options));
    unchecked.dispose();
  });

  it('keeps the vectors of equal eigenvalues orthogonal', async () => {
    // A reflection: 1, 79 times, and -1.
    const n = 80;
    const normal = Float32Array.from({ length: n }, (_, i) => 1 + (i % 3));
    const square = normal.reduce((sum, x) => sum + x * x, 0);
    const matrix = Float32Array.from({ length: n * n }, (_, index) => {
      const [i, j] = [Math.floor(index / n), index % n];
      return (i === j ? 1 : 0) - (2 * (normal[i] ?? 0) * (normal[j] ?? 0)) / square;
    });
    const result = await symmetricEigen(backend, matrix, n, { sorted: 'ascending' });
    expect(result.converged).toBe(true);
    expect(result.values[0]).toBeCloseTo(-1, 5);
    expect(result.values.subarray(1).every((value) => Math.abs(value - 1) < 1e-5)).toBe(true);
    const errors = eigenErrors(matrix, n, result);
    expect(errors.reconstruction).toBeLessThan(1e-5);
    expect(errors.orthogonality).toBeLessThan(5e-7);
  });

  it('says when it has not converged, submits once a sweep and gives every byte back', async () => {
    const counter = countCalls(backend.gpu.device);
    try {
      const result = await symmetricEigen(backend, odd, 65, { maxSweeps: 2 });
      expect(result).toMatchObject({ backend: 'webgpu', converged: false, sweeps: 2 });
      expect(result.residual).toBeGreaterThan(1e-8);
      expect(counter.counts).toMatchObject({ submit: 3, createBindGroup: 4 });
      expect(eigenErrors(odd, 65, result).orthogonality).toBeLessThan(1e-6);
    } finally {
      counter.stop();
    }
    expect(backend.ledger().bytes).toBe(0);
  });

  it('gives the same vectors at every scale of the matrix', async () => {
    const options = { maxSweeps: 1 };
    const plain = await symmetricEigen(backend, odd, 65, options);
    for (const scale of [2 ** -100, 2 ** 100]) {
      const scaled = await symmetricEigen(
        backend,
        odd.map((x) => x * scale),
        65,
        options,
      );
      expect(scaled.vectors).toEqual(plain.vectors);
      expect(scaled.values).toEqual(plain.values.map((x) => x * scale));
      expect(scaled.residual).toBe(plain.residual);
    }
  });

  it('leaves the device alone where nothing has to turn', async () => {
    const diagonal = Float32Array.from({ length: 100 * 100 }, (_, index) => (index % 101 === 0 ? index : 0));
    expect(await symmetricEigen(backend, diagonal, 100)).toMatchObject({ backend: 'cpu', converged: true, sweeps: 0, residual: 0 });
    expect(await symmetricEigen(backend, symmetricMatrix(64, random), 64)).toMatchObject({ backend: 'cpu', converged: true });
  });

  it('stops at a signal and gives every byte back', async () => {
    const controller = new AbortController();
    const running = symmetricEigen(backend, odd, 65, { signal: controller.signal });
    controller.abort();
    await expect(running).rejects.toBeInstanceOf(AbortedError);
    expect(backend.ledger().bytes).toBe(0);
  });

  it('refuses a matrix that one binding cannot hold', async () => {
    const small = new WebGpuBackend(await GpuDevice.request({ checked: true, mask: { limits: { maxStorageBufferBindingSize: 16_384 } } }));
    await expect(symmetricEigen(small, odd, 65)).rejects.toBeInstanceOf(UnsupportedError);
    expect(small.ledger().bytes).toBe(0);
    small.dispose();
  });

  it('reports the loss of the device', async () => {
    const lost = new WebGpuBackend(await GpuDevice.request({ checked: true }));
    const running = symmetricEigen(lost, odd, 65);
    const outcome = expect(running).rejects.toBeInstanceOf(DeviceLostError);
    lost.gpu.device.destroy();
    await outcome;
    expect(lost.ledger().bytes).toBe(0);
    lost.dispose();
  });
});
