import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { GpuMatmulCache } from '../../src/compute/matmul-cache/index.js';
import { ArgumentError, DisposedError, OutOfMemoryError, UnsupportedError } from '../../src/core/errors.js';
import { randomFloats, seededRandom } from '../../src/ops/cases/weight-data.js';
import { quantize } from '../../src/quant/index.js';
import type { Backend } from '../../src/runtime/backend.js';
import { checkProduct, compareProduct, type MatmulCase } from './matmul-cases.js';

const random = seededRandom(11);
const floats = (count: number): Float32Array => randomFloats(count, random);

/** What a cache of weights promises on every backend; what was wrong in older caches of this kind is tested by name. */
export function matmulCacheSuite(name: string, open: () => Promise<Backend>, cases: readonly MatmulCase[]): void {
  describe(`GpuMatmulCache on ${name}`, () => {
    let backend: Backend;
    let cache: GpuMatmulCache;
    beforeAll(async () => {
      backend = await open();
      cache = new GpuMatmulCache(backend);
    });
    beforeEach(() => {
      for (const weight of cache.weights()) cache.removeWeight(weight.name);
    });
    afterAll(() => {
      cache.dispose();
      expect(backend.ledger().byClass.weights.bytes).toBe(0);
      expect(backend.ledger().byClass.arena.bytes).toBe(0);
      backend.dispose();
    });
    const worst = async (matmul: MatmulCase): Promise<number> => (await checkProduct(cache, matmul)).worst;

    describe('does not repeat that', () => {
      it('the weight is [N, K] for m = 1 and [K, N] for more rows', async () => {
        const [n, k] = [6, 10];
        const w = floats(n * k);
        await cache.uploadWeight('w', w, n, k);
        const x = floats(5 * k);
        const single = new Float32Array(5 * n);
        for (let t = 0; t < 5; t++) single.set(await cache.matmulCached('w', x.subarray(t * k, (t + 1) * k), 1), t * n);
        for (const m of [1, 2, 3, 4, 5]) {
          const y = await cache.matmulCached('w', x, m);
          expect(y.length).toBe(m * n);
          y.forEach((value, i) => {
            expect(value).toBeCloseTo(single[i] ?? Number.NaN, 5);
          });
        }
        expect(compareProduct({ m: 5, k, n, type: 'f32' }, x, new Uint8Array(w.buffer), single, false, 30).worst).toBeLessThanOrEqual(1);
      });

      it.each([1, 3, 31, 257])('a K that is no multiple of 4 loses its tail: K = %i', async (k) => {
        expect(await worst({ m: 1, k, n: 5, type: 'f32' })).toBeLessThanOrEqual(1);
        expect(await worst({ m: 1, k, n: 5, type: 'f16' })).toBeLessThanOrEqual(1);
      });

      it.each([
        ['f32', 3],
        ['q8_0', 32],
      ] as const)('more than 65,535 outputs cannot be dispatched: 70,000 from %s', async (type, k) => {
        expect(await worst({ m: 1, k, n: 70_000, type })).toBeLessThanOrEqual(1);
      });

      it('a weight that is too large is skipped in silence', async () => {
        const small = new GpuMatmulCache(backend, { budgetBytes: 4096 });
        try {
          await small.uploadWeight('kept', floats(512), 8, 64);
          const refused = small.uploadWeight('large', floats(1024), 16, 64);
          await expect(refused).rejects.toThrow(OutOfMemoryError);
          await expect(refused).rejects.toMatchObject({ requested: 4096, available: 2048 });
          expect([small.weightCount, small.weightBytes]).toEqual([1, 2048]);
          await small.uploadWeight('kept', floats(1024), 16, 64);
          expect(small.weightBytes).toBe(4096);
        } finally {
          small.dispose();
        }
      });

      it('a first call with m = 0 fails', async () => {
        const fresh = new GpuMatmulCache(backend);
        try {
          await fresh.uploadWeight('w', floats(12), 3, 4);
          expect(await fresh.matmulCached('w', new Float32Array(0), 0)).toEqual(new Float32Array(0));
          const output = Float32Array.of(7, 8);
          expect(await fresh.matmulCached('w', floats(4), 0, { output })).toBe(output);
          expect([...output]).toEqual([7, 8]);
          await fresh.warm('w', 0);
        } finally {
          fresh.dispose();
        }
      });

      it('only one call can be in flight: eight give eight right answers, and forty forty', async () => {
        const [n, k] = [65, 64];
        const w = floats(n * k);
        const packed = quantize('q8_0', w, k);
        await cache.uploadWeight('plain', w, n, k);
        await cache.uploadWeight('packed', w, n, k, { type: 'q8_0' });
        for (const count of [8, 40]) {
          const calls = Array.from({ length: count }, (_, i) => {
            const m = [1, 2, 5, 1][i % 4] ?? 1;
            const x = floats(m * k);
            return { m, x, plain: i % 3 === 0, y: cache.matmulCached(i % 3 === 0 ? 'plain' : 'packed', x, m) };
          });
          for (const { m, x, plain, y } of calls) {
            const [type, bytes] = plain ? (['f32', new Uint8Array(w.buffer)] as const) : (['q8_0', packed] as const);
            expect(compareProduct({ m, k, n, type }, x, bytes, await y, backend.kind === 'cpu', 400).worst).toBeLessThanOrEqual(1);
          }
        }
      });

      it('weights can only be f32, and none can be removed', async () => {
        const [n, k] = [64, 256];
        const w = floats(n * k);
        const bytes: number[] = [];
        for (const type of ['f32', 'f16', 'q8_0', 'q4_k'] as const) {
          await cache.uploadWeight(type, w, n, k, { type });
          bytes.push(cache.weights().find((weight) => weight.name === type)?.byteLength ?? 0);
          expect(cache.weightBytes).toBe(bytes.reduce((a, b) => a + b));
          expect(backend.ledger().byClass.weights.bytes).toBe(cache.weightBytes);
        }
        expect(bytes[0]).toBe(n * k * 4);
        expect(bytes.slice(1).map((size) => Math.round((size / (n * k)) * 8))).toEqual([16, 9, 5]);
        expect(cache.removeWeight('f32')).toBe(true);
        expect(cache.removeWeight('f32')).toBe(false);
        expect(cache.weightCount).toBe(3);
        expect(backend.ledger().byClass.weights.bytes).toBe(cache.weightBytes);
        await expect(cache.matmulCached('f32', floats(k), 1)).rejects.toThrow('there are f16, q8_0, q4_k');
      });
    });

    it.each(cases.map((matmul) => [matmul.m, matmul.k, matmul.n, matmul.type] as const))('agrees with f64: m %i, K %i, N %i, %s', async (m, k, n, type) => {
      expect(await worst({ m, k, n, type })).toBeLessThanOrEqual(1);
    });

    it('takes longer inputs and outputs, and leaves the rest of the output alone', async () => {
      await cache.uploadWeight('w', Float32Array.of(1, 2, 3, 4, 5, 6), 3, 2);
      const input = Float32Array.of(9, 1, 1, 2, 2, 9, 9).subarray(1);
      const output = new Float32Array(8).fill(-1);
      expect(await cache.matmulCached('w', input, 2, { output })).toBe(output);
      expect([...output]).toEqual([3, 7, 11, 6, 14, 22, -1, -1]);
    });

    it('refuses inputs and outputs that are too small, and counts that are none', async () => {
      await cache.uploadWeight('w', floats(6), 3, 2);
      const refused = cache.matmulCached('w', floats(3), 2);
      await expect(refused).rejects.toThrow(ArgumentError);
      await expect(refused).rejects.toThrow('the input is too small: m = 2 rows of K = 2 are 4 numbers, got 3');
      await expect(cache.matmulCached('w', floats(4), 2, { output: floats(5) })).rejects.toThrow(
        'the output is too small: m = 2 rows of N = 3 are 6 numbers, got 5',
      );
      for (const m of [-1, 1.5, Number.NaN]) await expect(cache.matmulCached('w', floats(4), m)).rejects.toThrow(ArgumentError);
      await expect(cache.matmulCached('v', floats(4), 1)).rejects.toThrow('no weight "v" was uploaded: there are w');
    });

    it('refuses weights whose sizes and types do not fit', async () => {
      await expect(cache.uploadWeight('w', floats(7), 2, 4)).rejects.toThrow('weight "w" is [2, 4], 8 numbers, got 7');
      await expect(cache.uploadWeight('w', new Uint8Array(33), 1, 32, { type: 'q8_0' })).rejects.toThrow('weight "w" is q8_0 [1, 32], 34 bytes, got 33');
      await expect(cache.uploadWeight('w', floats(80), 1, 80, { type: 'q8_0' })).rejects.toThrow(
        'whole blocks of 32 numbers, got 80 columns; these types take 80: f32, f16, bf16',
      );
      await expect(cache.uploadWeight('w', new Uint8Array(34), 1, 32)).rejects.toThrow("say their type, for example { type: 'q8_0' }");
      await expect(cache.uploadWeight('w', floats(256), 1, 256, { type: 'q2_k' })).rejects.toThrow(UnsupportedError);
      await expect(cache.uploadWeight('w', new Uint8Array(84), 1, 256, { type: 'q2_k' })).rejects.toThrow(UnsupportedError);
      await expect(cache.uploadWeight('w', new Uint8Array(4), 1, 4, { type: 'i8' })).rejects.toThrow(UnsupportedError);
      const wrong = (value: unknown): never => value as never;
      for (const data of [[1, 2], Float64Array.of(1, 2), undefined]) {
        await expect(cache.uploadWeight('w', wrong(data), 1, 2)).rejects.toThrow(/a Float32Array of numbers or a Uint8Array of packed blocks/);
        await expect(cache.uploadWeight('w', wrong(data), 1, 2, { type: 'f16' })).rejects.toThrow(ArgumentError);
      }
      await expect(cache.uploadWeight(wrong(undefined), floats(1), 1, 1)).rejects.toThrow('the name of a weight is a string, got undefined');
      for (const value of [1e6, Number.NEGATIVE_INFINITY, Number.NaN])
        await expect(cache.uploadWeight('w', Float32Array.of(1, value), 1, 2, { type: 'f16' })).rejects.toThrow(/up to 65,504, but number 1 is/);
      for (const rows of [0, -1, 1.5]) await expect(cache.uploadWeight('w', floats(0), rows, 4)).rejects.toThrow(ArgumentError);
      await expect(cache.uploadWeight('w', Float32Array.of(Number.NaN, ...floats(31)), 1, 32, { type: 'q8_0' })).rejects.toThrow(ArgumentError);
      expect([cache.weightCount, cache.weightBytes, backend.ledger().byClass.weights.bytes]).toEqual([0, 0, 0]);
    });

    it('replaces a weight of the same name, in the order of the uploads', async () => {
      await cache.uploadWeight('w', Float32Array.of(1, 2), 1, 2);
      const before = cache.matmulCached('w', Float32Array.of(1, 1), 1);
      await Promise.all([cache.uploadWeight('w', Float32Array.of(3, 4), 1, 2), cache.uploadWeight('w', Float32Array.of(5, 6, 7, 8, 9, 10), 2, 3)]);
      expect([...(await before)]).toEqual([3]);
      expect([...(await cache.matmulCached('w', Float32Array.of(1, 1, 1), 1))]).toEqual([18, 27]);
      expect(cache.weightCount).toBe(1);
      expect(backend.ledger().byClass.weights.count).toBe(1);
    });

    it('answers calls that were in flight when their weight was removed', async () => {
      await cache.uploadWeight('w', Float32Array.of(1, 2), 1, 2);
      await cache.matmulCached('w', Float32Array.of(1, 1), 1);
      const bytes = backend.ledger().byClass.weights.bytes;
      const calls = [1, 2, 3].map((factor) => cache.matmulCached('w', Float32Array.of(factor, factor), 1));
      const cold = cache.matmulCached('w', Float32Array.of(1, 1, 2, 2, 3, 3), 3);
      cache.removeWeight('w');
      await cache.uploadWeight('w', Float32Array.of(-1, -1), 1, 2);
      expect((await Promise.all(calls)).map(([y]) => y)).toEqual([3, 6, 9]);
      expect([...(await cold)]).toEqual([3, 6, 9]);
      expect(backend.ledger().byClass.weights.bytes).toBe(bytes);
    });

    it('grows its buffers under calls in flight', async () => {
      const fresh = new GpuMatmulCache(backend);
      try {
        await fresh.uploadWeight('w', Float32Array.of(1, 2, 3), 1, 3);
        const x = floats(300 * 3);
        const calls = [1, 300, 2, 70, 1].map((m) => fresh.matmulCached('w', x, m));
        const wanted = Array.from({ length: 300 }, (_, t) => (x[3 * t] ?? 0) + 2 * (x[3 * t + 1] ?? 0) + 3 * (x[3 * t + 2] ?? 0));
        for (const call of calls) {
          const y = await call;
          for (const [t, value] of y.entries()) expect(value).toBeCloseTo(wanted[t] ?? Number.NaN, 5);
        }
      } finally {
        fresh.dispose();
      }
    });

    it('ends what is on its way when it is disposed, and refuses what comes after', async () => {
      const before = backend.ledger().bytes - backend.ledger().byClass.staging.bytes;
      const fresh = new GpuMatmulCache(backend);
      await fresh.uploadWeight('w', Float32Array.of(1, 2), 1, 2);
      await fresh.warm('w', 1);
      const call = fresh.matmulCached('w', Float32Array.of(1, 1), 1);
      const late = expect(fresh.uploadWeight('late', floats(2), 1, 2)).rejects.toThrow(DisposedError);
      fresh.dispose();
      fresh.dispose();
      expect([...(await call)]).toEqual([3]);
      await late;
      await expect(fresh.matmulCached('w', floats(2), 1)).rejects.toThrow(DisposedError);
      await expect(fresh.uploadWeight('w', floats(2), 1, 2)).rejects.toThrow(DisposedError);
      expect(() => fresh.removeWeight('w')).toThrow(DisposedError);
      expect(backend.ledger().bytes - backend.ledger().byClass.staging.bytes).toBe(before);
    });
  });
}
