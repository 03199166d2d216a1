import { afterAll, describe, expect, it } from 'vitest';
import { GpuMatmulCache } from '../../src/compute/matmul-cache/index.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { allCases, cachedTypes, caseName, checkProduct, pairwise } from '../support/matmul-cases.js';

const backend = new CpuBackend();
const cache = new GpuMatmulCache(backend);
afterAll(() => {
  cache.dispose();
  expect(backend.ledger().bytes).toBe(0);
  backend.dispose();
});

describe('matmulCached on the CPU agrees with f64', () => {
  it.each(pairwise(allCases()).map((matmul) => [caseName(matmul), matmul] as const))('%s', async (_name, matmul) => {
    expect(await checkProduct(cache, matmul)).toSatisfy(({ worst }: { worst: number }) => worst <= 1);
  });

  it.each(cachedTypes)('for 70,000 outputs from %s', async (type) => {
    expect(await checkProduct(cache, { m: 3, k: type.endsWith('_k') ? 256 : 64, n: 70_000, type })).toSatisfy(({ worst }: { worst: number }) => worst <= 1);
  });
});
