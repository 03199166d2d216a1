/** Calls of a decoder in any order: whatever came before, what it gives follows from the tokens that its cache holds, and an error changes nothing. */

import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { ArgumentError, BusyError, ContextError } from '../../src/core/errors.js';
import { resolveSampling, Sampler } from '../../src/engine/sampler.js';
import type { Decoder } from '../../src/model/decoder.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { argmaxRows, largestDifference, makeDecoder } from '../support/models.js';
import { syntheticModel } from '../support/synthetic.js';

const vocabulary = 48;
const contextLength = 24;
const model = syntheticModel({ dtype: 'q8_0', vocabulary, width: 64 });
const parameters = resolveSampling({ seed: 7, temperature: 1.2, topK: 12, repetitionPenalty: 1.2, frequencyPenalty: 0.3 });
/** Of logits from chunks of other sizes: keys and values are rounded to the cache's type after sums in another order. */
const tolerances = { f32: 1e-4, f16: 1e-2, q8_0: 0.1 } as const;
const backend = new CpuBackend();
afterAll(() => backend.dispose());

/** What is known of a decoder: the tokens of its cache, and the chosen or drawn one that it may go on from. */
interface Known {
  readonly held: readonly number[];
  readonly last?: number;
  /** Has drawn as many tokens as the decoder has. */
  readonly sampler?: Sampler;
}

interface Pair {
  readonly decoder: Decoder;
  /** Is fed everything at once, from an empty cache. */
  readonly fresh: Decoder;
  readonly tolerance: number;
}

type Call = (pair: Pair, known: Known) => Promise<Known>;

async function freshLogits({ fresh }: Pair, held: readonly number[]): Promise<Float32Array> {
  fresh.rewind(0);
  return fresh.nextLogits(held);
}

/** The token must be what the logits after the held tokens lead to. */
async function checkToken(pair: Pair, held: readonly number[], token: number, sampler: Sampler | undefined): Promise<void> {
  const logits = await freshLogits(pair, held);
  if (sampler !== undefined) expect(sampler.next(logits)).toBe(token);
  else expect(Math.max(...logits) - (logits[token] ?? Number.NaN)).toBeLessThanOrEqual(pair.tolerance);
}

/** Feeds, where there is room; else nothing changes. */
function feeding(ids: readonly number[], feed: (pair: Pair, held: readonly number[]) => Promise<Omit<Known, 'held'>>): Call {
  return async (pair, known) => {
    const held = [...known.held, ...ids];
    if (held.length <= contextLength) return { held, ...(await feed(pair, held)) };
    await expect(feed(pair, held)).rejects.toThrow(ContextError);
    return known;
  };
}

const idsArbitrary = fc.array(fc.nat(vocabulary - 1), { minLength: 1, maxLength: 10 });

const chosen = idsArbitrary.map((ids) =>
  feeding(ids, async (pair, held) => {
    const last = await pair.decoder.nextToken(ids);
    await checkToken(pair, held, last, undefined);
    return { last };
  }),
);

const drawn = idsArbitrary.map((ids) =>
  feeding(ids, async (pair, held) => {
    const last = await pair.decoder.nextDrawn(ids, { parameters, prompt: held });
    const sampler = new Sampler(parameters, held);
    await checkToken(pair, held, last, sampler);
    return { last, sampler };
  }),
);

const evaluated = fc.tuple(idsArbitrary, fc.boolean()).map(([ids, all]) =>
  feeding(ids, async (pair, held) => {
    const logits = await (all ? pair.decoder.evaluate(ids) : pair.decoder.nextLogits(ids));
    const row = logits.subarray(logits.length - vocabulary);
    expect(largestDifference(row, await freshLogits(pair, held))).toBeLessThan(pair.tolerance);
    const [last] = argmaxRows(row, vocabulary);
    return all || last === undefined ? {} : { last };
  }),
);

/** `wanted` is a promise to take so many tokens, and may be broken. */
const wentOn = fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 30 })).map(([count, wanted]): Call => {
  return async (pair, known) => {
    let { held, last } = known;
    const { decoder } = pair;
    for (let i = 0; i < count; i++) {
      const next = known.sampler === undefined ? decoder.continueGreedy(wanted) : decoder.continueDrawn(wanted);
      if (last === undefined || held.length === contextLength) {
        await expect(next).rejects.toThrow(held.length === contextLength ? ContextError : ArgumentError);
        break;
      }
      held = [...held, last];
      last = await next;
      await checkToken(pair, held, last, known.sampler);
    }
    return { ...known, held, ...(last === undefined ? {} : { last }) };
  };
});

const rewound = fc.nat(contextLength).map(
  (back): Call =>
    async ({ decoder }, known) => {
      if (back > known.held.length) {
        expect(() => decoder.rewind(back)).toThrow(ArgumentError);
        return known;
      }
      decoder.rewind(back);
      return back === known.held.length ? known : { held: known.held.slice(0, back) };
    },
);

const timed = fc.constant<Call>(async ({ decoder }, known) => {
  if (known.held.length === contextLength) await expect(decoder.profile([1])).rejects.toThrow(ContextError);
  else await decoder.profile([1]);
  return known.held.length === contextLength ? known : { held: known.held };
});

/** Kernels are asked for at any position, and other calls while one runs. */
const warmed = fc.integer({ min: 1, max: 40 }).map(
  (tokens): Call =>
    async ({ decoder }, known) => {
      decoder.warm(tokens);
      const running = decoder.evaluate([1]);
      await expect(decoder.nextToken([1])).rejects.toThrow(BusyError);
      if (known.held.length === contextLength) await expect(running).rejects.toThrow(ContextError);
      else await running;
      return known.held.length === contextLength ? known : { held: [...known.held, 1] };
    },
);

test.each(['f32', 'f16', 'q8_0'] as const)('give what the same tokens give at once: a cache of %s', async (cacheType) => {
  const calls = fc.array(fc.oneof(chosen, drawn, evaluated, wentOn, wentOn, rewound, timed, warmed), { minLength: 4, maxLength: 14 });
  const fresh = await makeDecoder(backend, model, { contextLength, cacheType, prefillChunk: contextLength });
  const property = fc.asyncProperty(fc.constantFrom(1, 3, 8), calls, async (prefillChunk, list) => {
    const decoder = await makeDecoder(backend, model, { contextLength, cacheType, prefillChunk });
    try {
      let known: Known = { held: [] };
      for (const call of list) {
        known = await call({ decoder, fresh, tolerance: tolerances[cacheType] }, known);
        expect(decoder.position).toBe(known.held.length);
      }
    } finally {
      decoder.dispose();
    }
  });
  await fc.assert(property, { seed: 20, numRuns: 25 });
  fresh.dispose();
  expect(backend.ledger().bytes).toBe(0);
});
