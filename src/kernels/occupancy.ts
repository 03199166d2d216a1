/**
 * What a product takes on a large GPU, by its tile and the parts of its depth: for choosing between them. Figures were measured on a card of 132 processors; WebGPU tells none of them. On smaller
 * GPUs every choice is full, and the rates alone decide.
 */

export interface TileRate {
  /** FLOP a second where every processor is full. */
  readonly rate: number;
  /** The share of its rate that a processor reaches with 1, 2, ... workgroups; with more, all of it. */
  readonly shares: readonly number[];
}

const processors = 132;
/** Adding up parts: a dispatch, and bytes a second out of the cache. */
const sum = { dispatchSeconds: 2e-6, bytesPerSecond: 6e12 } as const;

export interface TiledWork {
  /** With what tiles at the edges compute in vain. */
  readonly flop: number;
  /** Workgroups of one part. */
  readonly tiles: number;
  readonly splits: number;
  /** Elements of the result. */
  readonly results: number;
}

/** Seconds. The processor with the most workgroups decides. */
export function expectedSeconds({ flop, tiles, splits, results }: TiledWork, { rate, shares }: TileRate): number {
  const each = Math.ceil((tiles * splits) / processors);
  const busy = (tiles * splits) / (processors * each);
  const adding = splits === 1 ? 0 : sum.dispatchSeconds + ((2 * splits + 1) * results * 4) / sum.bytesPerSecond;
  return flop / (rate * busy * (shares[each - 1] ?? 1)) + adding;
}

/** Numbers of parts that are tried: others leave depths uneven, and measured slower. */
export const splitCounts: readonly number[] = [1, 2, 4, 8, 16, 32, 64];
