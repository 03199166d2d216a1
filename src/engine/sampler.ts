import { ArgumentError, CentellaError, shown } from '../core/errors.js';
import { penalised } from '../ops/sampling.js';
import { chooseToken } from '../ops/sampling-choice.js';
import { heldParameters, isPenalised, promptBit, type SamplingParameters } from '../ops/sampling-state.js';

/** How the next token is chosen. The steps run in this order: penalties, temperature, top-k, top-p, min-p, draw. */
export interface SamplingOptions {
  /** 0 takes the most likely token; above, logits are divided by it. Default 0.8. */
  readonly temperature?: number;
  /** Keep the k most likely tokens; 0 keeps all. Default 40. */
  readonly topK?: number;
  /** Keep the fewest most likely tokens whose probabilities sum to at least p; 1 keeps all. Default 0.95. */
  readonly topP?: number;
  /** Keep tokens at least this fraction as likely as the most likely one; 0 keeps all. Default 0.05. */
  readonly minP?: number;
  /** Divides positive and multiplies negative logits of tokens in the prompt or the text so far: 0.01 to 100, 1 does nothing. Default 1. */
  readonly repetitionPenalty?: number;
  /** Subtracted from a token's logit for each time that it was generated. Default 0. */
  readonly frequencyPenalty?: number;
  /** Subtracted from the logit of every token that was generated. Default 0. */
  readonly presencePenalty?: number;
  /**
   * Integer from 0 to 2^53 - 1: equal seeds give equal texts on one device. Elsewhere, and on the host, they do as long as no two tokens are closer than rounding: the noise is the same, logits and
   * sums of f32 are not. Default: a random one.
   */
  readonly seed?: number;
}

export type ResolvedSampling = SamplingParameters;

/** Changes the logits f32 [vocabulary] of the next token in place, before penalties and filters: biases, a grammar. `tokens` are those generated so far. */
export type LogitsHook = (logits: Float32Array, tokens: readonly number[]) => void;

interface Range {
  readonly min: number;
  readonly max: number;
  readonly integer?: true;
  readonly above?: true;
}

const ranges: { readonly [K in keyof ResolvedSampling]: Range } = {
  temperature: { min: 0, max: 100 },
  topK: { min: 0, max: 2 ** 31, integer: true },
  topP: { min: 0, max: 1, above: true },
  minP: { min: 0, max: 1 },
  // Less would take logits out of f32.
  repetitionPenalty: { min: 0.01, max: 100 },
  frequencyPenalty: { min: -100, max: 100 },
  presencePenalty: { min: -100, max: 100 },
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true },
};

const defaults: ResolvedSampling = {
  temperature: 0.8,
  topK: 40,
  topP: 0.95,
  minP: 0.05,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  seed: 0,
};

/** The options with their defaults; throws `ArgumentError` for one out of range. */
export function resolveSampling(options: SamplingOptions): ResolvedSampling {
  const seed = options.seed ?? Math.floor(Math.random() * Number.MAX_SAFE_INTEGER);
  const given = Object.fromEntries(
    Object.keys(ranges).flatMap((name) => (options[name as keyof SamplingOptions] === undefined ? [] : [[name, options[name as keyof SamplingOptions]]])),
  );
  const resolved: ResolvedSampling = { ...defaults, seed, ...given };
  for (const name of Object.keys(ranges) as (keyof ResolvedSampling)[]) {
    const { min, max, integer, above } = ranges[name];
    const value = resolved[name];
    // Comparisons would take null for 0, and texts for numbers.
    if (typeof value !== 'number' || !(value >= min && value <= max) || (above && value === min) || (integer && !Number.isInteger(value))) {
      throw new ArgumentError(name, `${name} must be ${integer ? 'an integer' : 'a number'} ${above ? 'above' : 'from'} ${min} to ${max}, got ${shown(value)}`);
    }
  }
  return resolved;
}

/** Whether the choice is the most likely token of the bare logits, which the device makes itself. */
export function isGreedy(sampling: ResolvedSampling): boolean {
  return sampling.temperature === 0 && !isPenalised(sampling);
}

/** Chooses tokens from rows of logits, as `redraw` does on a device. Keeps count of what was generated; the draws depend on (seed, step, token) alone. */
export class Sampler {
  readonly #options: ResolvedSampling;
  /** Words of a sampling state's counts, of the tokens that have one. */
  readonly #counts: Map<number, number>;
  #step = 0;

  constructor(options: ResolvedSampling, prompt: readonly number[]) {
    this.#options = heldParameters(options);
    this.#counts = new Map(prompt.map((token) => [token, promptBit]));
  }

  /**
   * The next token. `logits` f32 [vocabulary]; the penalties change it in place.
   * @throws CentellaError E_NUMERICAL where the row has a NaN or plus infinity, or no finite number: weights or device are broken.
   */
  next(logits: Float32Array): number {
    if (isPenalised(this.#options)) {
      for (const [token, count] of this.#counts) logits[token] = penalised(logits[token] ?? Number.NaN, count, this.#options);
    }
    const token = chooseToken(logits, this.#options, this.#step);
    if (token === undefined) {
      throw new CentellaError(
        'E_NUMERICAL',
        `the logits of step ${this.#step}, as adjustLogits left them, hold NaN or plus infinity, or no finite number: unless it made them so, the weights or the device are broken`,
      );
    }
    this.accept(token);
    return token;
  }

  /** Counts a token that was chosen elsewhere. */
  accept(token: number): void {
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
    this.#step++;
  }
}
