import {
  type FunctionBuilder,
  f32x4,
  i16x8,
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

/** Largest quantised activation. */
const limit = 32767;

/** Bytes of the activation stream for one token and one unit of columns: i16 values, one f32 scale, one i32 sum. */
export function streamUnitBytes(unit: number): number {
  return unit * 2 + 8;
}

/** Bytes of the activation stream of `tokens` rows of `columns` values. */
export function streamBytes(unit: number, columns: number, tokens: number): number {
  return (columns / unit) * streamUnitBytes(unit) * tokens;
}

/** Every lane: the largest of all lanes (NaN wins). */
function spreadMax(a: V128, f: FunctionBuilder): { set: Statement; get: V128 } {
  const m = f.local('v128');
  const swapped = (lanes: readonly number[]): V128 => v128.shuffle(m.get, m.get, lanes);
  const pairs = [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7];
  const neighbours = [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11];
  return { set: sequence(m.set(a), m.set(f32x4.max(m.get, swapped(pairs))), m.set(f32x4.max(m.get, swapped(neighbours)))), get: m.get };
}

/**
 * Quantises activations to 16 bits with one scale for every `unit` columns, for tiles of `tokens` rows: error at most 1.6e-5 of the unit's largest magnitude.
 * Parameters: x (f32 [tiles * tokens, columns]), the stream, tiles.
 * The stream, per unit: for every 4 columns and every token the values 0, 2, 1, 3 (even and odd bytes of the codes meet one splat each); then the tokens' scales;
 * then the tokens' sums of values, negated. A NaN or an infinity makes the scale, and so the products, NaN.
 */
export function quantizeActivations(unit: 16 | 32, columns: number, tokens: number): WasmProgram {
  return {
    key: `quantizeActivations:${unit},${columns},${tokens}`,
    parameters: 3,
    body(f) {
      const [x, out, tiles] = [f.parameter(0), f.parameter(1), f.parameter(2)];
      const steps = unit / 4;
      const values = f.locals('v128', steps);
      const sum = f.local('v128');
      const inverse = f.local('v128');
      const pair = f.local('v128');
      const zero = f.once(f32x4.const(0));
      const ones = f.once(v128.const(new Uint16Array(8).fill(1)));
      const [top, step] = [f.once(f32x4.const(limit)), f.once(f32x4.const(1 / limit))];
      const token = (t: number): Statement => {
        const load = values.map((v, i) => v.set(v128.load(x.get, t * columns * 4 + i * 16)));
        const magnitude = values.map((v) => f32x4.abs(v.get)).reduce((a, b) => f32x4.max(a, b));
        const max = spreadMax(magnitude, f);
        const integer = (v: Local<'v128'> | undefined): V128 => i32x4.truncate(f32x4.nearest(f32x4.mul((v ?? sum).get, inverse.get)));
        const emit = Array.from({ length: steps / 2 }, (_, i) => [
          pair.set(i16x8.narrow(integer(values[2 * i]), integer(values[2 * i + 1]))),
          sum.set(i32x4.sub(sum.get, i32x4.dot(pair.get, ones))),
          pair.set(v128.shuffle(pair.get, pair.get, [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15])),
          v128.store64lane(out.get, pair.get, 0, (2 * i * tokens + t) * 8),
          v128.store64lane(out.get, pair.get, 1, ((2 * i + 1) * tokens + t) * 8),
        ]).flat();
        const tail = steps * tokens * 8;
        const swap = (lanes: readonly number[]): Statement => sum.set(i32x4.add(sum.get, v128.shuffle(sum.get, sum.get, lanes)));
        return sequence(
          load,
          max.set,
          inverse.set(f32x4.div(top, max.get)),
          sum.set(zero),
          emit,
          v128.store32lane(out.get, f32x4.mul(max.get, step), 0, tail + t * 4),
          swap([8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7]),
          swap([4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11]),
          v128.store32lane(out.get, sum.get, 0, tail + (tokens + t) * 4),
        );
      };
      return f.repeat(
        tiles.get,
        f.repeat(
          i32.const(columns / unit),
          Array.from({ length: tokens }, (_, t) => token(t)),
          x.set(plus(x.get, unit * 4)),
          out.set(plus(out.get, tokens * streamUnitBytes(unit))),
        ),
        x.set(plus(x.get, (tokens - 1) * columns * 4)),
      );
    },
  };
}
