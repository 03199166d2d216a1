/** The product that a kernel makes, and how its operands lie in memory. */

export interface GemmShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** a is [K, M] instead of [M, K]. */
  readonly transposeA: boolean;
  /** b is [N, K] instead of [K, N]. */
  readonly transposeB: boolean;
  readonly alpha: number;
}

/** How a depth is cut: `splits` parts of `tiles` tiles each; the last part may reach beyond the depth. */
export interface DepthSplit {
  readonly splits: number;
  readonly tiles: number;
}

export const range = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i);
