/** The operations of tiled reductions. They are commutative; sums are rounded at every step, so that the order of a tree decides their last bits. */

/** How a tiled reduction combines two numbers, and what it begins with. */
export interface ReduceOp {
  readonly name: 'sum' | 'max' | 'min';
  /** combine(identity, x) is x for every number x (for sums of -0: +0). */
  readonly identity: number;
  /** Of two f32 values; the result is an f32 value. */
  combine(a: number, b: number): number;
}

/** Sum in f32. NaN and the sum of opposite infinities are NaN. */
export const SumOp: ReduceOp = {
  name: 'sum',
  identity: 0,
  combine: (a, b) => Math.fround(a + b),
};

/** The larger number; NaN is passed over (IEEE 754-2019 maximumNumber), so that only NaN gives the identity, -Infinity. +0 is larger than -0. */
export const MaxOp: ReduceOp = {
  name: 'max',
  identity: Number.NEGATIVE_INFINITY,
  combine: (a, b) => Math.max(numberOr(a, Number.NEGATIVE_INFINITY), numberOr(b, Number.NEGATIVE_INFINITY)),
};

/** The smaller number; NaN is passed over (IEEE 754-2019 minimumNumber), so that only NaN gives the identity, +Infinity. -0 is smaller than +0. */
export const MinOp: ReduceOp = {
  name: 'min',
  identity: Number.POSITIVE_INFINITY,
  combine: (a, b) => Math.min(numberOr(a, Number.POSITIVE_INFINITY), numberOr(b, Number.POSITIVE_INFINITY)),
};

function numberOr(value: number, identity: number): number {
  return Number.isNaN(value) ? identity : value;
}
