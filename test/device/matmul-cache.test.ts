import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GpuMatmulCache } from '../../src/compute/matmul-cache/index.js';
import { countCalls } from '../../src/gpu/call-counter.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { randomFloats, seededRandom } from '../../src/ops/cases/weight-data.js';
import { openBackend } from '../../src/runtime/select.js';
import { matmulCacheSuite } from '../support/matmul-cache-suite.js';
import { type cachedTypes, checkProduct } from '../support/matmul-cases.js';

matmulCacheSuite('WebGPU', async () => openBackend({ device: await GpuDevice.request({ checked: true }) }), [
  { m: 1, k: 1536, n: 1000, type: 'q4_k' },
  { m: 2, k: 64, n: 65, type: 'q4_0' },
  { m: 3, k: 1536, n: 63, type: 'q6_k' },
  { m: 4, k: 31, n: 64, type: 'f16' },
  { m: 5, k: 64, n: 1000, type: 'q5_1' },
  { m: 16, k: 257, n: 65, type: 'bf16' },
  { m: 17, k: 64, n: 1, type: 'q8_0' },
  { m: 64, k: 3, n: 63, type: 'f32' },
  { m: 257, k: 64, n: 65, type: 'q8_0' },
]);

describe('GpuMatmulCache on WebGPU', () => {
  const random = seededRandom(5);
  let gpu: GpuDevice;
  beforeAll(async () => {
    gpu = await GpuDevice.request({ checked: true });
  });
  afterAll(() => gpu.dispose());

  it('makes nothing and submits once for every call after the first', async () => {
    const cache = await GpuMatmulCache.create({ device: gpu });
    const counter = countCalls(gpu.device);
    try {
      await cache.uploadWeight('w', randomFloats(64 * 64, random), 64, 64, { type: 'q8_0' });
      for (const m of [1, 16]) {
        await cache.matmulCached('w', randomFloats(m * 64, random), m);
        counter.reset();
        for (let call = 1; call <= 3; call++) await cache.matmulCached('w', randomFloats(m * 64, random), m);
        expect(counter.created).toBe(0);
        expect(counter.counts).toMatchObject({ submit: 3, writeBuffer: 3, createCommandEncoder: 3 });
      }
    } finally {
      counter.stop();
      cache.dispose();
    }
  });

  it('binds a second weight of the same shape without compiling again', async () => {
    const cache = await GpuMatmulCache.create({ device: gpu });
    const counter = countCalls(gpu.device);
    try {
      for (const name of ['a', 'b']) await cache.uploadWeight(name, randomFloats(64 * 64, random), 64, 64);
      await cache.matmulCached('a', randomFloats(64, random), 1);
      counter.reset();
      await cache.matmulCached('b', randomFloats(64, random), 1);
      expect(counter.counts).toMatchObject({ createComputePipelineAsync: 0, createBindGroup: 1, createBuffer: 0 });
    } finally {
      counter.stop();
      cache.dispose();
    }
  });

  it('leaves the device to the caller who brought it', async () => {
    const cache = await GpuMatmulCache.create({ device: gpu });
    await cache.uploadWeight('w', randomFloats(4, random), 1, 4);
    cache.dispose();
    expect(gpu.isDisposed).toBe(false);
    expect(gpu.memory.ledger().bytes).toBe(0);
  });

  it('waits where other readers hold the whole ring', async () => {
    const backend = await openBackend({ device: gpu });
    const cache = new GpuMatmulCache(backend);
    const storage = await backend.allocate('other', 4, 'state');
    try {
      await cache.uploadWeight('w', Float32Array.of(1, 2), 1, 2);
      await cache.warm('w', 1);
      const others = Array.from({ length: 16 }, () => backend.read({ storage, offset: 0, byteLength: 4 }));
      expect([...(await cache.matmulCached('w', Float32Array.of(3, 4), 1))]).toEqual([11]);
      await Promise.all(others);
    } finally {
      cache.dispose();
      storage.free();
      backend.dispose();
    }
  });
});

describe('a weight larger than a binding', () => {
  const limits = { maxStorageBufferBindingSize: 65_536 };
  let gpu: GpuDevice;
  let cache: GpuMatmulCache;
  beforeAll(async () => {
    gpu = await GpuDevice.request({ checked: true, mask: { limits } });
    cache = await GpuMatmulCache.create({ device: gpu });
  });
  afterAll(() => {
    cache.dispose();
    gpu.dispose();
  });

  // Two shards each, the second one shorter: each is a kernel to compile.
  it.each<[type: (typeof cachedTypes)[number], n: number]>([
    ['f32', 100],
    ['f16', 200],
    ['q8_0', 350],
    ['q6_k', 450],
  ])('is split over buffers: %s', async (type, n) => {
    for (const m of [1, 2]) {
      expect((await checkProduct(cache, { m, k: 256, n, type })).worst).toBeLessThanOrEqual(1);
      expect(gpu.memory.ledger().byClass.weights.count).toBeGreaterThan(1);
    }
  });

  it('has its rows of x cut where the output is larger than a binding too', async () => {
    expect((await checkProduct(cache, { m: 17, k: 31, n: 1000, type: 'f32' })).worst).toBeLessThanOrEqual(1);
  });
});
