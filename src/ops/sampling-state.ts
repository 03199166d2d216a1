/**
 * The sampling state of a generation: one u32 tensor [samplingWords(vocabulary)] that is written when a generation begins and that `redraw` reads and updates, so that drawing the next
 * token needs no upload and no new kernel.
 *
 * words 0 to 6   temperature, topK (u32, 0 for all), topP, minP, repetition, frequency and presence penalty: f32 bits but for topK
 * words 7, 8     the seed's key, low word first
 * word 9         step: tokens drawn since the generation began
 * words 16 on    one for each token of the vocabulary: the times that it was drawn, and in the highest bit whether it is in the prompt
 */

import { seedKey } from '../core/random.js';

export const samplingWord = {
  temperature: 0,
  topK: 1,
  topP: 2,
  minP: 3,
  repetition: 4,
  frequency: 5,
  presence: 6,
  seed: 7,
  step: 9,
  counts: 16,
} as const;

/** Of a word of `counts`: whether the token is in the prompt. */
export const promptBit = 0x8000_0000;

export function samplingWords(vocabulary: number): number {
  return samplingWord.counts + vocabulary;
}

/** How a token is chosen. The steps run in this order: penalties, temperature, top-k, top-p, min-p, draw. */
export interface SamplingParameters {
  /** Logits are divided by it; 0 takes the most likely token. */
  readonly temperature: number;
  /** Keep the k most likely tokens, lower ids first where they are equal; 0 keeps all. */
  readonly topK: number;
  /** Keep the fewest most likely of those whose probabilities sum to at least p; 1 keeps all. */
  readonly topP: number;
  /** Keep tokens at least this fraction as likely as the most likely one; 0 keeps all. */
  readonly minP: number;
  /** Divides positive and multiplies negative logits of tokens in the prompt or drawn since; 1 does nothing. */
  readonly repetitionPenalty: number;
  /** Subtracted from a token's logit for each time that it was drawn. */
  readonly frequencyPenalty: number;
  /** Subtracted from the logit of every token that was drawn. */
  readonly presencePenalty: number;
  /** Integer from 0 to 2^53 - 1. */
  readonly seed: number;
}

/** Whether tokens of the prompt and tokens drawn before matter. */
export function isPenalised({ repetitionPenalty, frequencyPenalty, presencePenalty }: SamplingParameters): boolean {
  return repetitionPenalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0;
}

/** Temperatures below this are 0: quotients by them leave f32. */
const leastTemperature = 2 ** -100;

/** The least part of the probabilities that f32 holds: 0 would keep no token. */
const leastPart = 2 ** -126;

/** The words before `counts` for a generation that has drawn `step` tokens. */
export function samplingHeader(parameters: SamplingParameters, step = 0): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(samplingWord.counts);
  const floats = new Float32Array(words.buffer);
  const { temperature, topP, minP, repetitionPenalty, frequencyPenalty, presencePenalty } = parameters;
  floats[samplingWord.temperature] = temperature < leastTemperature ? 0 : temperature;
  words[samplingWord.topK] = parameters.topK;
  floats[samplingWord.topP] = Math.max(topP, leastPart);
  floats[samplingWord.minP] = minP;
  floats[samplingWord.repetition] = repetitionPenalty;
  floats[samplingWord.frequency] = frequencyPenalty;
  floats[samplingWord.presence] = presencePenalty;
  words.set(seedKey(parameters.seed), samplingWord.seed);
  words[samplingWord.step] = step;
  return words;
}

/** The parameters and the step that a header holds. */
export function readSamplingHeader(header: ArrayLike<number>): { readonly parameters: SamplingParameters; readonly step: number } {
  const words = Uint32Array.from({ length: samplingWord.counts }, (_, i) => header[i] ?? 0);
  const floats = new Float32Array(words.buffer);
  const float = (word: number): number => floats[word] ?? 0;
  const integer = (word: number): number => words[word] ?? 0;
  return {
    step: integer(samplingWord.step),
    parameters: {
      temperature: float(samplingWord.temperature),
      topK: integer(samplingWord.topK),
      topP: float(samplingWord.topP),
      minP: float(samplingWord.minP),
      repetitionPenalty: float(samplingWord.repetition),
      frequencyPenalty: float(samplingWord.frequency),
      presencePenalty: float(samplingWord.presence),
      seed: integer(samplingWord.seed + 1) * 2 ** 32 + integer(samplingWord.seed),
    },
  };
}

/** The parameters as a sampling state holds them, in f32: who draws by these draws as a device does, where sums of equal parts end exactly at top-p too. */
export function heldParameters(parameters: SamplingParameters): SamplingParameters {
  return readSamplingHeader(samplingHeader(parameters)).parameters;
}
