/**
 * How packed weights lie in linear memory: rows in groups of 8, interleaved 4 columns at a time, so that one splat of 4 activations meets 4 rows at once, one lane
 * a row, without horizontal sums. Codes are unsigned bytes less a bias, so that widening is a mask and a shift.
 *
 * One storage block holds `columns` columns of 8 rows:
 *   d[8] f16, then m[8] f16 where there are minima
 *   per unit of `unit` columns: 8 scale bytes, then 8 minimum bytes (super-blocks only)
 *   per unit: high bits, 4 bytes a row (5- and 6-bit codes): byte j has the bits above the nibble of columns j, 4 + j, 8 + j, ..., lowest first;
 *             then per 4 columns 4 bytes of each row (8-bit codes), or nibbles: byte j of step p has column 4p + j low and column unit/2 + 4p + j high.
 */

import type { DType } from '../core/dtype.js';

export const packedTypes = ['q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1', 'q4_k', 'q5_k', 'q6_k'] as const satisfies readonly DType[];
export type PackedType = (typeof packedTypes)[number];

/** Rows of a group. */
export const groupRows = 8;

export interface BlockFormat {
  readonly dtype: PackedType;
  /** Columns of a block. */
  readonly columns: 32 | 256;
  /** Columns that share a scale: also the block of the quantised activations. */
  readonly unit: 16 | 32;
  readonly codeBits: 4 | 5 | 6 | 8;
  /** log2 of what is subtracted from a code; undefined where a minimum does that. */
  readonly biasBits: number | undefined;
  /** What the minimum is multiplied by: value = scale code + sign minimum. */
  readonly minimum: 1 | -1 | undefined;
  /** Small integer scales of the units of a super-block. */
  readonly unitScales: 'unsigned' | 'signed' | undefined;
}

export const blockFormats: { readonly [K in PackedType]: BlockFormat } = {
  q8_0: { dtype: 'q8_0', columns: 32, unit: 32, codeBits: 8, biasBits: 7, minimum: undefined, unitScales: undefined },
  q4_0: { dtype: 'q4_0', columns: 32, unit: 32, codeBits: 4, biasBits: 3, minimum: undefined, unitScales: undefined },
  q4_1: { dtype: 'q4_1', columns: 32, unit: 32, codeBits: 4, biasBits: undefined, minimum: 1, unitScales: undefined },
  q5_0: { dtype: 'q5_0', columns: 32, unit: 32, codeBits: 5, biasBits: 4, minimum: undefined, unitScales: undefined },
  q5_1: { dtype: 'q5_1', columns: 32, unit: 32, codeBits: 5, biasBits: undefined, minimum: 1, unitScales: undefined },
  q4_k: { dtype: 'q4_k', columns: 256, unit: 32, codeBits: 4, biasBits: undefined, minimum: -1, unitScales: 'unsigned' },
  q5_k: { dtype: 'q5_k', columns: 256, unit: 32, codeBits: 5, biasBits: undefined, minimum: -1, unitScales: 'unsigned' },
  q6_k: { dtype: 'q6_k', columns: 256, unit: 16, codeBits: 6, biasBits: 5, minimum: undefined, unitScales: 'signed' },
};

export function isPackedType(dtype: DType): dtype is PackedType {
  return Object.hasOwn(blockFormats, dtype);
}

/** Byte offsets inside a storage block of 8 rows. */
export interface BlockLayout {
  readonly units: number;
  /** Start of the units' scales, and bytes of one unit's. */
  readonly scales: number;
  readonly scaleBytes: number;
  /** Start of the units' codes, and bytes of one unit's. */
  readonly codes: number;
  readonly unitBytes: number;
  /** Bytes of a unit's high bits, which come first. */
  readonly highBytes: number;
  readonly blockBytes: number;
}

/**
 * Sizes equal ggml's, but for Q4_K and Q5_K: their 6-bit scales become bytes, 148 bytes a row for 144 and 180 for 176.
 */
export function blockLayout(format: BlockFormat): BlockLayout {
  const units = format.columns / format.unit;
  const scales = groupRows * (format.minimum === undefined ? 2 : 4);
  const scaleBytes = format.unitScales === undefined ? 0 : groupRows * (format.minimum === undefined ? 1 : 2);
  const highBytes = format.codeBits === 5 || format.codeBits === 6 ? groupRows * 4 : 0;
  const unitBytes = highBytes + groupRows * (format.codeBits === 8 ? format.unit : format.unit / 2);
  const codes = scales + units * scaleBytes;
  return { units, scales, scaleBytes, codes, unitBytes, highBytes, blockBytes: codes + units * unitBytes };
}

/** Bytes of one group of 8 rows with `columns` columns. */
export function groupBytes(format: BlockFormat, columns: number): number {
  return (columns / format.columns) * blockLayout(format).blockBytes;
}
