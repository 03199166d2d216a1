/** Drawing the next token from logits: see sampling-state.ts for what the draw depends on. */

import { ShapeError } from '../core/errors.js';
import { gumbel, philox, seedKey } from '../core/random.js';
import { elementCount, formatType, type TensorType } from '../core/tensor.js';
import { expectEqual, expectFloat, expectRank, type HostTensor, need, type OpDefinition } from './definition.js';
import { promptBit, readSamplingHeader, type SamplingParameters, samplingWord, samplingWords } from './sampling-state.js';
import { noToken, replaceToken, stateWord } from './state.js';

interface Candidate {
  readonly token: number;
  readonly logit: number;
}

/** What the penalties leave of a logit; `count` is the token's word of the sampling state. */
export function penalised(logit: number, count: number, parameters: SamplingParameters): number {
  const drawn = count % promptBit;
  const repeated = count === 0 ? logit : logit > 0 ? logit / parameters.repetitionPenalty : logit * parameters.repetitionPenalty;
  return drawn === 0 ? repeated : repeated - drawn * parameters.frequencyPenalty - parameters.presencePenalty;
}

/** Finite logits, most likely first, equal ones by their ids. */
function ranked(logits: Float64Array): Candidate[] {
  const all = Array.from(logits, (logit, token) => ({ token, logit }));
  return all.filter(({ logit }) => logit > Number.NEGATIVE_INFINITY).sort((a, b) => b.logit - a.logit || a.token - b.token);
}

/** The token drawn from penalised logits, or `noToken` where one is NaN or infinite, or none is finite. */
function drawn(logits: Float64Array, parameters: SamplingParameters, step: number): number {
  const { temperature, topK, topP, minP, seed } = parameters;
  const [best, ...others] = ranked(logits);
  if (best === undefined || best.logit === Number.POSITIVE_INFINITY || logits.some(Number.isNaN)) return noToken;
  if (temperature === 0) return best.token;
  const tempered = [best, ...others].map(({ token, logit }) => ({ token, logit: (logit - best.logit) / temperature }));
  const kept = topK === 0 ? tempered : tempered.slice(0, topK);
  const total = kept.reduce((sum, { logit }) => sum + Math.exp(logit), 0);
  let mass = 0;
  const nucleus = kept.filter(({ logit }) => {
    const wanted = topP >= 1 || mass < topP * total;
    mass += Math.exp(logit);
    return wanted;
  });
  const likely = nucleus.filter(({ logit }) => minP === 0 || logit >= Math.log(minP));
  const words = new Uint32Array(4);
  const scores = likely.map(({ token, logit }) => {
    philox(words, seedKey(seed), [token >>> 2, step, 0, 0]);
    return { token, score: logit + gumbel(words[token & 3] ?? 0) };
  });
  return scores.reduce((a, b) => (b.score > a.score || (b.score === a.score && b.token < a.token) ? b : a)).token;
}

function redrawn([state, sampling, logits]: readonly HostTensor[]): {
  readonly token: number;
  readonly session: Float64Array;
  readonly sampling: Float64Array;
} {
  const [session, settings] = [need(state).data.slice(), need(sampling).data.slice()];
  const { parameters, step } = readSamplingHeader(settings);
  const token = drawn(
    need(logits).data.map((logit, id) => penalised(logit, settings[samplingWord.counts + id] ?? 0, parameters)),
    parameters,
    step,
  );
  const counted = samplingWord.counts + token;
  if (token !== noToken) settings[counted] = (settings[counted] ?? 0) + 1;
  settings[samplingWord.step] = step + 1;
  replaceToken(session, token);
  return { token, session, sampling: settings };
}

/**
 * Draws the token that a run gave anew from its logits: penalties, temperature, top-k, top-p, min-p, and the largest of logit + Gumbel noise(seed, step, token). Inputs: session state, sampling state,
 * logits f32 [1, V]; y u32 [1] the token. Both states are updated: the session's token (in its history too) and first id, the step and the token's count. Minus infinity is never drawn; where nothing
 * else is left, or a logit is NaN or plus infinity, the token is `noToken` and the id 0.
 */
const redraw: OpDefinition<'redraw'> = {
  arity: 3,
  updates: [0, 1],
  type([state, sampling, logits]) {
    const [session, settings, row] = [need(state), need(sampling), need(logits)];
    expectFloat('redraw', 'the logits', row);
    expectRank('redraw', 'the logits', row, 2);
    expectEqual('redraw', 'rows of the logits', row.shape[0], 1);
    expectWords('the session state', session, stateWord.ids + 1);
    expectWords('the sampling state', settings, samplingWords(row.shape[1] ?? 0));
    return { dtype: 'u32', shape: [1] };
  },
  reference: (inputs) => Float64Array.of(redrawn(inputs).token),
  updated(inputs) {
    const { session, sampling } = redrawn(inputs);
    return [session, sampling];
  },
};

function expectWords(what: string, type: TensorType, least: number): void {
  if (type.dtype !== 'u32' || type.shape.length !== 1 || elementCount(type.shape) < least)
    throw new ShapeError(`redraw: ${what} must be u32 of at least ${least} words, got ${formatType(type)}`);
}

export const samplingOps = { redraw };
