/** The product that a kernel makes, and how its operands lie in memory. */

import type { KernelParam } from '../template.js';
import type { Epilogue } from './epilogue.js';

export interface GemmShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** a is [K, M] instead of [M, K]. */
  readonly transposeA: boolean;
  /** b is [N, K] instead of [K, N]. */
  readonly transposeB: boolean;
  readonly alpha: number;
  /** What every element is finished with; where the depth is split, the kernel that adds up the parts does it. */
  readonly epilogue?: Epilogue;
}

/** The parameters of a kernel that a shape is. */
export function shapeParams({ epilogue, ...shape }: GemmShape): { readonly [name: string]: KernelParam } {
  return epilogue === undefined ? shape : { ...shape, epilogue };
}

/** How a depth is cut: `splits` parts of `tiles` tiles each; the last part may reach beyond the depth. */
export interface DepthSplit {
  readonly splits: number;
  readonly tiles: number;
}
