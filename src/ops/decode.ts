/**
 * Operations of the decode step, one token a run: what the rewrites of graph/rewrite-decode.ts fuse. Each means exactly what the plain operations mean that it is made of;
 * a target may keep activations in a form of its own between them.
 */

import { ShapeError } from '../core/errors.js';
import { elementCount, formatType, type TensorType } from '../core/tensor.js';
import { attentionOps } from './attention.js';
import { expectEqual, expectFloat, expectRank, type HostTensor, need, type OpDefinition } from './definition.js';
import { elementwiseOps } from './elementwise.js';
import { linearOps } from './linear.js';
import type { OpParams } from './params.js';
import { noToken, stateWord } from './state.js';

const vector = (values: Float64Array): HostTensor => ({ shape: [1, values.length], data: values });
const floats = (shape: readonly number[]): TensorType => ({ dtype: 'f32', shape });

function expectToken(op: string, x: TensorType): number {
  expectFloat(op, 'x', x);
  expectRank(op, 'x', x, 2);
  expectEqual(op, 'rows of x', x.shape[0], 1);
  return x.shape[1] ?? 0;
}

/** The rows of a weight that takes `width` columns. */
function expectWeight(op: string, what: string, weight: TensorType, width: number): number {
  expectRank(op, what, weight, 2);
  expectEqual(op, `columns of ${what}`, weight.shape[1], width);
  return weight.shape[0] ?? 0;
}

function expectVector(op: string, what: string, type: TensorType, length: number): void {
  expectFloat(op, what, type);
  expectEqual(op, `elements of ${what}`, elementCount(type.shape), length);
}

function product(x: HostTensor, w: HostTensor, bias?: HostTensor): Float64Array {
  const rows = w.shape[0] ?? 0;
  return linearOps.linear.reference(bias === undefined ? [x, w] : [x, w, bias], { bias: bias !== undefined, residual: false }, floats([1, rows]));
}

function normed(x: HostTensor, gain: HostTensor, eps: number): HostTensor {
  return vector(linearOps.rmsNorm.reference([x, gain], { eps }, floats(x.shape)));
}

/**
 * y = norm(x) wᵀ (+ bias) (+ residual) for one token: x f32 [1, K], w any type [N, K], y f32 [1, N]. Inputs in order: x, the norm's gain [K] where `eps` is given, w, bias [N] and
 * residual [1, N] where the parameters say so.
 */
const tokenLinear: OpDefinition<'tokenLinear'> = {
  arity: [2, 5],
  type(inputs, params) {
    const { x, gain, w, bias, residual } = tokenLinearInputs(inputs, params);
    const width = expectToken('tokenLinear', x);
    if (gain !== undefined) expectVector('tokenLinear', 'the gain', gain, width);
    const rows = expectWeight('tokenLinear', 'the weight', w, width);
    if (bias !== undefined) expectVector('tokenLinear', 'the bias', bias, rows);
    if (residual !== undefined) expectEqual('tokenLinear', 'columns of the residual', expectToken('tokenLinear', residual), rows);
    return floats([1, rows]);
  },
  reference(inputs, params, output) {
    const { x, gain, w, bias, residual } = tokenLinearInputs(inputs, params);
    const source = gain === undefined ? x : normed(x, gain, params.eps ?? 0);
    const extra = [bias, residual].filter((input) => input !== undefined);
    return linearOps.linear.reference([source, w, ...extra], { bias: params.bias, residual: params.residual }, output);
  },
};

/** The inputs of a tokenLinear by their roles. */
export function tokenLinearInputs<T>(inputs: readonly T[], params: OpParams['tokenLinear']): { x: T; gain?: T; w: T; bias?: T; residual?: T } {
  let next = 0;
  const take = (): T => need(inputs[next++]);
  const parts = {
    x: take(),
    ...(params.eps === undefined ? {} : { gain: take() }),
    w: take(),
    ...(params.bias ? { bias: take() } : {}),
    ...(params.residual ? { residual: take() } : {}),
  };
  if (next !== inputs.length) throw new ShapeError(`tokenLinear: ${next} inputs follow from its parameters, got ${inputs.length}`);
  return parts;
}

/**
 * Queries, keys and values of one token, raw, one after the other: y = [norm(x) wqᵀ + bq, norm(x) wkᵀ + bk, norm(x) wvᵀ + bv], f32 [1, Nq + Nk + Nv]. Inputs: x f32 [1, K], gain [K], wq, wk, wv
 * [N, K] of any types, and the three biases where `biases` is set.
 */
const qkv: OpDefinition<'qkv'> = {
  arity: [5, 8],
  type([x, gain, ...rest], { biases }) {
    const width = expectToken('qkv', need(x));
    expectVector('qkv', 'the gain', need(gain), width);
    expectEqual('qkv', 'number of weights and biases', rest.length, biases ? 6 : 3);
    const rows = rest.slice(0, 3).map((weight) => expectWeight('qkv', 'a weight', weight, width));
    for (const [i, count] of biases ? rows.entries() : []) expectVector('qkv', 'a bias', need(rest[3 + i]), count);
    return floats([1, rows.reduce((sum, count) => sum + count, 0)]);
  },
  reference([x, gain, ...rest], { eps, biases }) {
    const source = normed(need(x), need(gain), eps);
    const parts = [0, 1, 2].map((i) => product(source, need(rest[i]), biases ? need(rest[3 + i]) : undefined));
    return Float64Array.from(parts.flatMap((part) => [...part]));
  },
};

/** y = silu(norm(x) gateᵀ) * norm(x) upᵀ for one token: x f32 [1, K], gain [K], gate and up [N, K] of any types, y f32 [1, N]. */
const gatedProduct: OpDefinition<'gatedProduct'> = {
  arity: 4,
  type([x, gain, gate, up]) {
    const width = expectToken('gatedProduct', need(x));
    expectVector('gatedProduct', 'the gain', need(gain), width);
    const rows = expectWeight('gatedProduct', 'gate', need(gate), width);
    expectEqual('gatedProduct', 'rows of up', expectWeight('gatedProduct', 'up', need(up), width), rows);
    return floats([1, rows]);
  },
  reference([x, gain, gate, up], { eps }, output) {
    const source = normed(need(x), need(gain), eps);
    return elementwiseOps.swiglu.reference([vector(product(source, need(gate))), vector(product(source, need(up)))], {}, output);
  },
};

/** Heads of an attendToken, from its types. */
export function attendTokenShape([keys, , raw]: readonly TensorType[]): { heads: number; kvHeads: number; width: number; capacity: number } {
  const [kvHeads = 1, capacity = 0, width = 1] = need(keys).shape;
  return { heads: (need(raw).shape[1] ?? 0) / width - 2 * kvHeads, kvHeads, width, capacity };
}

/**
 * Attention of one token whose raw queries, keys and values are one vector f32 [1, (H + 2 G) D]: each head of Q and K is normed (where `eps` is given), Q and K turn, K and V go into the caches at the
 * state's position, and Q attends to positions 0 to there; y f32 [1, H D]. Updates both caches. Inputs: keys and values [G, C, D], the vector, the angles (see `rope`: one row spares kernels to wait for the position), state, and the
 * gains [D] of Q and K where `eps` is given. The caller promises that the position is below `window`.
 */
const attendToken: OpDefinition<'attendToken'> = {
  arity: [5, 7],
  updates: [0, 1],
  type(inputs, params) {
    const [keys, values, raw, table, state, ...gains] = inputs;
    const { heads, kvHeads, width, capacity } = attendTokenShape(inputs);
    expectToken('attendToken', need(raw));
    expectEqual('attendToken', 'number of gains', gains.length, params.eps === undefined ? 0 : 2);
    for (const gain of gains) expectVector('attendToken', 'a gain', gain, width);
    if (!(Number.isInteger(heads) && heads > 0))
      throw new ShapeError(`attendToken: ${formatType(need(raw))} does not hold queries, keys and values of ${width}`);
    if (!(params.window >= 1 && params.window <= capacity))
      throw new ShapeError(`attendToken: the window must be 1 to the ${capacity} positions of the cache, got ${params.window}`);
    attentionOps.rope.type([floats([1, heads, width]), need(table), need(state)], { pairing: params.pairing });
    attentionOps.cacheWrite.type([need(keys), floats([1, kvHeads, width]), need(state)], {});
    attentionOps.attention.type([floats([1, heads, width]), need(keys), need(values), need(state)], { scale: params.scale });
    return floats([1, heads * width]);
  },
  reference(inputs, params) {
    const { q, keys, values, state } = attended(inputs, params);
    return attentionOps.attention.reference([q, keys, values, state], { scale: params.scale }, floats(q.shape));
  },
  updated(inputs, params) {
    const { keys, values } = attended(inputs, params);
    return [keys.data, values.data];
  },
};

/** The turned queries and the caches that hold this token. */
function attended(inputs: readonly HostTensor[], params: OpParams['attendToken']): { q: HostTensor; keys: HostTensor; values: HostTensor; state: HostTensor } {
  const [keys, values, raw, table, state, qGain, kGain] = inputs;
  const [cacheK, cacheV, all, angles, session] = [need(keys), need(values), need(raw), need(table), need(state)];
  const { heads, kvHeads, width } = attendTokenShape([
    { dtype: 'f32', shape: cacheK.shape },
    { dtype: 'f32', shape: cacheV.shape },
    { dtype: 'f32', shape: all.shape },
  ]);
  const position = session.data[stateWord.position] ?? 0;
  if (position >= params.window) throw new ShapeError(`attendToken: position ${position} is not below the window of ${params.window}`);
  const part = (first: number, count: number): HostTensor => ({ shape: [1, count, width], data: all.data.slice(first * width, (first + count) * width) });
  const turned = (x: HostTensor, gain: HostTensor | undefined): HostTensor => {
    const data = gain === undefined ? x.data : linearOps.rmsNorm.reference([x, gain], { eps: params.eps ?? 0 }, floats(x.shape));
    return { shape: x.shape, data: attentionOps.rope.reference([{ shape: x.shape, data }, angles, session], { pairing: params.pairing }, floats(x.shape)) };
  };
  const write = (cache: HostTensor, x: HostTensor): HostTensor => ({
    shape: cache.shape,
    data: attentionOps.cacheWrite.reference([cache, x, session], {}, floats(cache.shape)),
  });
  return {
    q: turned(part(0, heads), qGain),
    keys: write(cacheK, turned(part(heads, kvHeads), kGain)),
    values: write(cacheV, part(heads + kvHeads, kvHeads)),
    state: session,
  };
}

/**
 * Chooses the most likely token, the first where several are equal, and ends the step with it as `advance` does. Where a logit is not a number the token is `noToken`. Inputs: state, logits
 * f32 [1, V].
 */
const chooseNext: OpDefinition<'chooseNext'> = {
  arity: 2,
  updates: 0,
  type([state, logits]) {
    return attentionOps.advance.type([need(state), linearOps.argmax.type([need(logits)], {})], {});
  },
  reference([state, logits], _, output) {
    const row = need(logits);
    const best = row.data.some(Number.isNaN) ? Float64Array.of(noToken) : linearOps.argmax.reference([row], {}, { dtype: 'u32', shape: [1] });
    return attentionOps.advance.reference([need(state), { shape: [1], data: best }], {}, output);
  },
};

export const decodeOps = { tokenLinear, qkv, gatedProduct, attendToken, chooseNext };
