/** Draws from rows of one chunk and of several, of a multiple of four tokens and not, by every filter alone and together. */

import { bytesOf } from '../../core/bytes.js';
import type { OpCase } from '../case.js';
import { promptBit, type SamplingParameters, samplingHeader, samplingWord, samplingWords } from '../sampling-state.js';
import { sessionInput } from './session.js';
import { seededRandom } from './weight-data.js';

interface Draw extends Partial<SamplingParameters> {
  readonly name: string;
  readonly vocabulary: number;
  /** The logit of a token; a bell of about +-10 where it is left out. */
  readonly logit?: (token: number) => number;
  readonly step?: number;
}

const bare: SamplingParameters = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  seed: 7,
};

/** Unlikely, and likely tokens that are no neighbours. */
const hills = (token: number): number => (token % 97 === 3 ? 9 + ((token * 31) % 64) / 16 : -((token * 7) % 128) / 32);

const draws: readonly Draw[] = [
  { name: 'unfiltered', vocabulary: 7, step: 3 },
  { name: 'unfiltered, several chunks', vocabulary: 8200, temperature: 1.5, step: 2 ** 20 },
  { name: 'as usual', vocabulary: 8200, temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05, seed: 2 ** 53 - 1 },
  { name: 'top-k alone, odd vocabulary', vocabulary: 4099, topK: 64, seed: 11 },
  { name: 'top-k of more than the groups', vocabulary: 4099, topK: 700, logit: hills },
  { name: 'top-p alone', vocabulary: 4099, topP: 0.9, temperature: 2 },
  { name: 'top-p of equal logits', vocabulary: 600, topP: 0.5, logit: () => 1.5 },
  { name: 'top-p of two equal logits, which the first reaches', vocabulary: 2, topP: 0.5, seed: 1, logit: () => 1.5 },
  { name: 'top-k of equal logits', vocabulary: 600, topK: 37, logit: (token) => (token < 500 ? 2 : 3 - token) },
  { name: 'min-p alone, low temperature', vocabulary: 600, minP: 0.02, temperature: 0.05, logit: (token) => (token % 50) / 64 },
  { name: 'the most likely one', vocabulary: 600, topK: 1, temperature: 3, logit: (token) => (token === 77 || token === 300 ? 4 : 3.5) },
  { name: 'temperature 0, penalties', vocabulary: 600, temperature: 0, repetitionPenalty: 1.3, frequencyPenalty: 0.5, presencePenalty: 0.25, logit: hills },
  {
    name: 'everything',
    vocabulary: 8200,
    topK: 200,
    topP: 0.99,
    minP: 0.01,
    repetitionPenalty: 1.1,
    frequencyPenalty: 0.2,
    presencePenalty: -0.1,
    logit: hills,
  },
  {
    name: 'minus infinity among them',
    vocabulary: 600,
    topK: 9,
    topP: 0.9,
    logit: (token) => (token % 2 === 0 ? Number.NEGATIVE_INFINITY : 0),
  },
  { name: 'nothing but minus infinity', vocabulary: 7, topK: 2, logit: () => Number.NEGATIVE_INFINITY },
  { name: 'one NaN', vocabulary: 600, temperature: 0, logit: (token) => (token === 431 ? Number.NaN : token) },
  { name: 'infinity', vocabulary: 7, logit: (token) => (token === 2 ? Number.POSITIVE_INFINITY : 0) },
];

/** A sampling state in which some tokens are in the prompt and some were drawn. */
export function samplingBytes(vocabulary: number, parameters: SamplingParameters, step = 0): Uint8Array {
  const words = new Uint32Array(samplingWords(vocabulary));
  words.set(samplingHeader(parameters, step));
  for (let token = 0; token < vocabulary; token++) {
    words[samplingWord.counts + token] = (token % 5 === 0 ? promptBit : 0) + (token % 3 === 0 ? token % 4 : 0);
  }
  return bytesOf(words);
}

export function redrawCases(): readonly OpCase<'redraw'>[] {
  return draws.map(({ name, vocabulary, logit, step = 0, ...parameters }, i) => {
    const random = seededRandom(2100 + i);
    const row = Float32Array.from({ length: vocabulary }, (_, token) => logit?.(token) ?? 14 * (random() + random() + random() - 1.5));
    return {
      name: `redraw ${name} [${vocabulary}]`,
      op: 'redraw',
      params: {},
      inputs: [
        sessionInput(9, 1, 4),
        { role: 'state', type: { dtype: 'u32', shape: [samplingWords(vocabulary)] }, bytes: samplingBytes(vocabulary, { ...bare, ...parameters }, step) },
        { role: 'input', type: { dtype: 'f32', shape: [1, vocabulary] }, bytes: bytesOf(row) },
      ],
      tolerance: {},
    };
  });
}
