/** Vector mathematics as expressions over v128. */

import { type F32, type FunctionBuilder, f32, f32x4, i32x4, type Local, type Statement, sequence, type V128, v128 } from './assembler.js';

/**
 * f32 values of four finite f16 bit patterns in sign-extended i32 lanes, exact. The product with 2^112 moves the exponent's bias from 15 to 127 and normalises
 * subnormals. Infinities and NaN come out as numbers from 65,536 on: what `halfDecoder` does about them takes as long as all the rest of a product.
 */
export function finiteHalfDecoder(f: FunctionBuilder): (bits: V128) => V128 {
  const mask = f.once(v128.const(new Uint32Array(4).fill(0x8fffe000)));
  const rebias = f.once(f32x4.const(2 ** 112));
  return (bits) => f32x4.mul(v128.and(i32x4.shl(bits, 13), mask), rebias);
}

/** As `finiteHalfDecoder`, for all bit patterns: infinities and NaN get the exponent that says so. */
export function halfDecoder(f: FunctionBuilder): (bits: V128) => V128 {
  const decode = finiteHalfDecoder(f);
  const largest = f.once(f32x4.const(65504));
  const nonFinite = f.once(v128.const(new Uint32Array(4).fill(0x7f800000)));
  const value = f.local('v128');
  return (bits) => {
    const finite = value.tee(decode(bits));
    return v128.or(finite, v128.and(f32x4.gt(f32x4.abs(value.get), largest), nonFinite));
  };
}

/** ln 2 in two parts: the first has 9 significant bits, so that n times it is exact. */
const ln2High = 0.693359375;
const ln2Low = -2.1219444e-4;
/** Coefficients of (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2, highest power first (Cephes, expf). */
const expTail = [1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1];
/** ln of the smallest normal f32, and of the smallest that rounds to anything. */
const normalFloor = -87.3365;
const subnormalFloor = -103.9;

/**
 * Turns x <= 0 in a local into e^x, within 2 ulp; NaN stays NaN. Results below the normal range are 0, or with `gradual` subnormal: their products are slow, so that
 * softmax does without.
 */
export function expOfNonPositive(f: FunctionBuilder, underflow: 'flush' | 'gradual' = 'flush'): (x: Local<'v128'>) => Statement {
  const constant = (value: number): V128 => f.once(f32x4.const(value));
  const [n, r, p, low] = [f.local('v128'), f.local('v128'), f.local('v128'), f.local('v128')];
  const [scale, high, rest, one, floor] = [
    constant(Math.LOG2E),
    constant(ln2High),
    constant(ln2Low),
    constant(1),
    constant(underflow === 'flush' ? normalFloor : subnormalFloor),
  ];
  const bias = f.once(v128.const(new Int32Array(4).fill(127)));
  const [first, ...others] = expTail.map(constant);
  const start = first ?? one;
  const power = (exponent: V128): V128 => i32x4.shl(i32x4.add(exponent, bias), 23);
  // In two factors where 2^n may be subnormal.
  const scaled =
    underflow === 'flush'
      ? f32x4.mul(p.get, power(n.get))
      : f32x4.mul(f32x4.mul(p.get, power(i32x4.shrS(n.get, 1))), power(i32x4.sub(n.get, i32x4.shrS(n.get, 1))));
  return (x) =>
    sequence(
      low.set(f32x4.lt(x.get, floor)),
      // Lanes below the floor would leave the exponent's range; they are cleared at the end.
      x.set(v128.andNot(x.get, low.get)),
      n.set(f32x4.nearest(f32x4.mul(x.get, scale))),
      r.set(f32x4.sub(f32x4.sub(x.get, f32x4.mul(n.get, high)), f32x4.mul(n.get, rest))),
      p.set(others.reduce((sum, coefficient) => f32x4.add(f32x4.mul(sum, r.get), coefficient), start)),
      p.set(f32x4.add(f32x4.add(f32x4.mul(p.get, f32x4.mul(r.get, r.get)), r.get), one)),
      n.set(i32x4.truncate(n.get)),
      x.set(v128.andNot(scaled, low.get)),
    );
}

/** The sum of the four lanes, as (0 + 1) + (2 + 3): one order everywhere, so that tilings agree bit for bit. */
export function horizontalSum(a: Local<'v128'>): F32 {
  return f32.add(f32.add(f32x4.extract(a.get, 0), f32x4.extract(a.get, 1)), f32.add(f32x4.extract(a.get, 2), f32x4.extract(a.get, 3)));
}
