/**
 * Philox4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four words from (key, counter) without any state, so that any draw of
 * any step can be made alone and in any order, on a GPU too.
 */
const multipliers = [0xd2511f53, 0xcd9e8d57] as const;
const weyl = [0x9e3779b9, 0xbb67ae85] as const;
const rounds = 10;

/** High word of the 64-bit product of two u32. */
function mulHigh(a: number, b: number): number {
  const [al, ah, bl, bh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = ah * bl + ((al * bl) >>> 16);
  const carry = al * bh + (middle & 0xffff);
  return (ah * bh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}

/** Writes the four words for (key, counter) into `out`. */
export function philox(out: Uint32Array, key: readonly [number, number], counter: readonly [number, number, number, number]): void {
  let [k0, k1] = key;
  let [c0, c1, c2, c3] = counter;
  for (let round = 0; round < rounds; round++) {
    const [high0, low0] = [mulHigh(multipliers[0], c0), Math.imul(multipliers[0], c0)];
    const [high1, low1] = [mulHigh(multipliers[1], c2), Math.imul(multipliers[1], c2)];
    [c0, c1, c2, c3] = [high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0];
    k0 = (k0 + weyl[0]) | 0;
    k1 = (k1 + weyl[1]) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** The two key words of a seed: any integer from 0 to 2^53 - 1. */
export function seedKey(seed: number): [number, number] {
  return [(seed % 0x1_0000_0000) >>> 0, Math.floor(seed / 0x1_0000_0000) >>> 0];
}

/** Uniform in (0, 1) from a word: the centre of one of 2^23 equal parts, which f32 holds exactly. Of 2^24 the last centre would round to 1 there. */
export function uniform(word: number): number {
  return ((word >>> 9) + 0.5) / 0x800_000;
}

/** Standard Gumbel noise from a word: the largest of log p(i) + noise(i) over i is a draw of i from p. */
export function gumbel(word: number): number {
  return -Math.log(-Math.log(uniform(word)));
}
