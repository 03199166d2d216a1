import { type BlockFormat, blockLayout, groupBytes, groupRows } from '../formats.js';
import {
  type FunctionBuilder,
  f32x4,
  type I32,
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
import { halfDecoder } from '../wasm/math.js';
import { streamUnitBytes } from './activations.js';

/** Vectors of 4 rows in a group. */
const quads = groupRows / 4;
const eachQuad = Array.from({ length: quads }, (_, q) => q);

type Grid = readonly (readonly Local<'v128'>[])[];

/**
 * y[token, row] for groups of 8 packed rows and tiles of `tokens` quantised rows. Parameters: weights (a group's start), the activation stream (a tile's start),
 * y (of the first row and token), groups, tiles, bytes from token to token of y. Groups are independent: a split over threads is a range of groups.
 *
 * Bounds: codes are at most 255, activations 32,767 and units 32 columns, so a unit's sum stays below 255 * 32,767 * 32 = 2.7e8, its bias correction below
 * 2^7 * 32 * 32,767 = 1.4e8, and both together inside i32. The float part is per unit, in one order whatever the tiling: decode and prefill agree bit for bit.
 */
export function packedProduct(format: BlockFormat, columns: number, tokens: number): WasmProgram {
  return {
    key: `packedProduct:${format.dtype},${columns},${tokens}`,
    parameters: 6,
    body: (f) => new ProductBody(f, format, columns, tokens).emit(),
  };
}

class ProductBody {
  readonly #f: FunctionBuilder;
  readonly #format: BlockFormat;
  readonly #columns: number;
  readonly #tokens: number;
  readonly #weights: Local<'i32'>;
  readonly #stream: Local<'i32'>;
  readonly #sums: Grid;
  readonly #parts: Grid;
  readonly #half: (bits: V128) => V128;
  readonly #zero: V128;

  constructor(f: FunctionBuilder, format: BlockFormat, columns: number, tokens: number) {
    this.#f = f;
    this.#format = format;
    this.#columns = columns;
    this.#tokens = tokens;
    this.#weights = f.local('i32');
    this.#stream = f.local('i32');
    this.#sums = Array.from({ length: tokens }, () => f.locals('v128', quads));
    this.#parts = Array.from({ length: tokens }, () => f.locals('v128', quads));
    this.#half = halfDecoder(f);
    this.#zero = f.once(f32x4.const(0));
  }

  emit(): Statement {
    const f = this.#f;
    const [w0, x0, y0, groups, tiles, stride] = [f.parameter(0), f.parameter(1), f.parameter(2), f.parameter(3), f.parameter(4), f.parameter(5)];
    const y = f.local('i32');
    const tile = sequence(
      this.#weights.set(w0.get),
      this.#sums.flat().map((sum) => sum.set(this.#zero)),
      f.repeat(i32.const(this.#columns / this.#format.columns), this.#block()),
      this.#sums.map((row) =>
        sequence(
          row.map((sum, q) => v128.store(y.get, sum.get, q * 16)),
          y.set(i32.add(y.get, stride.get)),
        ),
      ),
    );
    return f.repeat(
      groups.get,
      this.#stream.set(x0.get),
      y.set(y0.get),
      f.repeat(tiles.get, tile),
      w0.set(plus(w0.get, groupBytes(this.#format, this.#columns))),
      y0.set(plus(y0.get, groupRows * 4)),
    );
  }

  /** One storage block against one block of the stream; advances both. */
  #block(): Statement {
    const f = this.#f;
    const layout = blockLayout(this.#format);
    const [d, m] = [f.locals('v128', quads), f.locals('v128', quads)];
    const start = this.#weights.get;
    const heads = [
      d.map((local, q) => local.set(this.#half(v128.load16x4s(start, q * 8)))),
      this.#format.minimum === undefined ? [] : m.map((local, q) => local.set(this.#half(v128.load16x4s(start, groupRows * 2 + q * 8)))),
    ].flat();
    const next = this.#weights.set(plus(start, layout.blockBytes));
    if (layout.units === 1) return sequence(heads, this.#unit(d, m, start, start, layout.codes), next);
    const [scales, codes] = [f.local('i32'), f.local('i32')];
    return sequence(
      heads,
      scales.set(plus(start, layout.scales)),
      codes.set(plus(start, layout.codes)),
      f.repeat(
        i32.const(layout.units),
        this.#unit(d, m, scales.get, codes.get, 0),
        scales.set(plus(scales.get, layout.scaleBytes)),
        codes.set(plus(codes.get, layout.unitBytes)),
      ),
      next,
    );
  }

  /** One unit of columns: integer sums, then the float part; advances the stream. */
  #unit(d: readonly Local<'v128'>[], m: readonly Local<'v128'>[], scales: I32, codes: I32, offset: number): Statement {
    const { unit, biasBits } = this.#format;
    const stream = this.#stream.get;
    const [scaleAt, sumAt] = [unit * 2 * this.#tokens, (unit * 2 + 4) * this.#tokens];
    const initial = (t: number): V128 => (biasBits === undefined ? this.#zero : i32x4.shl(v128.load32splat(stream, sumAt + t * 4), biasBits));
    return sequence(
      this.#parts.flatMap((row, t) => row.map((part, q) => part.set(q === 0 ? initial(t) : (row[0] ?? part).get))),
      this.#format.codeBits === 8 ? this.#byteSteps(codes, offset) : this.#nibbleSteps(codes, offset),
      this.#float(d, m, scales, scaleAt, sumAt),
      this.#stream.set(plus(stream, streamUnitBytes(unit) * this.#tokens)),
    );
  }

  /** Adds the products of 4 columns: `even` and `odd` are the codes of columns 0, 2 and 1, 3 in the 16-bit lanes of their rows. */
  #multiply(even: readonly Local<'v128'>[], odd: readonly Local<'v128'>[], stream: I32, step: number): Statement[] {
    const [x, y] = [this.#f.local('v128'), this.#f.local('v128')];
    return this.#parts.map((row, t) => {
      const at = (step * this.#tokens + t) * 8;
      const add = (codes: readonly Local<'v128'>[], factor: Local<'v128'>): Statement[] =>
        row.map((part, q) => part.set(i32x4.add(part.get, i32x4.dot((codes[q] ?? factor).get, factor.get))));
      return sequence(x.set(v128.load32splat(stream, at)), y.set(v128.load32splat(stream, at + 4)), add(even, x), add(odd, y));
    });
  }

  /** A run-time loop over 4 columns: V8 before 13 moves the loads of a longer basic block to its start and spills. */
  #byteSteps(codes: I32, offset: number): Statement {
    const f = this.#f;
    const [w, x] = [f.local('i32'), f.local('i32')];
    const [even, odd] = [f.locals('v128', quads), f.locals('v128', quads)];
    const lowBytes = f.once(v128.const(new Uint16Array(8).fill(0x00ff)));
    return sequence(
      w.set(plus(codes, offset)),
      x.set(this.#stream.get),
      f.repeat(
        i32.const(this.#format.unit / 4),
        eachQuad.map((q) => {
          const [e, o] = [at(even, q), at(odd, q)];
          return sequence(o.set(v128.load(w.get, q * 16)), e.set(v128.and(o.get, lowBytes)), o.set(i16x8.shrU(o.get, 8)));
        }),
        this.#multiply(even, odd, x.get, 0),
        w.set(plus(w.get, groupRows * 4)),
        x.set(plus(x.get, this.#tokens * 8)),
      ),
    );
  }

  /** Nibbles, with one or two high bits beside them: low nibbles are step p, high ones step p + steps / 2. */
  #nibbleSteps(codes: I32, offset: number): Statement {
    const f = this.#f;
    const { unit } = this.#format;
    const { highBytes } = blockLayout(this.#format);
    const halfSteps = unit / 8;
    const [w, x] = [f.local('i32'), f.local('i32')];
    const [even, odd, high] = [f.locals('v128', quads), f.locals('v128', quads), f.locals('v128', quads)];
    const upper = f.locals('v128', quads);
    const bits = this.#format.codeBits - 4;
    const lowNibble = f.once(v128.const(new Uint16Array(8).fill(highBytes > 0 ? 0x0f0f : 0x000f)));
    const lowBytes = highBytes > 0 ? f.once(v128.const(new Uint16Array(8).fill(0x00ff))) : lowNibble;
    const highMask = highBytes > 0 ? f.once(v128.const(new Uint16Array(8).fill(bits === 1 ? 0x1010 : 0x3030))) : lowNibble;
    const split = (q: number, side: number): Statement => {
      const [e, o] = [at(even, q), at(odd, q)];
      const load = o.set(v128.load(w.get, q * 16));
      if (highBytes > 0) {
        const bitsOf = at(side === 0 ? high : upper, q).get;
        const whole = v128.or(v128.and(i16x8.shrU(o.get, side * 4), lowNibble), v128.and(bitsOf, highMask));
        return sequence(load, o.set(whole), e.set(v128.and(o.get, lowBytes)), o.set(i16x8.shrU(o.get, 8)));
      }
      const top = i16x8.shrU(o.get, side === 0 ? 8 : 12);
      return sequence(load, e.set(v128.and(i16x8.shrU(o.get, side * 4), lowNibble)), o.set(side === 0 ? v128.and(top, lowNibble) : top));
    };
    // Bits wander right by one step's width: contamination from the neighbouring byte stays outside the mask.
    const startHigh = eachQuad.map((q) => [at(upper, q).set(v128.load(codes, offset + q * 16)), at(high, q).set(i16x8.shl(at(upper, q).get, 4))]);
    const nextHigh = [...high, ...upper].map((local) => local.set(i16x8.shrU(local.get, bits)));
    return sequence(
      highBytes > 0 ? startHigh.flat() : [],
      w.set(plus(codes, offset + highBytes)),
      x.set(this.#stream.get),
      f.repeat(
        i32.const(halfSteps),
        eachQuad.map((q) => split(q, 0)),
        this.#multiply(even, odd, x.get, 0),
        eachQuad.map((q) => split(q, 1)),
        this.#multiply(even, odd, x.get, halfSteps),
        highBytes > 0 ? nextHigh : [],
        w.set(plus(w.get, groupRows * 4)),
        x.set(plus(x.get, this.#tokens * 8)),
      ),
    );
  }

  /** sums += parts * scale * activation scale, and the minimum times the activations' sum. */
  #float(d: readonly Local<'v128'>[], m: readonly Local<'v128'>[], scales: I32, scaleAt: number, sumAt: number): Statement {
    const { minimum, unitScales } = this.#format;
    const f = this.#f;
    const [scale, min, factor, total] = [f.locals('v128', quads), f.locals('v128', quads), f.local('v128'), f.local('v128')];
    const bytes = (offset: number): V128 => {
      const packed = v128.load32zero(scales, offset);
      return f32x4.convert(unitScales === 'signed' ? i32x4.extendLowS(i16x8.extendLowS(packed)) : i32x4.extendLowU(i16x8.extendLowU(packed)));
    };
    const stream = this.#stream.get;
    const scaled = unitScales === undefined ? d : scale;
    const minimums = unitScales === undefined ? m : min;
    const combine = minimum === 1 ? f32x4.sub : f32x4.add;
    return sequence(
      unitScales === undefined ? [] : scale.map((local, q) => local.set(f32x4.mul(at(d, q).get, bytes(q * 4)))),
      unitScales === undefined || minimum === undefined ? [] : min.map((local, q) => local.set(f32x4.mul(at(m, q).get, bytes(groupRows + q * 4)))),
      this.#sums.map((row, t) =>
        sequence(
          factor.set(v128.load32splat(stream, scaleAt + t * 4)),
          // The stream's sums are negated.
          minimum === undefined ? [] : [total.set(f32x4.mul(f32x4.convert(v128.load32splat(stream, sumAt + t * 4)), factor.get))],
          row.map((sum, q) => {
            const part = at(this.#parts[t] ?? row, q);
            const product = f32x4.add(sum.get, f32x4.mul(f32x4.convert(part.get), f32x4.mul(at(scaled, q).get, factor.get)));
            return sum.set(minimum === undefined ? product : combine(product, f32x4.mul(at(minimums, q).get, total.get)));
          }),
        ),
      ),
    );
  }
}

function at(locals: readonly Local<'v128'>[], index: number): Local<'v128'> {
  const local = locals[index];
  if (local === undefined) throw new RangeError(`local ${index} of ${locals.length}`);
  return local;
}
