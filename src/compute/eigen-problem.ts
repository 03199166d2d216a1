/** What an eigendecomposition starts from and what its rotations leave, on the CPU and on a device. */

/** A checked problem. */
export interface EigenProblem {
  readonly n: number;
  /** [n, n], symmetric to the bit. */
  readonly matrix: Float64Array;
  /** Largest |a_ij| off the diagonal that counts as zero. */
  readonly limit: number;
  /** Largest |a_ij|; above 0 where a device gets it. */
  readonly largest: number;
  readonly maxSweeps: number;
  readonly signal: AbortSignal | undefined;
}

/** What the rotations leave. */
export interface EigenPair {
  readonly values: Float64Array;
  /** Element `row` of eigenvector `column`; not yet of length 1. */
  component(row: number, column: number): number;
  /** Largest |a_ij| off the diagonal. */
  readonly rest: number;
  readonly sweeps: number;
}
