import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GpuDevice } from '../../src/gpu/device.js';
import { packsActivations } from '../../src/kernels/decode/activations.js';
import type { GpuTargetOptions } from '../../src/kernels/target.js';
import type { Decoder } from '../../src/model/decoder.js';
import type { DecoderOptions } from '../../src/model/decoder-runs.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { testAdapterName } from '../support/adapter-name.js';
import { describeExternal, fixture, repositoryFile } from '../support/fixtures.js';
import { type LoadedFile, makeDecoder, meanKl, readModel, referenceLogits } from '../support/models.js';
import { everyCase } from '../support/share.js';

/** Runs every operation of a decode step by itself. */
class PlainBackend extends WebGpuBackend {
  override get refuses(): undefined {
    return undefined;
  }
}

let gpu: GpuDevice;
beforeAll(async () => {
  gpu = await GpuDevice.request({ checked: true });
});
afterAll(() => gpu.dispose());

const never = Number.POSITIVE_INFINITY;
const timeout = 300_000;

async function withDecoder<T>(
  model: LoadedFile,
  { plain = false, kernels = {} }: { plain?: boolean; kernels?: GpuTargetOptions },
  options: Partial<DecoderOptions>,
  use: (decoder: Decoder) => Promise<T>,
): Promise<T> {
  const make = plain ? PlainBackend : WebGpuBackend;
  const backend = new make(gpu, { owned: false, kernels });
  const decoder = await makeDecoder(backend, model, { cacheType: 'f16', ...options });
  try {
    return await use(decoder);
  } finally {
    decoder.dispose();
    backend.dispose();
  }
}

/** The tokens after a prompt, one asked for at a time or with others on their way. */
async function greedy(decoder: Decoder, prompt: readonly number[], count: number, wanted?: number): Promise<number[]> {
  decoder.rewind(0);
  const tokens = [await decoder.nextToken(prompt)];
  while (tokens.length < count) tokens.push(await decoder.continueGreedy(wanted));
  return tokens;
}

describe('greedy tokens are the same whichever kernels compute them', () => {
  const options = { prefillChunk: 8 };
  // After these each most likely token leads by more than 1, where rounding to 8 bits moves the logits of these random weights by a third.
  const prompt = [3, 7, 11, 15, 19, 23, 27, 31];
  const count = 10;
  let model: LoadedFile;
  let wanted: readonly number[];

  beforeAll(async () => {
    model = await readModel(fixture('gguf/llama3.Q8_0.gguf'));
    const plain = { plain: true, kernels: { activations: 'f32', leastMatrixRows: never } } as const;
    wanted = await withDecoder(model, plain, options, (decoder) => greedy(decoder, prompt, count, 1));
    expect(new Set(wanted).size).toBe(count);
  }, timeout);

  test.each<[string, GpuTargetOptions]>([
    ['fused steps with f32 activations', { activations: 'f32', leastMatrixRows: never }],
    ['fused steps with 8-bit activations', { activations: 'int8', leastMatrixRows: never }],
    ['matrices from the first row on, where the device has them', { leastMatrixRows: 1 }],
    ['what the device gets by itself', {}],
  ])(
    '%s, each token awaited or several ahead',
    async (_name, kernels) => {
      await withDecoder(model, { kernels }, options, async (decoder) => {
        expect(await greedy(decoder, prompt, count, 1)).toEqual(wanted);
        expect(await greedy(decoder, prompt, count)).toEqual(wanted);
      });
    },
    timeout,
  );
});

async function expectSameTokens(path: string): Promise<void> {
  const model = await readModel(path);
  const kernels = { activations: 'f32', leastMatrixRows: never } as const;
  const tokensOf = (plain: boolean): Promise<{ tokens: number[]; fused: readonly string[] }> =>
    withDecoder(model, { plain, kernels }, { prefillChunk: 8 }, async (decoder) => ({
      tokens: await greedy(decoder, [3, 7, 11, 15, 19, 23, 27, 31], 12),
      fused: decoder.rewrites.filter(({ applied }) => applied).map(({ rule }) => rule),
    }));
  const [wanted, got] = [await tokensOf(true), await tokensOf(false)];
  expect(got.tokens).toEqual(wanted.tokens);
  expect(wanted.fused).not.toContain('gatedProduct');
  expect(got.fused).toEqual(expect.arrayContaining(['gatedProduct', 'tokenLinear']));
}

describe('float weights make the same greedy tokens in fused steps as in plain ones', () => {
  test('llama', () => expectSameTokens(fixture('gguf/llama.gguf')), timeout);
  describeExternal('others', ['fixtures/gguf/qwen2.gguf', 'fixtures/gguf/qwen3.gguf'], (biased = '', normed = '') => {
    test('qwen2, with biases', () => expectSameTokens(biased), timeout);
    test('qwen3, with norms of heads', () => expectSameTokens(normed), timeout);
  });
});

// SwiftShader's subgroups are too small for 8-bit decode steps.
if (everyCase || testAdapterName() !== 'swiftshader') {
  test(
    '8-bit activations stay within a mean KL of 2e-4 of f64 on a trained model, in prompts and token by token',
    async () => {
      const model = await readModel(repositoryFile('models/tales-7m.Q8_0.gguf'));
      // "Once upon a time there was a king who had three sons, and the", and what the model writes after it.
      const prompt = [4095, 2082, 698, 258, 514, 432, 307, 258, 504, 389, 338, 714, 1757, 11, 267, 259];
      const ids = [...prompt, 1624, 290, 392, 307, 515, 771, 11, 371];
      const wanted = referenceLogits(model, ids);
      const { vocabulary } = model.config;
      await withDecoder(model, { kernels: { activations: 'int8', leastMatrixRows: never } }, { prefillChunk: ids.length }, async (decoder) => {
        const packs = packsActivations(gpu.capabilities) === undefined;
        expect(decoder.rewrites.some(({ rule, applied }) => rule === 'qkv' && applied)).toBe(packs);
        const together = await decoder.evaluate(ids);
        expect(meanKl(wanted, together, vocabulary)).toBeLessThan(2e-4);
        decoder.rewind(0);
        const single = new Float32Array(wanted.length);
        for (const [i, id] of ids.entries()) single.set(await decoder.nextLogits([id]), i * vocabulary);
        expect(meanKl(wanted, single, vocabulary)).toBeLessThan(2e-4);
      });
    },
    timeout,
  );
}
