/** Rows of ggml blocks into the interleaved storage of formats.ts, and back to f32. */

import { dtypes } from '../core/dtype.js';
import { halfToFloat } from '../quant/index.js';
import { ParsedBlock, parsers } from './blocks.js';
import { type BlockFormat, type BlockLayout, blockFormats, blockLayout, groupBytes, groupRows, type PackedType } from './formats.js';

/** 32-bit words between the words of consecutive steps of one row. */
const stepWords = groupRows;

/** Storage of `rows` (whole rows in ggml's layout, the first being the first of a group); rows missing from the last group become zeros. */
export function packRows(dtype: PackedType, columns: number, rows: Uint8Array): Uint8Array {
  const format = blockFormats[dtype];
  const layout = blockLayout(format);
  const { bytes: sourceBytes } = dtypes[dtype];
  const blocks = columns / format.columns;
  const count = rows.byteLength / (blocks * sourceBytes);
  const packed = new Uint8Array(Math.ceil(count / groupRows) * groupBytes(format, columns));
  const words = new Uint32Array(packed.buffer);
  const [parsed, parse] = [new ParsedBlock(), parsers[dtype]];
  for (let row = 0; row < count; row++) {
    const group = Math.floor(row / groupRows) * groupBytes(format, columns);
    for (let block = 0; block < blocks; block++) {
      parse(rows, (row * blocks + block) * sourceBytes, parsed);
      writeBlock(format, layout, parsed, row % groupRows, packed, words, group + block * layout.blockBytes);
    }
  }
  return packed;
}

function writeBlock(format: BlockFormat, layout: BlockLayout, block: ParsedBlock, row: number, packed: Uint8Array, words: Uint32Array, at: number): void {
  packed[at + 2 * row] = block.d;
  packed[at + 2 * row + 1] = block.d >> 8;
  if (format.minimum !== undefined) {
    packed[at + 2 * groupRows + 2 * row] = block.m;
    packed[at + 2 * groupRows + 2 * row + 1] = block.m >> 8;
  }
  for (let unit = 0; unit < layout.units; unit++) {
    const scale = at + layout.scales + unit * layout.scaleBytes + row;
    if (format.unitScales !== undefined) packed[scale] = block.scales[unit] ?? 0;
    if (layout.scaleBytes > groupRows) packed[scale + groupRows] = block.mins[unit] ?? 0;
    writeUnit(format, layout, block.words, unit, words, (at + layout.codes + unit * layout.unitBytes) / 4 + row);
  }
}

/** `to` is the index of the row's first word. */
function writeUnit(format: BlockFormat, layout: BlockLayout, codes: Uint32Array, unit: number, words: Uint32Array, to: number): void {
  const steps = format.unit / 4;
  const first = unit * steps;
  if (format.codeBits === 8) {
    for (let s = 0; s < steps; s++) words[to + s * stepWords] = codes[first + s] ?? 0;
    return;
  }
  const start = to + layout.highBytes / 4;
  for (let p = 0; p < steps / 2; p++) {
    words[start + p * stepWords] = ((codes[first + p] ?? 0) & 0x0f0f0f0f) | (((codes[first + p + steps / 2] ?? 0) & 0x0f0f0f0f) << 4);
  }
  if (layout.highBytes === 0) return;
  const bits = format.codeBits - 4;
  let high = 0;
  const mask = bits === 1 ? 0x01010101 : 0x03030303;
  for (let s = 0; s < steps; s++) high |= (((codes[first + s] ?? 0) >>> 4) & mask) << (s * bits);
  words[to] = high;
}

/** Reads back code `column` of a unit; `at` is the byte address of the unit, `row` inside the group. */
function codeAt(format: BlockFormat, layout: BlockLayout, bytes: Uint8Array, at: number, row: number, column: number): number {
  const lane = row * 4 + (column & 3);
  const step = column >> 2;
  const rowBytes = groupRows * 4;
  if (format.codeBits === 8) return bytes[at + step * rowBytes + lane] ?? 0;
  const halfSteps = format.unit / 8;
  const packed = bytes[at + layout.highBytes + (step % halfSteps) * rowBytes + lane] ?? 0;
  const nibble = step < halfSteps ? packed & 15 : packed >> 4;
  if (layout.highBytes === 0) return nibble;
  const bits = format.codeBits - 4;
  return nibble | ((((bytes[at + lane] ?? 0) >> (step * bits)) & ((1 << bits) - 1)) << 4);
}

/** Row `row` of a packed weight with `columns` columns, decoded to `out[to...]`. */
export function unpackRow(dtype: PackedType, columns: number, storage: Uint8Array, row: number, out: Float32Array, to: number): void {
  const format = blockFormats[dtype];
  const layout = blockLayout(format);
  const lane = row % groupRows;
  const group = Math.floor(row / groupRows) * groupBytes(format, columns);
  const bias = format.biasBits === undefined ? 0 : 2 ** format.biasBits;
  for (let block = 0; block < columns / format.columns; block++) {
    const at = group + block * layout.blockBytes;
    const d = halfToFloat((storage[at + 2 * lane] ?? 0) | ((storage[at + 2 * lane + 1] ?? 0) << 8));
    const m = format.minimum === undefined ? -0 : halfToFloat((storage[at + 16 + 2 * lane] ?? 0) | ((storage[at + 17 + 2 * lane] ?? 0) << 8)) * format.minimum;
    for (let unit = 0; unit < layout.units; unit++) {
      const scales = at + layout.scales + unit * layout.scaleBytes + lane;
      const scale = d * unitScale(format, storage, scales);
      const min = layout.scaleBytes > groupRows ? m * (storage[scales + groupRows] ?? 0) : m;
      const codes = at + layout.codes + unit * layout.unitBytes;
      const target = to + block * format.columns + unit * format.unit;
      for (let i = 0; i < format.unit; i++) out[target + i] = scale * (codeAt(format, layout, storage, codes, lane, i) - bias) + min;
    }
  }
}

function unitScale(format: BlockFormat, storage: Uint8Array, at: number): number {
  const byte = storage[at] ?? 0;
  if (format.unitScales === undefined) return 1;
  return format.unitScales === 'signed' ? (byte << 24) >> 24 : byte;
}
