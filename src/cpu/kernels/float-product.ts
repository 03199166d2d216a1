import {
  type FunctionBuilder,
  f32,
  f32x4,
  type I32,
  i32,
  i32x4,
  type Local,
  plus,
  type Statement,
  sequence,
  type V128,
  v128,
  type WasmProgram,
} from '../wasm/assembler.js';
import { finiteHalfDecoder, horizontalSum } from '../wasm/math.js';

export type FloatType = 'f32' | 'f16' | 'bf16';

export const floatBytes: Readonly<Record<FloatType, number>> = { f32: 4, f16: 2, bf16: 2 };

/** Readers of 4 weights, and of one (in lane 0, the others 0). */
function weightReaders(f: FunctionBuilder, dtype: FloatType): { four: (at: I32, offset: number) => V128; one: (at: I32, offset: number) => V128 } {
  if (dtype === 'f32') return { four: v128.load, one: v128.load32zero };
  const lane0 = f.once(v128.const(Uint32Array.of(0xffffffff, 0, 0, 0)));
  if (dtype === 'bf16') {
    return {
      four: (at, offset) => i32x4.shl(v128.load16x4u(at, offset), 16),
      one: (at, offset) => v128.and(i32x4.shl(i32x4.splat(i32.load16u(at, offset)), 16), lane0),
    };
  }
  const half = finiteHalfDecoder(f);
  return { four: (at, offset) => half(v128.load16x4s(at, offset)), one: (at, offset) => v128.and(half(i32x4.splat(i32.load16s(at, offset))), lane0) };
}

/**
 * y[token, row] for tiles of `rows` x `tokens`; weights plain rows. Parameters: weights, x, y (all of the first row and token), groups of rows, tiles of tokens, bytes
 * from token to token of y. Every sum runs in 4 lanes over the columns, in one order whatever the tiling.
 */
export function floatProduct(dtype: FloatType, columns: number, rows: number, tokens: number): WasmProgram {
  return {
    key: `floatProduct:${dtype},${columns},${rows},${tokens}`,
    parameters: 6,
    body: (f) => floatBody(f, dtype, columns, rows, tokens),
  };
}

function floatBody(f: FunctionBuilder, dtype: FloatType, columns: number, rows: number, tokens: number): Statement {
  const [w0, x0, y0, groups, tiles, stride] = [f.parameter(0), f.parameter(1), f.parameter(2), f.parameter(3), f.parameter(4), f.parameter(5)];
  const [w, xTile, x, y] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const sums = Array.from({ length: tokens }, () => f.locals('v128', rows));
  const weights = f.locals('v128', rows);
  const value = f.local('v128');
  const { four, one } = weightReaders(f, dtype);
  const size = floatBytes[dtype];
  const zero = f.once(f32x4.const(0));
  const step = (readWeight: (at: I32, offset: number) => V128, readX: (at: I32, offset: number) => V128, count: number): Statement =>
    sequence(
      weights.map((local, r) => local.set(readWeight(w.get, r * columns * size))),
      sums.map((row, t) =>
        sequence(
          value.set(readX(x.get, t * columns * 4)),
          row.map((sum, r) => accumulate(sum, weights[r], value)),
        ),
      ),
      w.set(plus(w.get, count * size)),
      x.set(plus(x.get, count * 4)),
    );
  const [whole, rest] = [Math.floor(columns / 4), columns % 4];
  const tile = sequence(
    w.set(w0.get),
    x.set(xTile.get),
    sums.flat().map((sum) => sum.set(zero)),
    whole > 0 ? f.repeat(i32.const(whole), step(four, v128.load, 4)) : [],
    rest > 0 ? f.repeat(i32.const(rest), step(one, v128.load32zero, 1)) : [],
    sums.map((row) =>
      sequence(
        row.map((sum, r) => f32.store(y.get, horizontalSum(sum), r * 4)),
        y.set(i32.add(y.get, stride.get)),
      ),
    ),
    xTile.set(plus(xTile.get, tokens * columns * 4)),
  );
  return f.repeat(
    groups.get,
    xTile.set(x0.get),
    y.set(y0.get),
    f.repeat(tiles.get, tile),
    w0.set(plus(w0.get, rows * columns * size)),
    y0.set(plus(y0.get, rows * 4)),
  );
}

function accumulate(sum: Local<'v128'>, weight: Local<'v128'> | undefined, value: Local<'v128'>): Statement {
  return sum.set(f32x4.add(sum.get, f32x4.mul((weight ?? value).get, value.get)));
}
