/** A decoder in f64, written out: what the forward pass is measured against, with no graph and no operation table in between. */

import { randomFloats, seededRandom } from '../../src/ops/cases/weight-data.js';

export interface PlainShape {
  readonly numLayers: number;
  readonly hiddenDim: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly intermediateDim: number;
  readonly vocabSize: number;
  readonly eps: number;
  readonly ropeBase: number;
  readonly ropePairing: 'adjacent' | 'halves';
  readonly qkvBias: boolean;
}

/** A model that is made in no time, for what does not hang on its sizes. */
export const smallShape: PlainShape = {
  numLayers: 1,
  hiddenDim: 32,
  numHeads: 2,
  numKvHeads: 1,
  headDim: 16,
  intermediateDim: 64,
  vocabSize: 48,
  eps: 1e-5,
  ropeBase: 1e4,
  ropePairing: 'adjacent',
  qkvBias: false,
};

export type PlainWeights = ReadonlyMap<string, Float32Array>;

/** Random weights by the names of the forward pass, of sizes that keep the residual stream near 1. */
export function plainWeights(shape: PlainShape, seed: number): Map<string, Float32Array> {
  const random = seededRandom(seed);
  const { hiddenDim, intermediateDim, vocabSize, numHeads, numKvHeads, headDim } = shape;
  const matrix = (rows: number, columns: number): Float32Array => randomFloats(rows * columns, random).map((value) => (value * 1.5) / Math.sqrt(columns));
  const vector = (size: number, middle: number): Float32Array => randomFloats(size, random).map((value) => middle + value / 2);
  const [q, kv] = [numHeads * headDim, numKvHeads * headDim];
  const weights = new Map([['embedding', randomFloats(vocabSize * hiddenDim, random)]]);
  for (let layer = 0; layer < shape.numLayers; layer++) {
    const put = (name: string, data: Float32Array) => weights.set(`layer.${layer}.${name}`, data);
    put('attn_norm', vector(hiddenDim, 1));
    put('q_proj', matrix(q, hiddenDim));
    put('k_proj', matrix(kv, hiddenDim));
    put('v_proj', matrix(kv, hiddenDim));
    put('o_proj', matrix(hiddenDim, q));
    put('ffn_norm', vector(hiddenDim, 1));
    put('gate_proj', matrix(intermediateDim, hiddenDim));
    put('up_proj', matrix(intermediateDim, hiddenDim));
    put('down_proj', matrix(hiddenDim, intermediateDim));
    if (!shape.qkvBias) continue;
    put('q_bias', vector(q, 0));
    put('k_bias', vector(kv, 0));
    put('v_bias', vector(kv, 0));
  }
  weights.set('out_norm', vector(hiddenDim, 1));
  weights.set('lm_head', matrix(vocabSize, hiddenDim));
  return weights;
}

export class PlainDecoder {
  readonly #shape: PlainShape;
  readonly #weights: PlainWeights;
  readonly #keys: Float64Array[][];
  readonly #values: Float64Array[][];

  constructor(shape: PlainShape, weights: PlainWeights) {
    this.#shape = shape;
    this.#weights = weights;
    this.#keys = Array.from({ length: shape.numLayers }, () => []);
    this.#values = Array.from({ length: shape.numLayers }, () => []);
  }

  /** Logits after a token at a position. */
  model(token: number, position: number): Float64Array {
    const { hiddenDim, numLayers } = this.#shape;
    let hidden = Float64Array.from(this.#weight('embedding').subarray(token * hiddenDim, (token + 1) * hiddenDim));
    for (let layer = 0; layer < numLayers; layer++) hidden = this.layer(hidden, layer, position);
    return product(this.#weight('lm_head'), this.#norm(hidden, 'out_norm'));
  }

  /** One row of the residual stream after a layer. */
  layer(hidden: Float64Array, layer: number, position: number): Float64Array<ArrayBuffer> {
    const weight = (name: string) => this.#weight(`layer.${layer}.${name}`);
    const normed = this.#norm(hidden, `layer.${layer}.attn_norm`);
    const project = (name: string): Float64Array => {
      const y = product(weight(`${name}_proj`), normed);
      return this.#shape.qkvBias ? sum(y, weight(`${name}_bias`)) : y;
    };
    const q = this.#rope(project('q'), position);
    (this.#keys[layer] ?? [])[position] = this.#rope(project('k'), position);
    (this.#values[layer] ?? [])[position] = project('v');
    const attended = sum(hidden, product(weight('o_proj'), this.#attention(q, layer, position)));
    const inner = this.#norm(attended, `layer.${layer}.ffn_norm`);
    const up = product(weight('up_proj'), inner);
    const gated = product(weight('gate_proj'), inner).map((g, i) => (g / (1 + Math.exp(-g))) * (up[i] ?? 0));
    return sum(attended, product(weight('down_proj'), gated));
  }

  #attention(q: Float64Array, layer: number, position: number): Float64Array {
    const { numHeads, numKvHeads, headDim } = this.#shape;
    const mixed = new Float64Array(q.length);
    for (let head = 0; head < numHeads; head++) {
      const kv = Math.floor(head / (numHeads / numKvHeads)) * headDim;
      const scores = Float64Array.from({ length: position + 1 }, (_, p) => {
        const key = this.#keys[layer]?.[p] ?? new Float64Array();
        let score = 0;
        for (let i = 0; i < headDim; i++) score += (q[head * headDim + i] ?? 0) * (key[kv + i] ?? 0);
        return score / Math.sqrt(headDim);
      });
      const max = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((score) => Math.exp(score - max));
      const total = weights.reduce((a, b) => a + b);
      for (let i = 0; i < headDim; i++) {
        mixed[head * headDim + i] = weights.reduce((y, w, p) => y + (w / total) * (this.#values[layer]?.[p]?.[kv + i] ?? 0), 0);
      }
    }
    return mixed;
  }

  #rope(x: Float64Array, position: number): Float64Array {
    const { headDim, ropeBase, ropePairing } = this.#shape;
    const y = Float64Array.from(x);
    for (let start = 0; start < x.length; start += headDim) {
      for (let i = 0; i < headDim / 2; i++) {
        const [a, b] = ropePairing === 'halves' ? [start + i, start + i + headDim / 2] : [start + 2 * i, start + 2 * i + 1];
        const angle = position * ropeBase ** ((-2 * i) / headDim);
        y[a] = (x[a] ?? 0) * Math.cos(angle) - (x[b] ?? 0) * Math.sin(angle);
        y[b] = (x[a] ?? 0) * Math.sin(angle) + (x[b] ?? 0) * Math.cos(angle);
      }
    }
    return y;
  }

  #norm(x: Float64Array, name: string): Float64Array {
    const gain = this.#weight(name);
    const scale = 1 / Math.sqrt(x.reduce((total, value) => total + value * value, 0) / x.length + this.#shape.eps);
    return x.map((value, i) => value * scale * (gain[i] ?? 0));
  }

  #weight(name: string): Float32Array {
    const weight = this.#weights.get(name);
    if (weight === undefined) throw new Error(`no weight ${name}`);
    return weight;
  }
}

/** W x, W [N, K] row-major. */
function product(w: Float32Array, x: Float64Array): Float64Array {
  return Float64Array.from({ length: w.length / x.length }, (_, n) => x.reduce((y, value, k) => y + value * (w[n * x.length + k] ?? 0), 0));
}

function sum(a: Float64Array, b: ArrayLike<number>): Float64Array<ArrayBuffer> {
  return Float64Array.from(a, (value, i) => value + (b[i] ?? 0));
}
