/** f16 and bf16 as bit patterns (IEEE 754 binary16, and the upper half of binary32). */

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** 2^(e - 25) for the biased exponent e of a normal f16, whose significand is the integer 1024 + fraction. */
const halfScale: readonly number[] = Array.from({ length: 31 }, (_, exponent) => 2 ** (exponent - 25));

/** The number that the 16 bits of an f16 mean; every f16 is exact in f32. NaN loses its payload. */
export function halfToFloat(bits: number): number {
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  const magnitude =
    exponent === 0 ? fraction * 2 ** -24 : exponent === 31 ? (fraction === 0 ? Infinity : NaN) : (1024 + fraction) * (halfScale[exponent] ?? NaN);
  return bits & 0x8000 ? -magnitude : magnitude;
}

/** The f16 nearest to an f32 value, ties to even; overflow gives infinity, NaN gives the quiet NaN 0x7e00 with its sign. */
export function floatToHalf(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0] ?? 0;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) return sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000) >>> 13);
  // Below 2^-14: the last place of an f32 in [0.5, 1) is 2^-24, an f16 subnormal's, so the sum's rounding is the rounding wanted.
  scratch[0] = Math.abs(scratch[0] ?? 0) + 0.5;
  return sign | ((scratchBits[0] ?? 0) - 0x3f000000);
}

/** The number that the 16 bits of a bf16 mean. */
export function bfloatToFloat(bits: number): number {
  scratchBits[0] = bits << 16;
  return scratch[0] ?? NaN;
}

/** The bf16 nearest to an f32 value, ties to even; NaN stays a (quiet) NaN. */
export function floatToBfloat(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0] ?? 0;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}
