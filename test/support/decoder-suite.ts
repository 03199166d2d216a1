import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Backend } from '../../src/runtime/backend.js';
import { describeExternal, fixture } from './fixtures.js';
import {
  argmaxRows,
  type Expected,
  expectedOf,
  largestDifference,
  makeDecoder,
  meanKl,
  readExpected,
  readModel,
  referenceLogits,
  softmaxError,
} from './models.js';

/** Models in types that the fixtures have: each against an f64 run over the same dequantised weights. */
const quantized = ['Q8_0', 'Q4_0', 'Q4_K_M', 'Q6_K'];

/** Which models, and what their numbers are held to. */
export interface DecoderModels {
  /** Models in F32 that are held to transformers: Llama of both pairings, and other architectures, made of the same operations. Default: all. */
  readonly llamas?: readonly string[];
  readonly families?: readonly string[];
  /** Types of packed weights, and of caches that chunks are compared with. Default: all. */
  readonly types?: readonly string[];
  readonly caches?: readonly ('f32' | 'f16')[];
  /** Largest difference of a probability from that of transformers. Default 1e-3. */
  readonly probabilities?: number;
  /** Largest difference between the logits of one chunk, of several and of single tokens, with an f32 and an f16 cache. Default 1e-4 and 2e-3. */
  readonly chunks?: readonly [f32: number, f16: number];
}

/** What every backend must compute alike: the fixture models against transformers and against the f64 reference. */
export function decoderSuite(
  name: string,
  open: () => Promise<Backend>,
  {
    llamas = ['llama', 'llama3'],
    families = ['qwen2', 'qwen3'],
    types = quantized,
    caches = ['f32', 'f16'],
    probabilities = 1e-3,
    chunks = [1e-4, 2e-3],
  }: DecoderModels = {},
): void {
  describe(`decoder on ${name}`, () => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await open();
    });
    afterAll(() => {
      expect(backend.ledger().byClass.weights.bytes).toBe(0);
      expect(backend.ledger().byClass.arena.bytes).toBe(0);
      expect(backend.ledger().byClass.kv.bytes).toBe(0);
      backend.dispose();
    });

    test.each(llamas)('%s in F32 gives the probabilities and the greedy tokens of transformers', async (folder) => {
      await agreesWithTransformers(backend, fixture(`gguf/${folder}.gguf`), await expectedOf(folder), probabilities);
    });

    for (const name of families) {
      describeExternal(name, [`fixtures/gguf/${name}.gguf`, `fixtures/hf/${name}/expected.safetensors`], (model, expected) => {
        test('in F32 gives the probabilities and the greedy tokens of transformers', async () => {
          await agreesWithTransformers(backend, model, await readExpected(expected), probabilities);
        });
      });
    }

    test.each(types)('llama3 in %s stays within a mean KL of 1e-4 of f64 over the same weights', async (type) => {
      const { ids, vocabulary } = await expectedOf('llama3');
      const model = await readModel(fixture(`gguf/llama3.${type}.gguf`));
      const decoder = await makeDecoder(backend, model);
      try {
        expect(meanKl(referenceLogits(model, ids), await decoder.evaluate(ids), vocabulary)).toBeLessThan(1e-4);
      } finally {
        decoder.dispose();
      }
    });

    test('llama3 with a q8_0 cache stays within a mean KL of 0.01 of f64, and goes on from the cache that a prompt left', async () => {
      const { ids, vocabulary } = await expectedOf('llama3');
      const model = await readModel(fixture('gguf/llama3.gguf'));
      const decoder = await makeDecoder(backend, model, { cacheType: 'q8_0' });
      try {
        const whole = await decoder.evaluate(ids);
        const kl = meanKl(referenceLogits(model, ids), whole, vocabulary);
        // Above nothing: the cache is in fact rounded.
        expect(kl).toBeGreaterThan(1e-5);
        expect(kl).toBeLessThan(0.01);
        decoder.rewind(ids.length - 4);
        for (const [i, id] of ids.slice(-4).entries()) {
          const row = whole.subarray((ids.length - 4 + i) * vocabulary, (ids.length - 3 + i) * vocabulary);
          expect(softmaxError(row, await decoder.nextLogits([id]), vocabulary)).toBeLessThan(Math.max(probabilities, 2e-3));
        }
      } finally {
        decoder.dispose();
      }
    });

    test.each(caches)('one chunk, chunks of 7 and single tokens give the same logits with an %s cache', async (cacheType) => {
      const tolerance = chunks[cacheType === 'f32' ? 0 : 1];
      const { ids } = await expectedOf('llama3');
      const model = await readModel(fixture('gguf/llama3.gguf'));
      const decoder = await makeDecoder(backend, model, { cacheType });
      const sevens = await makeDecoder(backend, model, { cacheType, prefillChunk: 7 });
      try {
        const whole = await decoder.evaluate(ids);
        expect(largestDifference(whole, await sevens.evaluate(ids))).toBeLessThan(tolerance);
        decoder.rewind(0);
        const width = whole.length / ids.length;
        for (const [row, id] of ids.entries()) {
          const logits = await decoder.nextLogits([id]);
          expect(largestDifference(logits, whole.subarray(row * width, (row + 1) * width))).toBeLessThan(tolerance);
        }
      } finally {
        decoder.dispose();
        sevens.dispose();
      }
    });
  });
}

async function agreesWithTransformers(backend: Backend, path: string, expected: Expected, probabilities: number): Promise<void> {
  const decoder = await makeDecoder(backend, await readModel(path), { contextLength: expected.ids.length + expected.greedy.length });
  try {
    const logits = await decoder.evaluate(expected.ids);
    expect(softmaxError(expected.logits, logits, expected.vocabulary)).toBeLessThan(probabilities);
    expect(argmaxRows(logits, expected.vocabulary)).toEqual(argmaxRows(expected.logits, expected.vocabulary));
    decoder.rewind(0);
    const greedy = [await decoder.nextToken(expected.ids)];
    while (greedy.length < expected.greedy.length) greedy.push(await decoder.continueGreedy());
    expect(greedy).toEqual(expected.greedy);
  } finally {
    decoder.dispose();
  }
}
