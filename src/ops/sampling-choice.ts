/** The choice of `redraw` for processors: f64 arithmetic over a row of penalised f32 logits, without sorting what no filter can keep. */

import { gumbel, philox, seedKey } from '../core/random.js';
import type { SamplingParameters } from './sampling-state.js';

/** The token that these logits give at `step`, or undefined where one is NaN or infinite, or none is finite. */
export function chooseToken(logits: Float32Array, parameters: SamplingParameters, step: number): number | undefined {
  const best = mostLikely(logits);
  const max = logits[best] ?? Number.NaN;
  if (!Number.isFinite(max)) return undefined;
  if (parameters.temperature === 0 || parameters.topK === 1) return best;
  return draw(keep(new Candidates(logits, max, parameters)), parameters.seed, step);
}

/** The largest, the first of several; the first NaN where there is one. */
function mostLikely(logits: Float32Array): number {
  let token = 0;
  let champion = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) {
    const value = logits[i] ?? Number.NaN;
    if (value > champion) [token, champion] = [i, value];
    else if (Number.isNaN(value)) return i;
  }
  return token;
}

/** Tokens and their logits over the temperature, from the largest one down: a temperature next to 0 leaves the largest at 0 rather than at infinity. */
class Candidates {
  readonly parameters: SamplingParameters;
  readonly #logits: Float32Array;
  readonly #max: number;

  constructor(logits: Float32Array, max: number, parameters: SamplingParameters) {
    this.parameters = parameters;
    this.#logits = logits;
    this.#max = max;
  }

  get vocabulary(): number {
    return this.#logits.length;
  }

  tempered(token: number): number {
    const logit = this.#logits[token] ?? Number.NaN;
    return logit === this.#max ? 0 : (logit - this.#max) / this.parameters.temperature;
  }

  /** Sum of e^tempered over the whole vocabulary. */
  total(): number {
    let sum = 0;
    for (let token = 0; token < this.vocabulary; token++) {
      const weight = Math.exp(this.tempered(token));
      if (weight > 0) sum += weight;
    }
    return sum;
  }

  /** Those above minus infinity with at least `floor`, by their ids. */
  from(floor: number): Kept {
    const kept: number[] = [];
    for (let token = 0; token < this.vocabulary; token++) {
      const logit = this.tempered(token);
      if (logit >= floor && logit > Number.NEGATIVE_INFINITY) kept.push(token);
    }
    return this.#with(kept);
  }

  /** The k largest, most likely first; equal ones favour the lower token. */
  largest(k: number): Kept {
    const kept: number[] = [];
    let threshold = Number.NEGATIVE_INFINITY;
    const compare = (a: number, b: number): number => this.tempered(b) - this.tempered(a) || a - b;
    for (let token = 0; token < this.vocabulary; token++) {
      if (!(this.tempered(token) > threshold)) continue;
      kept.push(token);
      // Sorting every k arrivals keeps the cost at about log k a token that passes the threshold.
      if (kept.length < 2 * k) continue;
      kept.sort(compare).length = k;
      threshold = this.tempered(kept[k - 1] ?? 0);
    }
    return this.#with(kept.sort(compare).slice(0, k));
  }

  #with(tokens: readonly number[]): Kept {
    return { tokens, logits: Float64Array.from(tokens, (token) => this.tempered(token)) };
  }
}

interface Kept {
  readonly tokens: readonly number[];
  /** Over the temperature; the largest is 0. */
  readonly logits: Float64Array;
}

/** What top-k, top-p and min-p leave. */
function keep(candidates: Candidates): Kept {
  const { topK, topP, minP } = candidates.parameters;
  const least = minP > 0 ? Math.log(minP) : Number.NEGATIVE_INFINITY;
  if (topK > 0 && topK < candidates.vocabulary) {
    const kept = candidates.largest(topK);
    const total = kept.logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
    return prefix(kept, topP < 1 ? topP * total : Number.POSITIVE_INFINITY, least);
  }
  if (topP >= 1) return candidates.from(least);
  const total = candidates.total();
  // All candidates below this weight together weigh less than 1 - p: the nucleus has none of them, and the rest is short to sort.
  const floor = Math.log(((1 - topP) * total) / candidates.vocabulary);
  return prefix(sorted(candidates.from(Math.max(floor, least))), topP * total, least);
}

function sorted({ tokens, logits }: Kept): Kept {
  const order = tokens.map((_, i) => i).sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b);
  return { tokens: order.map((i) => tokens[i] ?? 0), logits: Float64Array.from(order, (i) => logits[i] ?? 0) };
}

/** The fewest of the front whose weights reach `mass`, without those below `least`. */
function prefix({ tokens, logits }: Kept, mass: number, least: number): Kept {
  let sum = 0;
  let end = 0;
  while (end < tokens.length && sum < mass && (logits[end] ?? 0) >= least) sum += Math.exp(logits[end++] ?? 0);
  return { tokens: tokens.slice(0, end), logits: logits.subarray(0, end) };
}

/** Gumbel-max: the largest of logit + noise(seed, step, token) is a draw from the softmax, whatever the order and however the sum would round. */
function draw({ tokens, logits }: Kept, seed: number, step: number): number | undefined {
  const key = seedKey(seed);
  const words = new Uint32Array(4);
  let best: { readonly token: number; readonly score: number } | undefined;
  for (let i = 0, block = -1; i < tokens.length; i++) {
    const token = tokens[i] ?? 0;
    if (token >>> 2 !== block) {
      block = token >>> 2;
      philox(words, key, [block, step, 0, 0]);
    }
    const score = (logits[i] ?? 0) + gumbel(words[token & 3] ?? 0);
    if (best === undefined || score > best.score || (score === best.score && token < best.token)) best = { token, score };
  }
  return best?.token;
}
