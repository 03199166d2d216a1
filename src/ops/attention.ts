import { dtypes } from '../core/dtype.js';
import { ShapeError } from '../core/errors.js';
import { elementCount, formatType, type TensorType } from '../core/tensor.js';
import { expectEqual, expectFloat, expectRank, type HostTensor, need, type OpDefinition } from './definition.js';
import type { OpParams } from './params.js';
import { advanceState, stateWord, stateWords } from './state.js';

function expectState(op: string, type: TensorType): void {
  // `advance` writes up to the first id: a shorter tensor would be written past its end.
  if (type.dtype !== 'u32' || type.shape.length !== 1 || (type.shape[0] ?? 0) < stateWords(1))
    throw new ShapeError(`${op}: the state must be u32 [${stateWords(1)} words or more], got ${formatType(type)}`);
}

function expectCache(op: string, what: string, type: TensorType): void {
  expectRank(op, what, type, 3);
  if (type.dtype !== 'f32' && type.dtype !== 'f16' && type.dtype !== 'q8_planes')
    throw new ShapeError(`${op}: ${what} must be f32, f16 or q8_planes, got ${formatType(type)}`);
  const { block } = dtypes[type.dtype];
  if ((type.shape[2] ?? 0) % block !== 0) throw new ShapeError(`${op}: ${what} must have heads of whole blocks of ${block}, got ${formatType(type)}`);
}

interface Extent {
  readonly position: number;
  readonly rows: number;
}

function extentOf(state: HostTensor): Extent {
  return { position: state.data[stateWord.position] ?? 0, rows: state.data[stateWord.rows] ?? 0 };
}

/** y[0] = x[rows - 1], the last live row: x f32 [T, D], state, y f32 [1, D]. */
const lastRow: OpDefinition<'lastRow'> = {
  arity: 2,
  type([x, state]) {
    const input = need(x);
    expectRank('lastRow', 'x', input, 2);
    expectFloat('lastRow', 'x', input);
    expectState('lastRow', need(state));
    return { dtype: 'f32', shape: [1, input.shape[1] ?? 0] };
  },
  reference([x, state]) {
    const { shape, data } = need(x);
    const width = shape[1] ?? 0;
    const { rows } = extentOf(need(state));
    return data.slice((rows - 1) * width, rows * width);
  },
};

/**
 * Rotary position embedding. x f32 [T, H, D]; table f32 [P, R/2, 2] of (cos, sin) with R <= D, row p for position p; state. The first R elements of each head turn in
 * pairs, the rest pass: y[a] = x[a] cos - x[b] sin, y[b] = x[a] sin + x[b] cos with (a, b) by the pairing. Row t has position `position + t`. A table of one row is the row of whatever position.
 */
const rope: OpDefinition<'rope'> = {
  arity: 3,
  type([x, table, state]) {
    const [input, angles] = [need(x), need(table)];
    expectRank('rope', 'x', input, 3);
    expectFloat('rope', 'x', input);
    expectRank('rope', 'the table', angles, 3);
    expectFloat('rope', 'the table', angles);
    expectEqual('rope', 'the last axis of the table', angles.shape[2], 2);
    if (2 * (angles.shape[1] ?? 0) > (input.shape[2] ?? 0))
      throw new ShapeError(`rope: ${formatType(angles)} turns more than the heads of ${formatType(input)}`);
    expectState('rope', need(state));
    return input;
  },
  reference([x, table, state], { pairing }) {
    const [input, angles] = [need(x), need(table)];
    const [heads, width, half] = [input.shape[1] ?? 0, input.shape[2] ?? 0, angles.shape[1] ?? 0];
    const { position, rows } = extentOf(need(state));
    const positions = angles.shape[0] ?? 0;
    if (positions > 1 && position + rows > positions)
      throw new ShapeError(`rope: positions ${position} to ${position + rows} are beyond the ${positions} of the table`);
    const y = input.data.slice();
    for (let t = 0; t < rows; t++) {
      for (let head = 0; head < heads; head++) {
        const start = (t * heads + head) * width;
        for (let i = 0; i < half; i++) {
          const [a, b] = pairing === 'adjacent' ? [start + 2 * i, start + 2 * i + 1] : [start + i, start + i + half];
          const angle = ((positions > 1 ? position + t : 0) * half + i) * 2;
          const [cos, sin] = [angles.data[angle] ?? Number.NaN, angles.data[angle + 1] ?? Number.NaN];
          const [xa, xb] = [input.data[a] ?? 0, input.data[b] ?? 0];
          y[a] = xa * cos - xb * sin;
          y[b] = xa * sin + xb * cos;
        }
      }
    }
    return y;
  },
};

/**
 * Updates cache [G, C, D] (f32, f16 or q8_planes, with scales for 32 elements of a head each; G KV heads, capacity C): cache[g, position + t] = x[t, g] for the live rows of
 * x f32 [T, G, D]. Inputs: cache, x, state.
 */
const cacheWrite: OpDefinition<'cacheWrite'> = {
  arity: 3,
  updates: 0,
  type([cache, x, state]) {
    const [target, input] = [need(cache), need(x)];
    expectCache('cacheWrite', 'the cache', target);
    expectRank('cacheWrite', 'x', input, 3);
    expectFloat('cacheWrite', 'x', input);
    expectEqual('cacheWrite', 'KV heads of x', input.shape[1], target.shape[0]);
    expectEqual('cacheWrite', 'width of the heads of x', input.shape[2], target.shape[2]);
    expectState('cacheWrite', need(state));
    return target;
  },
  reference([cache, x, state]) {
    const [target, input] = [need(cache), need(x)];
    const [heads, capacity, width] = [target.shape[0] ?? 0, target.shape[1] ?? 0, target.shape[2] ?? 0];
    const { position, rows } = extentOf(need(state));
    if (position + rows > capacity) throw new ShapeError(`cacheWrite: positions ${position} to ${position + rows} are beyond the capacity ${capacity}`);
    const y = target.data.slice();
    for (let t = 0; t < rows; t++) {
      for (let head = 0; head < heads; head++) {
        const source = (t * heads + head) * width;
        y.set(input.data.subarray(source, source + width), (head * capacity + position + t) * width);
      }
    }
    return y;
  },
};

/**
 * Causal grouped-query attention over the cache. q f32 [T, H, D], keys and values [G, C, D] (f32, f16 or q8_planes; H a multiple of G: query head h reads KV head
 * floor(h G / H)), state, and where given sinks f32 [H]. Row t sees positions p from 0 to i = position + t, with a `window` only those with i - p < window:
 * y[t, h] = sum_p softmax_p(s[p]) v[p], f32 [T, H, D], s[p] = scale q[t, h] . k[p], with a `softcap` c: c tanh(s[p] / c). A sink is one logit more of its head, which takes weight
 * from the positions and has no value.
 */
const attention: OpDefinition<'attention'> = {
  arity: [4, 5],
  type([q, keys, values, state, sinks], { window, softcap }) {
    const [query, k, v] = [need(q), need(keys), need(values)];
    expectRank('attention', 'q', query, 3);
    expectFloat('attention', 'q', query);
    expectCache('attention', 'the key cache', k);
    expectCache('attention', 'the value cache', v);
    expectEqual('attention', 'width of the key heads', k.shape[2], query.shape[2]);
    expectEqual('attention', 'KV heads of the value cache', v.shape[0], k.shape[0]);
    expectEqual('attention', 'capacity of the value cache', v.shape[1], k.shape[1]);
    expectEqual('attention', 'width of the value heads', v.shape[2], k.shape[2]);
    expectEqual('attention', 'query heads modulo KV heads', (query.shape[1] ?? 0) % (k.shape[0] ?? 1), 0);
    expectState('attention', need(state));
    if (sinks !== undefined && (sinks.dtype !== 'f32' || sinks.shape.length !== 1 || sinks.shape[0] !== query.shape[1]))
      throw new ShapeError(`attention: the sinks must be f32 [${query.shape[1]} query heads], got ${formatType(sinks)}`);
    if (window !== undefined && !(Number.isInteger(window) && window >= 1))
      throw new ShapeError(`attention: the window must be a whole number of positions from 1, got ${window}`);
    if (softcap !== undefined && !(Number.isFinite(softcap) && softcap > 0)) throw new ShapeError(`attention: the softcap must be positive, got ${softcap}`);
    return query;
  },
  reference([q, keys, values, state, sinks], params) {
    const [query, k, v] = [need(q), need(keys), need(values)];
    const [heads, width] = [query.shape[1] ?? 0, query.shape[2] ?? 0];
    const [groups, capacity] = [k.shape[0] ?? 1, k.shape[1] ?? 0];
    const { position, rows } = extentOf(need(state));
    const y = new Float64Array(elementCount(query.shape));
    for (let t = 0; t < rows; t++) {
      for (let head = 0; head < heads; head++) {
        const start = (t * heads + head) * width;
        const end = position + t + 1;
        const first = Math.max(0, end - (params.window ?? end));
        const kvHead = Math.floor((head * groups) / heads) * capacity;
        const seen = (cache: HostTensor): Float64Array => cache.data.subarray((kvHead + first) * width, (kvHead + end) * width);
        const sink = sinks === undefined ? Number.NEGATIVE_INFINITY : (sinks.data[head] ?? Number.NaN);
        attendRow(query.data.subarray(start, start + width), seen(k), seen(v), params, sink, y.subarray(start, start + width));
      }
    }
    return y;
  },
};

/** One query against the keys and values of the positions that it sees, [positions, width] both. */
function attendRow(
  query: Float64Array,
  keys: Float64Array,
  values: Float64Array,
  { scale, softcap }: OpParams['attention'],
  sink: number,
  output: Float64Array,
): void {
  const width = query.length;
  const scores = Float64Array.from({ length: keys.length / width }, (_, p) => {
    const score = query.reduce((sum, value, i) => sum + value * (keys[p * width + i] ?? 0) * scale, 0);
    return softcap === undefined ? score : softcap * Math.tanh(score / softcap);
  });
  const max = scores.reduce((a, b) => Math.max(a, b), sink);
  const weights = scores.map((score) => Math.exp(score - max));
  const sum = weights.reduce((a, b) => a + b, Math.exp(sink - max));
  weights.forEach((weight, p) => {
    for (let i = 0; i < width; i++) output[i] = (output[i] ?? 0) + (weight / sum) * (values[p * width + i] ?? 0);
  });
}

/**
 * Ends a decode step on the device: state.position += rows, rows = 1, token = ids[0] = tokens[0], which the history takes too, steps += 1. Inputs: state, tokens u32 [1]. Replaying the same
 * steps then decodes the next token.
 */
const advance: OpDefinition<'advance'> = {
  arity: 2,
  updates: 0,
  type([state, tokens]) {
    const [words, chosen] = [need(state), need(tokens)];
    expectState('advance', words);
    if (chosen.dtype !== 'u32' || elementCount(chosen.shape) !== 1) throw new ShapeError(`advance: the token must be one u32, got ${formatType(chosen)}`);
    return words;
  },
  reference([state, tokens]) {
    const words = need(state).data.slice();
    advanceState(words, need(tokens).data[0] ?? 0);
    return words;
  },
};

export const attentionOps = { lastRow, rope, cacheWrite, attention, advance };
