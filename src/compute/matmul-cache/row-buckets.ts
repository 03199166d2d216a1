import type { BackendKind } from '../../runtime/backend.js';

/**
 * Rows that a product of m rows is computed with. A GPU compiles a kernel for every number of rows, so that few are used: 1, 2, 3, 4, powers of two to 256, then two to an octave.
 * The CPU compiles nothing for it: four to an octave waste less.
 */
export function rowBucket(kind: BackendKind, m: number): number {
  if (m <= 4) return m;
  const octave = 2 ** Math.floor(Math.log2(m));
  const step = stepOf(kind, octave);
  return Math.ceil(m / step) * step;
}

/** The largest bucket of at most m rows, m being 1 or more. */
export function rowBucketBelow(kind: BackendKind, m: number): number {
  if (m <= 4) return Math.floor(m);
  const octave = 2 ** Math.floor(Math.log2(m));
  const step = stepOf(kind, octave);
  return Math.floor(m / step) * step;
}

/** Distance of the buckets from `octave` to twice as much. */
function stepOf(kind: BackendKind, octave: number): number {
  if (kind === 'cpu') return Math.max(4, octave / 4);
  return octave < 256 ? octave : octave / 2;
}
