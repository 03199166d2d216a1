/** What an early end promises: calls in flight give their results or `DisposedError`, and nothing is left on the device. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GpuCommandBatch } from '../../src/compute/batch.js';
import { GpuBackend } from '../../src/compute/gpu-backend.js';
import { GpuMatmulCache } from '../../src/compute/matmul-cache/matmul-cache.js';
import { DisposedError } from '../../src/core/errors.js';
import { WgslForwardPass } from '../../src/model/forward-pass.js';
import type { Backend } from '../../src/runtime/backend.js';
import { makeDecoder } from './models.js';
import { plainWeights, smallShape as shape } from './plain-decoder.js';
import { syntheticModel } from './synthetic.js';

const model = syntheticModel({ dtype: 'q8_0', layers: 1 });
const ones = new Float32Array(64).fill(1);

/** Turns of the event loop that lie between the calls and their end: each lets them come a little further. */
const delays = [0, 1, 3];

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}

/** The values of those that ended well; the others must have ended with `DisposedError`. */
async function ended<T>(calls: readonly Promise<T>[]): Promise<readonly T[]> {
  const results = await Promise.allSettled(calls);
  return results.flatMap((result) => {
    if (result.status === 'fulfilled') return [result.value];
    expect(result.reason).toBeInstanceOf(DisposedError);
    return [];
  });
}

/** `open` gives a backend that ends with `dispose()`, and so does its device. */
export function disposeSuite(name: string, open: () => Promise<Backend>): void {
  describe(`an early end on ${name}`, () => {
    let backend: Backend;
    const kept = (): number => backend.ledger().bytes - backend.ledger().byClass.staging.bytes;
    beforeAll(async () => {
      backend = await open();
    });
    afterAll(async () => {
      // Nothing that a call in flight did came back as an error of the device.
      await backend.read({ storage: await backend.allocate('last', 4, 'state'), offset: 0, byteLength: 4 });
      backend.dispose();
    });

    test.each(delays)('of a GpuBackend, after %i turns', async (delay) => {
      const before = kept();
      const gpu = new GpuBackend({ device: backend });
      const calls = [gpu.relu(ones), gpu.softmax(ones), gpu.relu(ones), gpu.matmul(ones, ones, 8, 8, 8)];
      const seen = ended(calls);
      await turns(delay);
      await Promise.all([gpu.dispose(), gpu.dispose()]);
      for (const values of await seen) expect(values).toHaveLength(64);
      await expect(gpu.relu(ones)).rejects.toThrow(DisposedError);
      expect(kept()).toBe(before);
    });

    test.each(delays)('of a batch, after %i turns', async (delay) => {
      const before = kept();
      const batch = new GpuCommandBatch(backend);
      const y = batch.relu(batch.softmax(batch.upload(ones)));
      const seen = ended([batch.execute().then(() => batch.read(y))]);
      await turns(delay);
      batch.dispose();
      batch.dispose();
      for (const values of await seen) expect(values).toEqual(new Float32Array(64).fill(1 / 64));
      await expect(batch.execute()).rejects.toThrow(DisposedError);
      expect(kept()).toBe(before);
    });

    test('of a batch that is being read', async () => {
      const before = kept();
      const batch = new GpuCommandBatch(backend);
      const y = batch.relu(batch.upload(ones));
      await batch.execute();
      const seen = ended([batch.read(y), batch.readMany([y]).then(([first]) => first), batch.execute().then(() => undefined)]);
      batch.dispose();
      for (const values of await seen) if (values !== undefined) expect(values).toEqual(ones);
      expect(kept()).toBe(before);
    });

    test('a reset while a batch compiles ends the call, and the batch begins anew', async () => {
      const before = kept();
      const batch = new GpuCommandBatch(backend);
      batch.tanh(batch.upload(ones));
      const call = expect(batch.execute()).rejects.toMatchObject({ code: 'E_BUSY' });
      batch.reset();
      const y = batch.scale(batch.upload(ones), 2);
      await call;
      await batch.execute();
      expect(await batch.read(y)).toEqual(new Float32Array(64).fill(2));
      batch.dispose();
      expect(kept()).toBe(before);
    });

    test('calls that both have something to compile run one after the other, and leave one plan', async () => {
      const before = kept();
      const batch = new GpuCommandBatch(backend);
      const x = batch.upload(ones);
      const doubled = batch.scale(x, 2);
      const first = batch.execute();
      const tripled = batch.scale(x, 3);
      await Promise.all([first, batch.execute()]);
      expect(await batch.readMany([doubled, tripled])).toEqual([2, 3].map((factor) => new Float32Array(64).fill(factor)));
      batch.dispose();
      expect(kept()).toBe(before);
    });

    test.each(delays)('of a matmul cache, after %i turns', async (delay) => {
      const before = kept();
      const cache = new GpuMatmulCache(backend);
      await cache.uploadWeight('w', ones, 8, 8);
      const seen = ended(Array.from({ length: 12 }, (_, i) => cache.matmulCached('w', ones, 1 + (i % 8))));
      await turns(delay);
      cache.dispose();
      for (const values of await seen) expect(values.every((value) => value === 8)).toBe(true);
      expect(kept()).toBe(before);
    });

    test.each(delays)('of a decoder in a long prompt, and between tokens, after %i turns', async (delay) => {
      const before = kept();
      const prompt = Array.from({ length: 24 }, (_, i) => i % 7);
      for (const begin of ['prompt', 'token'] as const) {
        const decoder = await makeDecoder(backend, model, { contextLength: 64, prefillChunk: 4 });
        if (begin === 'token') await decoder.nextToken([1]);
        const seen = ended([begin === 'prompt' ? decoder.nextToken(prompt) : decoder.continueGreedy()]);
        await turns(delay);
        decoder.dispose();
        decoder.dispose();
        for (const token of await seen) expect(token).toBeLessThan(model.config.vocabulary);
        await expect(decoder.continueGreedy()).rejects.toThrow(DisposedError);
        expect(kept()).toBe(before);
      }
    });

    test('of a forward pass, in its prompt and in its first token', async () => {
      const before = kept();
      const weights = plainWeights(shape, 1);
      for (const tokens of [[1, 2, 3, 4], [5]]) {
        for (const delay of delays) {
          const pass = await WgslForwardPass.create({ ...shape, contextLength: 8, backend });
          for (const [weight, data] of weights) await pass.uploadWeight(weight, data);
          const seen = ended([pass.forwardModel(tokens, 0)]);
          await turns(delay);
          pass.dispose();
          for (const logits of await seen) expect(logits).toHaveLength(shape.vocabSize);
          await expect(pass.forwardModel(1, 0)).rejects.toThrow('the forward pass was used after dispose()');
          expect(kept()).toBe(before);
        }
      }
    });

    test('of the backend below them', async () => {
      const own = await open();
      const gpu = new GpuBackend({ device: own });
      const batch = new GpuCommandBatch(own);
      const cache = new GpuMatmulCache(own);
      await cache.uploadWeight('w', ones, 8, 8);
      await gpu.relu(ones);
      const y = batch.relu(batch.upload(ones));
      await batch.execute();
      const seen = ended<unknown>([gpu.relu(ones), gpu.softmax(ones), batch.read(y), batch.execute(), cache.matmulCached('w', ones, 8)]);
      own.dispose();
      await seen;
      await expect(gpu.relu(ones)).rejects.toThrow(DisposedError);
      await expect(batch.execute()).rejects.toThrow(DisposedError);
      await expect(cache.matmulCached('w', ones, 1)).rejects.toThrow(DisposedError);
      batch.dispose();
      cache.dispose();
      await gpu.dispose();
    });
  });
}
