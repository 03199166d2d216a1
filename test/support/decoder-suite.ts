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
const quantized = ['Q8_0', 'Q4_0', 'Q4_K_M', 'Q6_K'] as const;

/** Models in F32 that are held to transformers: Llama of both pairings, and other architectures, made of the same operations. Default: all. */
export interface DecoderModels {
  readonly llamas?: readonly string[];
  readonly families?: readonly string[];
}

/** What every backend must compute alike: the fixture models against transformers and against the f64 reference. */
export function decoderSuite(
  name: string,
  open: () => Promise<Backend>,
  { llamas = ['llama', 'llama3'], families = ['qwen2', 'qwen3'] }: DecoderModels = {},
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
      await agreesWithTransformers(backend, fixture(`gguf/${folder}.gguf`), await expectedOf(folder));
    });

    for (const name of families) {
      describeExternal(name, [`fixtures/gguf/${name}.gguf`, `fixtures/hf/${name}/expected.safetensors`], (model, expected) => {
        test('in F32 gives the probabilities and the greedy tokens of transformers', async () => {
          await agreesWithTransformers(backend, model, await readExpected(expected));
        });
      });
    }

    test.each(quantized)('llama3 in %s stays within a mean KL of 1e-4 of f64 over the same weights', async (type) => {
      const { ids, vocabulary } = await expectedOf('llama3');
      const model = await readModel(fixture(`gguf/llama3.${type}.gguf`));
      const decoder = await makeDecoder(backend, model);
      try {
        expect(meanKl(referenceLogits(model, ids), await decoder.evaluate(ids), vocabulary)).toBeLessThan(1e-4);
      } finally {
        decoder.dispose();
      }
    });

    test.each([
      ['f32', 1e-4],
      ['f16', 2e-3],
    ] as const)('one chunk, chunks of 7 and single tokens give the same logits with an %s cache', async (cacheType, tolerance) => {
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

async function agreesWithTransformers(backend: Backend, path: string, expected: Expected): Promise<void> {
  const decoder = await makeDecoder(backend, await readModel(path), { contextLength: expected.ids.length + expected.greedy.length });
  try {
    const logits = await decoder.evaluate(expected.ids);
    expect(softmaxError(expected.logits, logits, expected.vocabulary)).toBeLessThan(1e-3);
    expect(argmaxRows(logits, expected.vocabulary)).toEqual(argmaxRows(expected.logits, expected.vocabulary));
    decoder.rewind(0);
    const greedy = [await decoder.nextToken(expected.ids)];
    while (greedy.length < expected.greedy.length) greedy.push(await decoder.continueGreedy());
    expect(greedy).toEqual(expected.greedy);
  } finally {
    decoder.dispose();
  }
}
