/** What the two kernels of `redraw` share: the layout of what one hands to the other, and the text of penalties, order and noise. */

import { samplingWord } from '../../ops/sampling-state.js';

/** Logits of a thread of the survey: four vectors, `surveyThreads` vectors apart. They are a group, whose largest is handed on. */
const vectors = 4;
export const surveyThreads = 256;
/** Logits of a workgroup of the survey. */
export const chunkSize = 4 * vectors * surveyThreads;

/**
 * What the survey gives, in u32 words: the header of the sampling state; four words for each chunk (order of the largest logit, sum of weights as f32 bits, order of the best score, its
 * token); the order of each group's largest logit, by chunk and thread.
 */
export interface SurveyLayout {
  readonly vocabulary: number;
  readonly chunks: number;
  readonly groups: number;
  readonly chunksAt: number;
  readonly groupsAt: number;
  readonly words: number;
}

export function surveyLayout(vocabulary: number): SurveyLayout {
  const chunks = Math.ceil(vocabulary / chunkSize);
  const groups = chunks * surveyThreads;
  const chunksAt = samplingWord.counts;
  const groupsAt = chunksAt + 4 * chunks;
  return { vocabulary, chunks, groups, chunksAt, groupsAt, words: groupsAt + groups };
}

/** Tokens of the four logits of a vector of a group: WGSL for the first one's id. */
export const vectorStart = (chunk: string, thread: string, vector: number): string =>
  `${chunk} * ${chunkSize}u + ${vector * 4 * surveyThreads}u + ${thread} * 4u`;

export const groupVectors = vectors;

/** The order of minus infinity: what is above it and below infinity can be drawn. */
export const lowestOrder = '0x007fffffu';
export const infiniteOrder = '0xff800000u';

/** Declares what the functions below read, set by `readParameters`. */
const parameters = `var<private> temperature: f32;
var<private> repetition: f32;
var<private> frequency: f32;
var<private> presence: f32;
var<private> penalises: bool;
`;

/** Sets the private parameters from words of `source`, which hold a sampling header. */
export const readParameters = (source: string): string => `  temperature = bitcast<f32>(${source}[${samplingWord.temperature}]);
  repetition = bitcast<f32>(${source}[${samplingWord.repetition}]);
  frequency = bitcast<f32>(${source}[${samplingWord.frequency}]);
  presence = bitcast<f32>(${source}[${samplingWord.presence}]);
  penalises = repetition != 1.0 || frequency != 0.0 || presence != 0.0;
`;

/** `orders(first)`: the orders of four penalised logits, 0 beyond the vocabulary. Wants the bindings `logits` and `sampling`. */
export function logitFunctions(vocabulary: number): string {
  const whole = vocabulary % 4 === 0;
  const load = whole
    ? `  let x = logits[first / 4u];
  return vec4<u32>(orderOf(x.x, first), orderOf(x.y, first + 1u), orderOf(x.z, first + 2u), orderOf(x.w, first + 3u));
`
    : `  var result = vec4<u32>(0u);
  for (var i = 0u; i < 4u; i++) {
    if (first + i < ${vocabulary}u) { result[i] = orderOf(logits[first + i], first + i); }
  }
  return result;
`;
  return `${parameters}/** An unsigned integer in the order of the floats, both zeros equal, NaN above all: one among the logits ends the generation. */
fn order(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return 0xffffffffu; }
  if (magnitude == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, bits != magnitude);
}

/** The number of an order that is not NaN's. */
fn numberOf(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

fn penalised(logit: f32, token: u32) -> f32 {
  let count = sampling[${samplingWord.counts}u + token];
  if (count == 0u) { return logit; }
  let repeated = select(logit * repetition, logit / repetition, logit > 0.0);
  let drawn = count & 0x7fffffffu;
  if (drawn == 0u) { return repeated; }
  return repeated - f32(drawn) * frequency - presence;
}

fn orderOf(logit: f32, token: u32) -> u32 {
  let bare = order(logit);
  if (!penalises || bare == 0xffffffffu) { return bare; }
  return order(penalised(logit, token));
}

fn orders(first: u32) -> vec4<u32> {
  if (first >= ${vocabulary}u) { return vec4<u32>(0u); }
${load}}
`;
}

/** The element type of the `logits` binding. */
export const logitType = (vocabulary: number): string => (vocabulary % 4 === 0 ? 'vec4<f32>' : 'f32');

/**
 * `noise(token, step, seed)`: the Gumbel noise of a token, from Philox4x32-10 as core/random.ts has it; -log(u) of the upper half by a series in (1 - u) / (1 + u), because WGSL's
 * log is only absolutely accurate there, and the noise of the likeliest draws hangs on it.
 */
export const noiseFunctions = `fn mulHigh(a: u32, b: u32) -> u32 {
  let al = a & 0xffffu;
  let ah = a >> 16u;
  let bl = b & 0xffffu;
  let bh = b >> 16u;
  let middle = ah * bl + ((al * bl) >> 16u);
  let carry = al * bh + (middle & 0xffffu);
  return ah * bh + (middle >> 16u) + (carry >> 16u);
}

fn philox(block: u32, step: u32, seed: vec2<u32>) -> vec4<u32> {
  var c = vec4<u32>(block, step, 0u, 0u);
  var k = seed;
  for (var round = 0u; round < 10u; round++) {
    let high = vec2<u32>(mulHigh(0xd2511f53u, c.x), mulHigh(0xcd9e8d57u, c.z));
    let low = vec2<u32>(0xd2511f53u * c.x, 0xcd9e8d57u * c.z);
    c = vec4<u32>(high.y ^ c.y ^ k.x, low.y, high.x ^ c.w ^ k.y, low.x);
    k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}

fn gumbel(word: u32) -> f32 {
  let part = f32(word >> 9u) + 0.5;
  let u = part / 8388608.0;
  let s = (8388608.0 - part) / (8388608.0 + part);
  let q = s * s;
  let series = 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q * (1.0 / 13.0 + q / 15.0)))))));
  return -log(select(-log(u), series, u > 0.5));
}

fn noise(token: u32, step: u32, seed: vec2<u32>) -> f32 {
  return gumbel(philox(token / 4u, step, seed)[token % 4u]);
}
`;

/** Whether no filter applies, so that the survey draws itself. A low temperature is left to the other kernel, which takes logits from the largest one down before it divides. */
export const isUnfiltered = (source: string, vocabulary: number): string =>
  `${keepsAll(source, vocabulary)} && bitcast<f32>(${source}[${samplingWord.topP}]) >= 1.0 && bitcast<f32>(${source}[${samplingWord.minP}]) <= 0.0 && bitcast<f32>(${source}[${samplingWord.temperature}]) >= 0.25`;

/** Whether top-k keeps all tokens. */
export const keepsAll = (source: string, vocabulary: number): string =>
  `(${source}[${samplingWord.topK}] == 0u || ${source}[${samplingWord.topK}] >= ${vocabulary}u)`;
