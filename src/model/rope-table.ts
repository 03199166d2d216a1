/** What decides a table of RoPE angles. */
export interface RopeTableOptions {
  readonly positions: number;
  /** Elements of a head that turn. */
  readonly rotated: number;
  readonly base: number;
  /** Positions are divided by this (linear scaling). */
  readonly positionScale: number;
  /** Divisors of the frequencies [rotated / 2] (`rope_freqs`), where the model has them. */
  readonly factors?: Float32Array;
}

/**
 * (cos, sin) of every position and pair, f32 [positions, rotated / 2, 2]. Angles are taken in f64: p / positionScale * base^(-2i / rotated) / factors[i]. WGSL promises no accuracy for
 * sin and cos of large arguments, so no kernel computes them.
 */
export function ropeTable({ positions, rotated, base, positionScale, factors }: RopeTableOptions): Float32Array<ArrayBuffer> {
  const half = rotated / 2;
  const frequencies = Float64Array.from({ length: half }, (_, i) => base ** ((-2 * i) / rotated) / (factors?.[i] ?? 1) / positionScale);
  const table = new Float32Array(positions * rotated);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < half; i++) {
      const angle = p * (frequencies[i] ?? 0);
      table[(p * half + i) * 2] = Math.cos(angle);
      table[(p * half + i) * 2 + 1] = Math.sin(angle);
    }
  }
  return table;
}
