import { ArgumentError, CentellaError } from '../core/errors.js';
import { philox, seedKey, uniform } from './random.js';

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
  /** Divides positive and multiplies negative logits of tokens in the prompt or the text so far; 1 does nothing. Default 1. */
  readonly repetitionPenalty?: number;
  /** Subtracted from a token's logit for each time that it was generated. Default 0. */
  readonly frequencyPenalty?: number;
  /** Subtracted from the logit of every token that was generated. Default 0. */
  readonly presencePenalty?: number;
  /** Integer from 0 to 2^53 - 1: equal seeds give equal texts on one device. Default: a random one. */
  readonly seed?: number;
}

export type ResolvedSampling = Required<SamplingOptions>;

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
  repetitionPenalty: { min: 0, max: 100, above: true },
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
    if (!(value >= min && value <= max) || (above && value === min) || (integer && !Number.isInteger(value))) {
      throw new ArgumentError(name, `${name} must be ${integer ? 'an integer' : 'a number'} ${above ? 'above' : 'from'} ${min} to ${max}, got ${value}`);
    }
  }
  return resolved;
}

/** Whether the choice is the most likely token of the bare logits, which the device makes itself. */
export function isGreedy(sampling: ResolvedSampling): boolean {
  return sampling.temperature === 0 && sampling.repetitionPenalty === 1 && sampling.frequencyPenalty === 0 && sampling.presencePenalty === 0;
}

interface Candidate {
  readonly token: number;
  readonly logit: number;
}

/** Chooses tokens from rows of logits. Keeps count of what was generated; the draws depend on (seed, step, token) alone. */
export class Sampler {
  readonly #options: ResolvedSampling;
  readonly #key: [number, number];
  readonly #prompt: Set<number>;
  readonly #generated = new Map<number, number>();
  #step = 0;

  constructor(options: ResolvedSampling, prompt: readonly number[]) {
    this.#options = options;
    this.#key = seedKey(options.seed);
    this.#prompt = new Set(prompt);
  }

  /**
   * The next token. `logits` f32 [vocabulary]; the penalties change it in place.
   * @throws CentellaError E_NUMERICAL where the row has no finite number: weights or device are broken.
   */
  next(logits: Float32Array): number {
    this.#penalise(logits);
    const candidates = this.#options.temperature === 0 ? [mostLikely(logits)] : this.#filter(logits);
    const token = candidates.length === 1 ? candidates[0]?.token : this.#draw(candidates);
    if (token === undefined || !Number.isFinite(logits[token] ?? Number.NaN)) {
      throw new CentellaError('E_NUMERICAL', `the logits of step ${this.#step} have no finite number: the weights or the device are broken`);
    }
    this.accept(token);
    return token;
  }

  /** Counts a token that was chosen elsewhere. */
  accept(token: number): void {
    this.#generated.set(token, (this.#generated.get(token) ?? 0) + 1);
    this.#step++;
  }

  #penalise(logits: Float32Array): void {
    const { repetitionPenalty, frequencyPenalty, presencePenalty } = this.#options;
    if (repetitionPenalty !== 1) {
      for (const token of new Set([...this.#prompt, ...this.#generated.keys()])) {
        const logit = logits[token] ?? 0;
        logits[token] = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
      }
    }
    if (frequencyPenalty === 0 && presencePenalty === 0) return;
    for (const [token, count] of this.#generated) logits[token] = (logits[token] ?? 0) - count * frequencyPenalty - presencePenalty;
  }

  /** What temperature, top-k, top-p and min-p leave, most likely first where they had to sort. */
  #filter(logits: Float32Array): Candidate[] {
    const { topK, topP, minP } = this.#options;
    const temper = tempering(logits, this.#options.temperature);
    let kept = topK > 0 && topK < logits.length ? largest(logits, topK, temper) : allFinite(logits, temper);
    if (topP < 1) kept = nucleus(kept, topP);
    if (minP > 0) {
      const threshold = kept.reduce((max, { logit }) => Math.max(max, logit), Number.NEGATIVE_INFINITY) + Math.log(minP);
      kept = kept.filter(({ logit }) => logit >= threshold);
    }
    return kept;
  }

  /** Gumbel-max: the largest of logit + noise(seed, step, token) is a draw from the softmax, whatever the order and however the sum would round. */
  #draw(candidates: readonly Candidate[]): number | undefined {
    const words = new Uint32Array(4);
    let block = -1;
    let best: { token: number; score: number } | undefined;
    for (const { token, logit } of [...candidates].sort((a, b) => a.token - b.token)) {
      if (token >>> 2 !== block) {
        block = token >>> 2;
        philox(words, this.#key, [block, this.#step, 0, 0]);
      }
      const score = logit - Math.log(-Math.log(uniform(words[token & 3] ?? 0)));
      if (best === undefined || score > best.score) best = { token, score };
    }
    return best?.token;
  }
}

function mostLikely(logits: Float32Array): Candidate {
  let token = 0;
  for (let i = 1; i < logits.length; i++) {
    const [value, champion] = [logits[i] ?? Number.NaN, logits[token] ?? Number.NaN];
    if (value > champion || (Number.isNaN(champion) && !Number.isNaN(value))) token = i;
  }
  return { token, logit: logits[token] ?? Number.NaN };
}

/** Logits over the temperature, from the largest one down: a temperature next to 0 then leaves the largest at 0 rather than at infinity. */
function tempering(logits: Float32Array, temperature: number): (logit: number) => number {
  const max = mostLikely(logits).logit;
  return (logit) => (logit === max ? 0 : (logit - max) / temperature);
}

function allFinite(logits: Float32Array, temper: (logit: number) => number): Candidate[] {
  const kept: Candidate[] = [];
  for (let token = 0; token < logits.length; token++) {
    const logit = temper(logits[token] ?? Number.NaN);
    if (logit > Number.NEGATIVE_INFINITY) kept.push({ token, logit });
  }
  return kept;
}

/** The k largest, most likely first; equal logits favour the lower token. */
function largest(logits: Float32Array, k: number, temper: (logit: number) => number): Candidate[] {
  const kept: Candidate[] = [];
  let threshold = Number.NEGATIVE_INFINITY;
  const compare = (a: Candidate, b: Candidate): number => b.logit - a.logit || a.token - b.token;
  for (let token = 0; token < logits.length; token++) {
    const logit = temper(logits[token] ?? Number.NaN);
    if (!(logit > threshold)) continue;
    kept.push({ token, logit });
    // Sorting every k arrivals keeps the cost at about log k a token that passes the threshold.
    if (kept.length < 2 * k) continue;
    kept.sort(compare).length = k;
    threshold = kept[k - 1]?.logit ?? threshold;
  }
  kept.sort(compare);
  return kept.slice(0, k);
}

/** The fewest most likely candidates that reach probability p together. */
function nucleus(candidates: Candidate[], p: number): Candidate[] {
  const max = candidates.reduce((m, { logit }) => Math.max(m, logit), Number.NEGATIVE_INFINITY);
  const weights = candidates.map(({ logit }) => Math.exp(logit - max));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  // All candidates below this weight together weigh less than 1 - p, so the nucleus has none of them and the rest is short to sort.
  const floor = ((1 - p) * total) / candidates.length;
  const likely = candidates.map((candidate, i) => ({ candidate, weight: weights[i] ?? 0 })).filter(({ weight }) => weight >= floor);
  likely.sort((a, b) => b.weight - a.weight || a.candidate.token - b.candidate.token);
  let sum = 0;
  let end = 0;
  while (end < likely.length && sum < p * total) sum += likely[end++]?.weight ?? 0;
  return likely.slice(0, end).map(({ candidate }) => candidate);
}
