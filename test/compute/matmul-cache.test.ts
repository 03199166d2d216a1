import { describe, expect, it } from 'vitest';
import { GpuMatmulCache } from '../../src/compute/matmul-cache/index.js';
import { rowBucket, rowBucketBelow } from '../../src/compute/matmul-cache/row-buckets.js';
import { baseCapabilities } from '../../src/core/capabilities.js';
import { ArgumentError } from '../../src/core/errors.js';
import { selectLinear } from '../../src/kernels/linear.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { matmulCacheSuite } from '../support/matmul-cache-suite.js';

matmulCacheSuite('the CPU', async () => new CpuBackend(), [
  { m: 100, k: 64, n: 63, type: 'q5_0' },
  { m: 257, k: 31, n: 65, type: 'bf16' },
]);

describe('row buckets', () => {
  it('are few on a GPU, finer on the CPU, and hold what they are asked for', () => {
    const buckets = (kind: 'webgpu' | 'cpu') => [...new Set(Array.from({ length: 1025 }, (_, i) => rowBucket(kind, i + 1)))];
    expect(buckets('webgpu')).toEqual([1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 384, 512, 768, 1024, 1536]);
    expect(buckets('cpu').slice(0, 13)).toEqual([1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48]);
    for (const kind of ['webgpu', 'cpu'] as const) {
      const all = buckets(kind);
      for (let m = 1; m <= 1024; m++) {
        expect(rowBucket(kind, m)).toBeGreaterThanOrEqual(m);
        expect(rowBucketBelow(kind, m)).toBe(Math.max(...all.filter((bucket) => bucket <= m)));
      }
    }
  });

  it('do not compute tiles of 64 rows for 4', () => {
    for (const m of [1, 2, 3, 4, 8]) {
      expect(rowBucket('webgpu', m)).toBe(m);
      expect(selectLinear({ rows: m, outputs: 4096 }, baseCapabilities).family).toBe('matvec');
    }
  });
});

describe('GpuMatmulCache.create', () => {
  it('opens the device that is asked for and says which', async () => {
    const cache = await GpuMatmulCache.create({ device: 'cpu' });
    expect(cache.backend.kind).toBe('cpu');
    expect(cache.backend.reason).toBe('the CPU was asked for');
    await cache.uploadWeight('w', Float32Array.of(2), 1, 1);
    const call = cache.matmulCached('w', Float32Array.of(4), 1);
    cache.dispose();
    await expect(call).rejects.toThrow('used after dispose()');
    expect(cache.backend.ledger().bytes).toBe(0);
  });

  it('refuses a device beside a backend, and budgets that are none', async () => {
    const backend = new CpuBackend();
    await expect(GpuMatmulCache.create({ backend, device: 'cpu' })).rejects.toThrow(ArgumentError);
    expect(() => new GpuMatmulCache(backend, { budgetBytes: 0 })).toThrow(ArgumentError);
    const cache = await GpuMatmulCache.create({ backend, budgetBytes: 100 });
    await expect(cache.uploadWeight('w', new Float32Array(26), 1, 26)).rejects.toThrow('104 bytes, 100 of the budget of 100 are left');
    cache.dispose();
    await backend.allocate('still there', 4, 'state');
    backend.dispose();
  });

  it('cuts a product by rows where input or output would be too large for one run', async () => {
    const cache = await GpuMatmulCache.create({ device: 'cpu' });
    const n = 2 ** 20;
    await cache.uploadWeight(
      'w',
      Float32Array.from({ length: n }, (_, i) => i),
      n,
      1,
    );
    const y = await cache.matmulCached(
      'w',
      Float32Array.from({ length: 19 }, (_, t) => t),
      19,
    );
    expect(y.length).toBe(19 * n);
    expect(y.every((value, i) => value === Math.fround((i % n) * Math.floor(i / n)))).toBe(true);
    cache.dispose();
  });
});
