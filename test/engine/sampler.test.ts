import { describe, expect, test } from 'vitest';
import { ArgumentError } from '../../src/core/errors.js';
import { isGreedy, resolveSampling, Sampler, type SamplingOptions } from '../../src/engine/sampler.js';
import { samplingHeader, samplingWord, samplingWords } from '../../src/ops/sampling-state.js';
import { stateWords } from '../../src/ops/state.js';
import { ops } from '../../src/ops/table.js';

/** Everything off but what a test turns on. */
const off = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 1 } as const;
const logitsOf = (...probabilities: number[]): Float32Array => Float32Array.from(probabilities, (p) => Math.log(p));

/** How often each token is drawn from these logits, at `draws` steps. */
function histogram(logits: Float32Array, options: SamplingOptions, draws = 2000): number[] {
  const counts = new Array<number>(logits.length).fill(0);
  const sampler = new Sampler(resolveSampling({ ...off, ...options }), []);
  for (let i = 0; i < draws; i++) {
    const token = sampler.next(logits.slice());
    counts[token] = (counts[token] ?? 0) + 1;
  }
  return counts;
}

const drawn = (logits: Float32Array, options: SamplingOptions): number[] => histogram(logits, options).flatMap((count, token) => (count > 0 ? [token] : []));

describe('options', () => {
  test('have the documented defaults and a random seed', () => {
    const { seed, ...rest } = resolveSampling({});
    expect(rest).toEqual({ temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05, repetitionPenalty: 1, frequencyPenalty: 0, presencePenalty: 0 });
    expect(Number.isSafeInteger(seed)).toBe(true);
    expect(resolveSampling({ topK: undefined } as unknown as SamplingOptions).topK).toBe(40);
    expect(resolveSampling({ maxTokens: 3 } as unknown as SamplingOptions)).not.toHaveProperty('maxTokens');
  });

  test.each<SamplingOptions>([
    { temperature: -1 },
    { temperature: Number.NaN },
    { temperature: 101 },
    { topK: -1 },
    { topK: 1.5 },
    { topP: 0 },
    { topP: 1.1 },
    { minP: -0.1 },
    { minP: 2 },
    { repetitionPenalty: 0 },
    { repetitionPenalty: 1e-40 },
    { frequencyPenalty: 1000 },
    { presencePenalty: Number.NEGATIVE_INFINITY },
    { seed: 0.5 },
    { seed: -1 },
    { seed: 2 ** 53 },
  ])('refuse %o', (options) => {
    expect(() => resolveSampling(options)).toThrow(ArgumentError);
    expect(() => resolveSampling(options)).toThrow(Object.keys(options)[0]);
  });

  test('greedy is the bare most likely token: no temperature and no penalties', () => {
    expect(isGreedy(resolveSampling({ temperature: 0 }))).toBe(true);
    expect(isGreedy(resolveSampling({ temperature: 1, topK: 1 }))).toBe(false);
    expect(isGreedy(resolveSampling({ temperature: 0, presencePenalty: 1 }))).toBe(false);
  });
});

test('parameters are what a device holds, where equal tokens end at top-p', () => {
  const logits = new Float32Array(10);
  const header = samplingHeader(resolveSampling({ ...off, topP: 0.1 }));
  const words = new Uint32Array(samplingWords(10));
  words.set(header);
  const steps = Array.from({ length: 20 }, (_, step) => {
    words[samplingWord.step] = step;
    const inputs = [new Uint32Array(stateWords(1)), words, logits].map((data) => ({ shape: [data.length], data: Float64Array.from(data) }));
    return ops.redraw.reference(inputs, {}, { dtype: 'u32', shape: [1] })[0];
  });
  const sampler = new Sampler(resolveSampling({ ...off, topP: 0.1 }), []);
  expect(steps.map(() => sampler.next(logits.slice()))).toEqual(steps);
  expect(new Set(steps)).toEqual(new Set([0, 1]));
});

describe('each step', () => {
  const logits = logitsOf(0.1, 0.4, 0.05, 0.3, 0.15);

  test('temperature 0 takes the first of the most likely', () => {
    expect(histogram(Float32Array.of(1, 3, 3, 2), { temperature: 0 }, 3)).toEqual([0, 3, 0, 0]);
  });

  test('top-k keeps k, ties to the lower token', () => {
    expect(drawn(logits, { topK: 2 })).toEqual([1, 3]);
    expect(drawn(logits, { topK: 1 })).toEqual([1]);
    expect(drawn(new Float32Array(50), { topK: 3 })).toEqual([0, 1, 2]);
    expect(
      drawn(
        Float32Array.from({ length: 500 }, (_, i) => (i * 37) % 500),
        { topK: 2, temperature: 50 },
      ),
    ).toEqual([27, 54]);
  });

  test('top-p keeps the fewest that reach p', () => {
    expect(drawn(logits, { topP: 0.39 })).toEqual([1]);
    expect(drawn(logits, { topP: 0.5 })).toEqual([1, 3]);
    expect(drawn(logits, { topP: 0.75 })).toEqual([1, 3, 4]);
    expect(drawn(logits, { topP: 1e-9 })).toEqual([1]);
  });

  test('min-p keeps what is at least that fraction of the most likely', () => {
    expect(drawn(logits, { minP: 0.7 })).toEqual([1, 3]);
    expect(drawn(logits, { minP: 0.3 })).toEqual([1, 3, 4]);
    expect(drawn(logits, { minP: 1 })).toEqual([1]);
  });

  test('temperature comes before top-p, top-k before top-p', () => {
    // At temperature 1/2 the probabilities are squared: 0.16 and 0.09 of 0.295 reach 0.8 together, which they do not at temperature 1.
    expect(drawn(logits, { temperature: 0.5, topP: 0.8 })).toEqual([1, 3]);
    expect(drawn(logits, { topP: 0.8 })).toEqual([1, 3, 4]);
    // Of the two that top-k leaves, the first has 0.57: top-p counts on from there.
    expect(drawn(logits, { topK: 2, topP: 0.55 })).toEqual([1]);
  });

  test('a temperature next to 0 takes the most likely token', () => {
    expect(histogram(Float32Array.of(50, 100, -100), { temperature: 1e-308, topP: 0.9, minP: 0.1 }, 5)).toEqual([0, 5, 0]);
  });

  test('minus infinity is never drawn', () => {
    const logits = Float32Array.of(Number.NEGATIVE_INFINITY, 0, Number.NEGATIVE_INFINITY, 0);
    expect(drawn(logits, {})).toEqual([1, 3]);
    expect(drawn(logits, { topK: 3, topP: 0.99 })).toEqual([1, 3]);
  });

  test.each([
    ['NaN', Float32Array.of(0, 1, Number.NaN, 3)],
    ['minus infinity', new Float32Array(4).fill(Number.NEGATIVE_INFINITY)],
    ['plus infinity', Float32Array.of(0, Number.POSITIVE_INFINITY, 0)],
  ])('a row of nothing but minus infinity, or with another number that is not finite, is an error: %s', (_, row) => {
    for (const options of [{}, { temperature: 0 }, { topK: 2 }]) {
      expect(() => new Sampler(resolveSampling({ ...off, ...options }), []).next(row.slice())).toThrow(
        expect.objectContaining({ code: 'E_NUMERICAL' }) as Error,
      );
    }
  });
});

describe('penalties', () => {
  const greedy = (options: SamplingOptions, prompt: readonly number[] = []): Sampler =>
    new Sampler(resolveSampling({ ...off, temperature: 0, ...options }), prompt);

  test('repetition divides what is positive and multiplies what is negative, once, prompt included', () => {
    const logits = Float32Array.of(4, -1, 3, 0);
    greedy({ repetitionPenalty: 2 }, [0, 0, 1, 3]).next(logits);
    expect([...logits]).toEqual([2, -2, 3, 0]);
  });

  test('frequency counts, presence does not, and neither looks at the prompt', () => {
    const sampler = greedy({ frequencyPenalty: 1, presencePenalty: 0.5 }, [0]);
    sampler.accept(1);
    sampler.accept(1);
    sampler.accept(2);
    const logits = Float32Array.of(9, 0, 0);
    expect(sampler.next(logits)).toBe(0);
    expect([...logits]).toEqual([9, -2.5, -1.5]);
  });

  test('the chosen token counts from the next step on', () => {
    const sampler = greedy({ presencePenalty: 2 });
    expect([0, 1, 2, 3].map(() => sampler.next(Float32Array.of(3, 2, 0)))).toEqual([0, 1, 0, 0]);
  });
});

describe('draws', () => {
  test('depend on seed and step alone', () => {
    const logits = new Float32Array(64);
    const run = (seed: number): number[] => {
      const sampler = new Sampler(resolveSampling({ ...off, seed }), []);
      return Array.from({ length: 20 }, () => sampler.next(logits.slice()));
    };
    expect(run(7)).toEqual(run(7));
    expect(run(7)).not.toEqual(run(8));
    expect(run(7)).not.toEqual(run(7 + 2 ** 32));
    const skipping = new Sampler(resolveSampling({ ...off, seed: 7 }), []);
    for (let i = 0; i < 19; i++) skipping.accept(0);
    expect(skipping.next(logits.slice())).toBe(run(7)[19]);
  });

  test('follow the distribution: chi-square under the 0.1% point', () => {
    const probabilities = [0.02, 0.08, 0.1, 0.2, 0.25, 0.35];
    const draws = 20_000;
    for (const options of [{ seed: 11 }, { seed: 12, topK: 6 }, { seed: 13, topP: 0.999999 }]) {
      const counts = histogram(logitsOf(...probabilities), options, draws);
      const chiSquare = counts.reduce((sum, count, i) => sum + (count - draws * (probabilities[i] ?? 0)) ** 2 / (draws * (probabilities[i] ?? 1)), 0);
      // 5 degrees of freedom.
      expect(chiSquare).toBeLessThan(20.52);
    }
  });
});
