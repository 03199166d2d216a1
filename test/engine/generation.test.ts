import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { ArgumentError, BusyError, ContextError, DisposedError, OutOfMemoryError } from '../../src/core/errors.js';
import type { Generation, GenerationChunk } from '../../src/engine/generation.js';
import { type LoadProgress, loadModel } from '../../src/engine/load.js';
import type { Model } from '../../src/engine/model.js';
import { repositoryFile } from '../support/fixtures.js';

const path = repositoryFile('models/tales-7m.Q8_0.gguf');
const prompt = 'Once upon a time';
const greedy = { temperature: 0, maxTokens: 12 } as const;

const unhandled: unknown[] = [];
const note = (reason: unknown): void => void unhandled.push(reason);
beforeAll(() => void process.on('unhandledRejection', note));
afterAll(() => void process.off('unhandledRejection', note));
afterEach(async () => {
  await new Promise((resolve) => setTimeout(resolve, 0));
  expect(unhandled.splice(0)).toEqual([]);
});

async function pieces(generation: Generation): Promise<GenerationChunk[]> {
  const chunks: GenerationChunk[] = [];
  for await (const chunk of generation) chunks.push(chunk);
  return chunks;
}

let model: Model;
beforeAll(async () => {
  model = await loadModel(path, { device: 'cpu', contextLength: 96, prefillChunk: 16 });
});
afterAll(() => {
  model.dispose();
});

describe('a generation', () => {
  test('gives in pieces what its result gives at once', async () => {
    const generation = model.generate(prompt, greedy);
    const chunks = await pieces(generation);
    const { text, tokens, finishReason, timings } = await generation.result;
    expect(chunks.map((chunk) => chunk.text).join('')).toBe(text);
    expect(chunks.flatMap((chunk) => chunk.tokens)).toEqual(tokens);
    expect(model.tokenizer.decode(tokens, { after: model.encodePrompt(prompt).at(-1) ?? 0 })).toBe(text);
    expect(finishReason).toBe('length');
    expect(timings).toMatchObject({ generatedTokens: 12, promptTokens: model.encodePrompt(prompt).length });
    expect(timings.generationTokensPerSecond).toBeGreaterThan(0);
  });

  test('that an error ends gives what was written until then, what was held back as well', async () => {
    const { text } = await model.generate(prompt, { ...greedy, maxTokens: 5 }).result;
    const adjustLogits = (_: Float32Array, tokens: readonly number[]): void => {
      if (tokens.length === 5) throw new Error('no more of it');
    };
    // All of the text may begin this stop.
    const generation = model.generate(prompt, { ...greedy, adjustLogits, stop: [`${text}, and no further`] });
    const seen: string[] = [];
    const iterate = async (): Promise<void> => {
      for await (const chunk of generation) seen.push(chunk.text);
    };
    await expect(iterate()).rejects.toThrow('no more of it');
    expect(seen.join('')).toBe(text);
    await expect(generation.result).rejects.toThrow('no more of it');
  });

  test('runs without being iterated, and can be iterated afterwards', async () => {
    const generation = model.generate(prompt, greedy);
    const { text } = await generation.result;
    expect((await pieces(generation)).map((chunk) => chunk.text).join('')).toBe(text);
  });

  test('is the same for the same seed, another for another, and greedy needs none', async () => {
    const write = async (options: object): Promise<string> => (await model.generate(prompt, { maxTokens: 16, ...options }).result).text;
    expect(await write({ seed: 5 })).toBe(await write({ seed: 5 }));
    expect(await write({ seed: 5 })).not.toBe(await write({ seed: 6 }));
    expect(await write({ temperature: 0, seed: 1 })).toBe(await write({ temperature: 0, seed: 2 }));
    expect(await write({ topK: 1 })).toBe(await write({ temperature: 0 }));
  });

  test.each([
    ['the defaults', { seed: 3 }],
    ['penalties', { seed: 4, repetitionPenalty: 1.3, frequencyPenalty: 0.4, presencePenalty: 0.2, temperature: 1.1, topK: 0 }],
    ['a top-p and a temperature that f32 takes for nothing', { seed: 4, topP: 1e-300, temperature: 1e-300 }],
    ['temperature 0 with penalties', { temperature: 0, repetitionPenalty: 1.2 }],
  ])('is the same chosen on the device and on the host: %s', async (_, options) => {
    const seen: number[][] = [];
    const host = await model.generate(prompt, { maxTokens: 20, ...options, adjustLogits: (_logits, tokens) => void seen.push([...tokens]) }).result;
    const device = await model.generate(prompt, { maxTokens: 20, ...options }).result;
    expect([host.chosenOn, device.chosenOn]).toEqual(['host', 'device']);
    expect(device.tokens).toEqual(host.tokens);
    expect(seen.slice(0, 3)).toEqual([[], host.tokens.slice(0, 1), host.tokens.slice(0, 2)]);
  });

  test.each([
    ['drawn', { seed: 9 }],
    ['drawn with penalties', { seed: 9, frequencyPenalty: 0.5, repetitionPenalty: 1.2 }],
    ['greedy', { temperature: 0 }],
  ])('without a bound on its tokens is what it is with one, and feeds the prompt alone: %s', async (_, options) => {
    const bounded = await model.generate(prompt, { maxTokens: 20, ...options }).result;
    const feeds = [vi.spyOn(model.decoder, 'nextDrawn'), vi.spyOn(model.decoder, 'nextToken')];
    const free = await model.generate(prompt, options).result;
    const fed = feeds.flatMap((feed) => feed.mock.calls.map(([ids]) => ids));
    for (const feed of feeds) feed.mockRestore();
    expect(free.tokens.slice(0, 20)).toEqual(bounded.tokens.slice(0, free.tokens.length));
    expect(fed).toEqual([model.encodePrompt(prompt)]);
  });

  test('chooses from the logits as they were adjusted', async () => {
    const adjustLogits = (logits: Float32Array): void => void logits.fill(Number.NEGATIVE_INFINITY).fill(0, 1234, 1235);
    expect((await model.generate(prompt, { maxTokens: 3, adjustLogits }).result).tokens).toEqual([1234, 1234, 1234]);
    const broken = model.generate(prompt, { maxTokens: 3, adjustLogits: (logits) => void logits.fill(Number.NaN, 5, 6) });
    await expect(broken.result).rejects.toMatchObject({ code: 'E_NUMERICAL' });
  });

  test('takes token ids as they are, and BOS alone for an empty prompt', async () => {
    const ids = model.encodePrompt(prompt);
    expect(await model.generate(ids, greedy).result).toMatchObject({ tokens: (await model.generate(prompt, greedy).result).tokens });
    expect(model.encodePrompt('')).toEqual([model.tokenizer.bosId]);
    for (const bad of [[-1], [4096], [1.5], [1, Number.NaN]]) expect(() => model.generate(bad)).toThrow(ArgumentError);
    expect((await model.generate([1], { maxTokens: 1 }).result).tokens).toHaveLength(1);
  });

  test('of 0 and of 1 tokens', async () => {
    expect(await model.generate(prompt, { ...greedy, maxTokens: 0 }).result).toMatchObject({
      text: '',
      tokens: [],
      finishReason: 'length',
      timings: { promptTokens: 0, promptTokensPerSecond: 0, generationTokensPerSecond: 0 },
    });
    const { tokens, finishReason, timings } = await model.generate(prompt, { ...greedy, maxTokens: 1 }).result;
    expect([tokens.length, finishReason, timings.generationTokensPerSecond]).toEqual([1, 'length', 0]);
    for (const maxTokens of [-1, 1.5, Number.NaN]) expect(() => model.generate(prompt, { maxTokens })).toThrow(ArgumentError);
  });
});

describe('stopping', () => {
  test('at a stop string that tokens cut, showing nothing of it', async () => {
    const { text, tokens } = await model.generate(prompt, { ...greedy, maxTokens: 24 }).result;
    const borders = tokens.map((_, i) => model.tokenizer.decode(tokens.slice(0, i + 1), { after: 0 }).length);
    const middle = borders[5] ?? 0;
    const stop = text.slice(middle - 2, middle + 2);
    const stopped = model.generate(prompt, { ...greedy, maxTokens: 24, stop });
    const chunks = await pieces(stopped);
    const result = await stopped.result;
    expect(result).toMatchObject({ text: text.slice(0, text.indexOf(stop)), finishReason: 'stop' });
    expect(chunks.map((chunk) => chunk.text).join('')).toBe(result.text);
    expect(chunks.flatMap((chunk) => chunk.tokens)).toEqual(result.tokens);
  });

  test('holds back what may begin a stop string, and gives it when it was none', async () => {
    const { text } = await model.generate(prompt, greedy).result;
    const generation = model.generate(prompt, { ...greedy, stop: [`${text}never`, `${text.slice(0, 6)}#`] });
    const chunks = await pieces(generation);
    expect((await generation.result).text).toBe(text);
    expect(chunks).toHaveLength(1);
  });

  test('at a stop token, which is not among the tokens', async () => {
    const { tokens } = await model.generate(prompt, greedy).result;
    const stopToken = tokens[4] ?? -1;
    const result = await model.generate(prompt, { ...greedy, stopTokens: [stopToken] }).result;
    expect(result).toMatchObject({ tokens: tokens.slice(0, tokens.indexOf(stopToken)), finishReason: 'stop' });
  });

  test('at a full context', async () => {
    const ids = new Array<number>(90).fill(model.encodePrompt('a').at(-1) ?? 0);
    const { tokens, finishReason } = await model.generate(ids, { temperature: 0, stopTokens: [] }).result;
    // 90 positions are taken by the prompt, 6 by what was written; the last token needs none.
    expect([finishReason, tokens.length]).toEqual(['context', 7]);
    const full = new Array<number>(96).fill(ids[0] ?? 0);
    expect(await model.generate(full, { temperature: 0 }).result).toMatchObject({ finishReason: 'context', tokens: [expect.any(Number)] });
    expect(() => model.generate([...full, 1])).toThrow(ContextError);
    expect(() => model.generate([...full, 1])).toThrow('97 tokens, the context 96');
    expect(() => model.generate(prompt, { stop: ['a', ''] })).toThrow(ArgumentError);
  });
});

describe('ending early', () => {
  test('break cancels and frees the model', async () => {
    const generation = model.generate(prompt, { temperature: 0 });
    let seen = '';
    for await (const { text } of generation) {
      seen += text;
      if (seen.length > 8) break;
    }
    const result = await generation.result;
    expect(result.finishReason).toBe('aborted');
    expect(result.text.startsWith(seen)).toBe(true);
    expect((await model.generate(prompt, greedy).result).tokens).toHaveLength(12);
  });

  test('an abort before the call gives an empty result', async () => {
    expect(await model.generate(prompt, { ...greedy, signal: AbortSignal.abort() }).result).toMatchObject({ text: '', tokens: [], finishReason: 'aborted' });
  });

  test('an abort while the prompt is fed ends it between two chunks', async () => {
    const controller = new AbortController();
    const ids = new Array<number>(96).fill(model.encodePrompt('a').at(-1) ?? 0);
    const generation = model.generate(ids, { temperature: 0, signal: controller.signal });
    setImmediate(() => controller.abort());
    expect(await generation.result).toMatchObject({ tokens: [], finishReason: 'aborted', timings: { promptTokens: 0 } });
    expect((await model.generate(prompt, greedy).result).tokens).toHaveLength(12);
  });

  test('an abort while text is written keeps what there is', async () => {
    const controller = new AbortController();
    const generation = model.generate(prompt, { temperature: 0, signal: controller.signal });
    const chunks: GenerationChunk[] = [];
    for await (const chunk of generation) {
      chunks.push(chunk);
      if (chunks.length === 3) controller.abort();
    }
    const result = await generation.result;
    expect(result.finishReason).toBe('aborted');
    expect(chunks.map((chunk) => chunk.text).join('')).toBe(result.text);
    expect(result.tokens.length).toBeGreaterThanOrEqual(3);
  });
});

describe('one at a time', () => {
  test('a second generation is refused until the first has ended', async () => {
    const first = model.generate(prompt, greedy);
    expect(() => model.generate(prompt)).toThrow(BusyError);
    await expect(model.evaluate([1])).rejects.toThrow(BusyError);
    await expect(model.profile()).rejects.toThrow(BusyError);
    await first.result;
    expect((await model.evaluate([1, 2])).length).toBe(2 * model.config.vocabulary);
    await expect(model.evaluate([])).rejects.toThrow(ArgumentError);
    await expect(model.evaluate(new Array<number>(97).fill(1))).rejects.toThrow(ContextError);
  });

  test('what was refused leaves the model free', async () => {
    expect(() => model.generate(prompt, { temperature: -1 })).toThrow(ArgumentError);
    expect(() => model.generate([9999])).toThrow(ArgumentError);
    expect((await model.generate(prompt, greedy).result).tokens).toHaveLength(12);
  });
});

/** As JavaScript may call: no type has seen these. */
describe('values of other types', () => {
  const wrong: readonly (readonly [string, object])[] = [
    ...[null, '0.5', true].map((temperature) => ['temperature', { temperature }] as const),
    ['topK', { topK: null }],
    ['seed', { seed: 5n }],
    ['maxTokens', { maxTokens: '5' }],
    ...[5, [5], null].map((stop) => ['stop', { stop }] as const),
    ...[5, ['5'], [4096], null].map((stopTokens) => ['stopTokens', { stopTokens }] as const),
    ['adjustLogits', { adjustLogits: 5 }],
    ['signal', { signal: {} }],
  ];

  test.each(wrong)('%s is refused by its name, and the model stays free: %o', async (name, options) => {
    expect(() => model.generate(prompt, options)).toThrow(ArgumentError);
    expect(() => model.generate(prompt, options)).toThrow(name === 'stopTokens' ? /stopTokens must|token ids go/ : `${name} must`);
    expect((await model.generate(prompt, { ...greedy, maxTokens: 1 }).result).tokens).toHaveLength(1);
  });

  test.each([undefined, null, 5, {}, [undefined], ['a']])('a prompt that is %o is refused', async (value) => {
    const given = value as unknown as string;
    expect(() => model.generate(given)).toThrow(ArgumentError);
    await expect(model.evaluate(given as unknown as number[])).rejects.toThrow(ArgumentError);
    expect(() => model.generate(prompt, null as unknown as object)).toThrow('options of a generation are an object, got null');
  });

  test('an asynchronous hook is refused, where its changes would come too late', async () => {
    const adjustLogits = (async () => undefined) as unknown as () => void;
    await expect(model.generate(prompt, { maxTokens: 3, adjustLogits }).result).rejects.toThrow('got an async function');
  });

  test('a typed list is a prompt, and a list may change after the call', async () => {
    const ids = Array.from({ length: 40 }, (_, i) => 300 + i);
    const { tokens } = await model.generate(Uint32Array.from(ids) as unknown as number[], greedy).result;
    const generation = model.generate(ids, greedy);
    ids.fill(9999);
    expect((await generation.result).tokens).toEqual(tokens);
  });
});

describe('loading', () => {
  test('reports progress up to the last byte, and warnings to the caller', async () => {
    const progress: LoadProgress[] = [];
    const warnings: string[] = [];
    const loaded = await loadModel(path, {
      device: 'cpu',
      contextLength: 1024,
      onProgress: (step) => progress.push(step),
      onWarning: (text) => warnings.push(text),
    });
    loaded.dispose();
    expect(progress.length).toBeGreaterThan(1);
    expect(progress.map(({ loadedBytes }) => loadedBytes)).toEqual(progress.map(({ loadedBytes }) => loadedBytes).sort((a, b) => a - b));
    expect(progress.at(-1)?.loadedBytes).toBe(progress.at(-1)?.totalBytes);
    expect(loaded.loadTimings.weightBytes).toBe(progress.at(-1)?.totalBytes);
    expect(warnings).toEqual([expect.stringContaining('a context of 1024 is longer than the 512')]);
  });

  test('can be aborted', async () => {
    await expect(loadModel(path, { device: 'cpu', signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'E_ABORTED' });
    const controller = new AbortController();
    await expect(loadModel(path, { device: 'cpu', signal: controller.signal, onProgress: () => controller.abort() })).rejects.toMatchObject({
      code: 'E_ABORTED',
    });
  });

  test.each([
    ['signal', { signal: {} as AbortSignal }],
    ['onProgress', { onProgress: 5 as unknown as () => void }],
    ['onWarning', { onWarning: 'x' as unknown as () => void }],
  ])('refuses a %s that cannot be heard or told', async (argument, options) => {
    await expect(loadModel(path, { device: 'cpu', ...options })).rejects.toMatchObject({ code: 'E_ARGUMENT', argument });
  });

  test.each([{ contextLength: 0 }, { contextLength: 1.5 }, { prefillChunk: 0 }, { cacheType: 'q4_0' as 'f16' }, { device: 'gpu' as 'cpu' }])(
    'refuses %o',
    async (options) => {
      await expect(loadModel(path, { device: 'cpu', ...options })).rejects.toThrow(ArgumentError);
    },
  );

  test('a budget that is too small is an error with numbers', async () => {
    for (const budgetBytes of [1000, 1_000_000, 8_000_000]) {
      await expect(loadModel(path, { device: 'cpu', contextLength: 64, budgetBytes })).rejects.toThrow(OutOfMemoryError);
      await expect(loadModel(path, { device: 'cpu', contextLength: 64, budgetBytes })).rejects.toMatchObject({
        requested: expect.any(Number),
        available: expect.any(Number),
      });
    }
  });
});

describe('a disposed model', () => {
  let own: Model;
  beforeEach(async () => {
    own = await loadModel(path, { device: 'cpu', contextLength: 64 });
  });

  test('says so', async () => {
    own.dispose();
    own.dispose();
    expect(() => own.generate(prompt)).toThrow(DisposedError);
    await expect(own.evaluate([1])).rejects.toThrow(DisposedError);
    await expect(own.profile()).rejects.toThrow(DisposedError);
  });

  test('ends a running generation with an error, in the iteration and in the result', async () => {
    const generation = own.generate(prompt, { temperature: 0 });
    const texts: string[] = [];
    const iterate = async (): Promise<void> => {
      for await (const { text } of generation) {
        texts.push(text);
        own.dispose();
      }
    };
    await expect(iterate()).rejects.toThrow(DisposedError);
    await expect(generation.result).rejects.toThrow('the model was used after dispose()');
    expect(texts.length).toBeGreaterThan(0);
  });

  test('does not end the process where nobody has listened yet', async () => {
    const generation = own.generate(prompt, { temperature: 0 });
    own.dispose();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await expect(pieces(generation)).rejects.toThrow(DisposedError);
  });
});
