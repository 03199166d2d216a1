import {
  type F32,
  type FunctionBuilder,
  f32,
  f32x4,
  type I32,
  i32,
  type Local,
  plus,
  type Statement,
  sequence,
  type V128,
  v128,
  type WasmProgram,
} from '../wasm/assembler.js';
import { expOfNonPositive, finiteHalfDecoder, horizontalSum } from '../wasm/math.js';

/** Vectors of a value row that one pass over the positions sums. */
const chunkVectors = 4;
/** Positions of one such pass: 64 rows of 128 f32 values are 32 KiB. */
const blockPositions = 64;

export interface RowShape {
  readonly cache: 'f32' | 'f16';
  readonly width: number;
  /** Query heads of one KV head. */
  readonly heads: number;
  readonly scale: number;
  readonly softcap?: number | undefined;
  /** Whether each head has a logit more in its sum. */
  readonly sinks: boolean;
}

/**
 * Attention of one row: query heads that share a KV head, over positions 0 to length - 1. Parameters: q (f32 [heads, width]), keys and values (of the KV head:
 * [positions, width]), y (f32 [heads, width]), scores (f32 [heads, stride]), length, bytes of stride, and with sinks those of the heads (f32 [heads]). The stride leaves room for 4 more
 * scores than there are positions. Sums run in 4 lanes over the width, then over the positions in order, whatever the tiling.
 */
export function attendRow(shape: RowShape): WasmProgram {
  const { cache, width, heads, scale, softcap, sinks } = shape;
  return {
    key: `attendRow:${cache},${width},${heads},${scale},${softcap ?? 'plain'},${sinks}`,
    parameters: sinks ? 8 : 7,
    body: (f) => new AttendBody(f, shape).emit(),
  };
}

class AttendBody {
  readonly #f: FunctionBuilder;
  readonly #vectors: number;
  readonly #rowBytes: number;
  readonly #elementBytes: number;
  readonly #heads: readonly number[];
  readonly #scale: number;
  readonly #softcap: number | undefined;
  readonly #sinks: boolean;
  readonly #read: (at: I32, offset: number) => V128;

  constructor(f: FunctionBuilder, { cache, width, heads, scale, softcap, sinks }: RowShape) {
    this.#f = f;
    this.#softcap = softcap;
    this.#sinks = sinks;
    this.#vectors = width / 4;
    this.#elementBytes = cache === 'f16' ? 2 : 4;
    this.#rowBytes = width * this.#elementBytes;
    this.#heads = Array.from({ length: heads }, (_, h) => h);
    this.#scale = scale;
    const half = cache === 'f16' ? finiteHalfDecoder(f) : undefined;
    this.#read = half === undefined ? v128.load : (at, offset) => half(v128.load16x4s(at, offset));
  }

  emit(): Statement {
    const f = this.#f;
    const [keys, scores, length, stride] = [f.parameter(1), f.parameter(4), f.parameter(5), f.parameter(6)];
    const [k, s, fours, rest] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
    const inverse = f.locals('v128', this.#heads.length);
    const quads = i32.shr(plus(length.get, 3), i32.const(2));
    return sequence(
      k.set(keys.get),
      s.set(scores.get),
      fours.set(i32.shr(length.get, i32.const(2))),
      rest.set(i32.and(length.get, i32.const(3))),
      f.when(fours.get, f.repeat(fours.get, this.#score(k, s, stride, 4))),
      f.when(rest.get, f.repeat(rest.get, this.#score(k, s, stride, 1))),
      // Lanes past the last position weigh nothing.
      this.#softcap === undefined ? [] : this.#heads.map((h) => this.#cap(i32.add(scores.get, times(stride.get, h)), quads, this.#softcap ?? 1)),
      this.#heads.map((h) => v128.store(i32.add(s.get, times(stride.get, h)), f32x4.const(Number.NEGATIVE_INFINITY))),
      this.#heads.map((h) => this.#softmax(i32.add(scores.get, times(stride.get, h)), quads, inverse[h], h)),
      this.#weigh(inverse),
    );
  }

  /** Scores of `positions` keys for all heads; advances the key and the score addresses. */
  #score(k: Local<'i32'>, s: Local<'i32'>, stride: Local<'i32'>, positions: number): Statement {
    const f = this.#f;
    const q = f.parameter(0);
    const [kx, qx] = [f.local('i32'), f.local('i32')];
    const sums = this.#heads.map(() => f.locals('v128', positions));
    const keys = f.locals('v128', positions);
    const value = f.local('v128');
    const zero = f.once(f32x4.const(0));
    const width = this.#vectors * 16;
    const add = (sum: Local<'v128'>, p: number): Statement => sum.set(f32x4.add(sum.get, f32x4.mul(value.get, (keys[p] ?? value).get)));
    const scaled = (sum: Local<'v128'>): F32 => f32.mul(horizontalSum(sum), f32.const(this.#scale));
    return sequence(
      sums.flat().map((sum) => sum.set(zero)),
      kx.set(k.get),
      qx.set(q.get),
      f.repeat(
        i32.const(this.#vectors),
        keys.map((key, p) => key.set(this.#read(kx.get, p * this.#rowBytes))),
        sums.map((row, h) => sequence(value.set(v128.load(qx.get, h * width)), row.map(add))),
        kx.set(plus(kx.get, 4 * this.#elementBytes)),
        qx.set(plus(qx.get, 16)),
      ),
      sums.flatMap((row, h) => row.map((sum, p) => f32.store(i32.add(s.get, times(stride.get, h)), scaled(sum), p * 4))),
      k.set(plus(k.get, positions * this.#rowBytes)),
      s.set(plus(s.get, positions * 4)),
    );
  }

  /** Scores become cap tanh(score / cap), by (1 - e) / (1 + e) with e = e^(-2 |score| / cap). */
  #cap(scores: I32, quads: I32, cap: number): Statement {
    const f = this.#f;
    const [value, e, at] = [f.local('v128'), f.local('v128'), f.local('i32')];
    const exp = expOfNonPositive(f);
    const one = f.once(f32x4.const(1));
    const [factor, size, sign] = [f.once(f32x4.const(-2 / cap)), f.once(f32x4.const(cap)), f.once(v128.const(new Uint32Array(4).fill(0x80000000)))];
    return sequence(
      at.set(scores),
      f.repeat(
        quads,
        value.set(v128.load(at.get)),
        e.set(f32x4.mul(f32x4.abs(value.get), factor)),
        exp(e),
        e.set(f32x4.mul(f32x4.div(f32x4.sub(one, e.get), f32x4.add(one, e.get)), size)),
        v128.store(at.get, v128.or(e.get, v128.and(value.get, sign))),
        at.set(plus(at.get, 16)),
      ),
    );
  }

  /** Scores become e^(score - max); `inverse` becomes 1 / their sum in every lane. */
  #softmax(scores: I32, quads: I32, inverse: Local<'v128'> | undefined, head: number): Statement {
    const f = this.#f;
    const [max, value, sum, at] = [f.local('v128'), f.local('v128'), f.local('v128'), f.local('i32')];
    const exp = expOfNonPositive(f);
    const one = f.once(f32x4.const(1));
    const swap = (lanes: readonly number[]): Statement => max.set(f32x4.max(max.get, v128.shuffle(max.get, max.get, lanes)));
    return sequence(
      at.set(scores),
      max.set(this.#sinks ? v128.load32splat(f.parameter(7).get, head * 4) : f32x4.const(Number.NEGATIVE_INFINITY)),
      f.repeat(quads, max.set(f32x4.max(max.get, v128.load(at.get))), at.set(plus(at.get, 16))),
      swap([8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7]),
      swap([4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11]),
      at.set(scores),
      sum.set(f32x4.const(0)),
      // The sink counts in the first lane.
      this.#sinks
        ? [
            value.set(f32x4.sub(v128.load32splat(f.parameter(7).get, head * 4), max.get)),
            exp(value),
            sum.set(v128.and(value.get, f.once(v128.const(Uint32Array.of(0xffffffff, 0, 0, 0))))),
          ]
        : [],
      f.repeat(
        quads,
        value.set(f32x4.sub(v128.load(at.get), max.get)),
        exp(value),
        v128.store(at.get, value.get),
        sum.set(f32x4.add(sum.get, value.get)),
        at.set(plus(at.get, 16)),
      ),
      inverse === undefined ? [] : [inverse.set(f32x4.div(one, f32x4.splat(horizontalSum(sum))))],
    );
  }

  /** y = sum of weight * value: a block of positions at a time, which stays in the first-level cache while the width is summed a few vectors at a time. */
  #weigh(inverse: readonly Local<'v128'>[]): Statement {
    const f = this.#f;
    const [values, y, scores, length] = [f.parameter(2), f.parameter(3), f.parameter(4), f.parameter(5)];
    const [left, count] = [f.local('i32'), f.local('i32')];
    const zero = f.once(f32x4.const(0));
    const outputs = this.#heads.flatMap((h) =>
      Array.from({ length: this.#vectors }, (_, i) => ({ at: (h * this.#vectors + i) * 16, factor: inverse[h]?.get ?? zero })),
    );
    const chunks = Array.from({ length: Math.ceil(this.#vectors / chunkVectors) }, (_, i) => this.#weighChunk(i * chunkVectors, count.get));
    return sequence(
      outputs.map(({ at }) => v128.store(y.get, zero, at)),
      left.set(length.get),
      f.repeat(
        i32.shr(plus(length.get, blockPositions - 1), i32.const(Math.log2(blockPositions))),
        count.set(i32.const(blockPositions)),
        f.when(i32.ltU(left.get, count.get), count.set(left.get)),
        chunks,
        left.set(i32.sub(left.get, count.get)),
        values.set(plus(values.get, blockPositions * this.#rowBytes)),
        scores.set(plus(scores.get, blockPositions * 4)),
      ),
      outputs.map(({ at, factor }) => v128.store(y.get, f32x4.mul(v128.load(y.get, at), factor), at)),
    );
  }

  /** Adds `count` positions to vectors `first` and on of y. */
  #weighChunk(first: number, count: I32): Statement {
    const f = this.#f;
    const [values, y, scores, stride] = [f.parameter(2), f.parameter(3), f.parameter(4), f.parameter(6)];
    const [v, s] = [f.local('i32'), f.local('i32')];
    const width = Math.min(chunkVectors, this.#vectors - first);
    const sums = this.#heads.map(() => f.locals('v128', width));
    const loaded = f.locals('v128', width);
    const weight = f.local('v128');
    const add = (sum: Local<'v128'>, i: number): Statement => sum.set(f32x4.add(sum.get, f32x4.mul(weight.get, (loaded[i] ?? weight).get)));
    const at = (h: number, i: number): number => (h * this.#vectors + first + i) * 16;
    return sequence(
      sums.flatMap((row, h) => row.map((sum, i) => sum.set(v128.load(y.get, at(h, i))))),
      v.set(values.get),
      s.set(scores.get),
      f.repeat(
        count,
        loaded.map((local, i) => local.set(this.#read(v.get, (first + i) * 4 * this.#elementBytes))),
        sums.map((row, h) => sequence(weight.set(v128.load32splat(h === 0 ? s.get : i32.add(s.get, times(stride.get, h)))), row.map(add))),
        v.set(plus(v.get, this.#rowBytes)),
        s.set(plus(s.get, 4)),
      ),
      sums.flatMap((row, h) => row.map((sum, i) => v128.store(y.get, sum.get, at(h, i)))),
    );
  }
}

function times(a: I32, n: number): I32 {
  return i32.mul(a, i32.const(n));
}
