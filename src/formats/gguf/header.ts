import type { DType } from '../../core/dtype.js';
import type { Shape } from '../../core/tensor.js';
import { roundUp } from '../../core/tensor.js';
import { type ByteSource, withHeldBytes } from '../source.js';
import { HeaderCursor } from './cursor.js';
import type { GgufLimits } from './limits.js';
import { readMetadata, smallestEntry } from './metadata.js';
import { readTensorInfos, smallestTensorInfo, type TensorTable } from './tensors.js';
import { describeType, type GgufValue } from './values.js';

/** A tensor and its place in its file. */
export interface PlacedTensor {
  readonly name: string;
  readonly dtype: DType;
  /** Slowest axis first: [rows, columns], the reverse of GGUF's own order. */
  readonly shape: Shape;
  /** Packed bytes, without padding. */
  readonly byteLength: number;
  /** Of its first byte in its file. */
  readonly offset: number;
}

/** A tensor of a model. */
export interface GgufTensor extends PlacedTensor {
  /** The file that it lies in: 0, or the number of a shard. */
  readonly shard: number;
}

/** One parsed file (a shard, where the model is split). */
export interface GgufHeader {
  readonly version: 2 | 3;
  readonly alignment: number;
  readonly metadata: Map<string, GgufValue>;
  readonly tensors: readonly PlacedTensor[];
  readonly warnings: readonly string[];
  /** The source, with what was read beyond the header kept so that it is not read again. */
  readonly source: ByteSource;
}

const magic = 0x46554747;

const defaultAlignment = 32;

/** Reads a file's header in one pass. */
export async function readHeader(source: ByteSource, limits: GgufLimits, signal: AbortSignal | undefined): Promise<GgufHeader> {
  const cursor = new HeaderCursor(source, limits, signal);
  const version = await readVersion(cursor);
  await cursor.fetch(16, 'the header');
  const tensorCount = readCount(cursor, 'tensors', limits.tensors);
  const entryCount = readCount(cursor, 'metadata entries', limits.keyValues);
  requireRoom(cursor, tensorCount, entryCount);
  requireLimit(cursor, tensorCount, 'tensors', limits.tensors);
  requireLimit(cursor, entryCount, 'metadata entries', limits.keyValues);
  const metadata = await readMetadata(cursor, entryCount);
  const alignment = alignmentOf(cursor, metadata);
  const table = await readTensorInfos(cursor, tensorCount, alignment);
  const dataStart = roundUp(cursor.position, alignment);
  const tensors = placeTensors(cursor, table, dataStart);
  const fetched = cursor.fetched;
  const held = fetched.slice(Math.min(dataStart, fetched.length));
  return {
    version,
    alignment,
    metadata,
    tensors,
    warnings: [...(source.warnings ?? []), ...trailingBytes(source, dataStart + Number(table.paddedEnd))],
    source: held.length > 0 ? withHeldBytes(source, dataStart, held) : source,
  };
}

async function readVersion(cursor: HeaderCursor): Promise<2 | 3> {
  if (cursor.remaining < 4) cursor.fail('E_MAGIC', `not a GGUF file: it has ${cursor.remaining} bytes, and a GGUF file starts with the four letters "GGUF"`);
  await cursor.fetch(4, 'the magic');
  if (cursor.u32() !== magic) cursor.fail('E_MAGIC', 'not a GGUF file: it does not start with the letters "GGUF"', 0);
  await cursor.fetch(4, 'the version');
  const version = cursor.u32();
  if (version === 2 || version === 3) return version;
  const swapped = ((version & 0xff) << 24) | ((version & 0xff00) << 8) | ((version >>> 8) & 0xff00) | (version >>> 24);
  const hint =
    swapped === 2 || swapped === 3
      ? ': the file is big-endian, convert it to little-endian'
      : version === 1
        ? ': convert the model again, version 1 is long gone'
        : '';
  return cursor.fail('E_VERSION', `GGUF version ${version}; 2 and 3 can be read${hint}`, 4);
}

function readCount(cursor: HeaderCursor, what: string, limit: number): number {
  const at = cursor.position;
  const count = cursor.length();
  if (count === Infinity) cursor.fail('E_COUNT', `the file claims more than 2^53 ${what}, the limit is ${limit}`, at);
  return count;
}

function requireRoom(cursor: HeaderCursor, tensorCount: number, entryCount: number): void {
  const smallest = tensorCount * smallestTensorInfo + entryCount * smallestEntry;
  if (smallest > cursor.remaining) {
    cursor.fail(
      'E_TRUNCATED',
      `${tensorCount} tensors and ${entryCount} metadata entries need ${smallest} bytes or more, but the file ends ${cursor.remaining} bytes after byte ${cursor.position}`,
    );
  }
}

function requireLimit(cursor: HeaderCursor, count: number, what: string, limit: number): void {
  if (count > limit) cursor.fail('E_COUNT', `the file claims ${count} ${what}, the limit is ${limit}`, 8);
}

function alignmentOf(cursor: HeaderCursor, metadata: ReadonlyMap<string, GgufValue>): number {
  const key = 'general.alignment';
  const value = metadata.get(key);
  if (value === undefined) return defaultAlignment;
  cursor.key = key;
  if (value.type !== 'u32') return cursor.fail('E_ALIGN', `${key} must be a u32, it is ${describeType(value)}`);
  const alignment = value.value;
  if (alignment < 8 || alignment > 2 ** 20 || !Number.isInteger(Math.log2(alignment))) {
    cursor.fail('E_ALIGN', `${key} must be a power of two from 8 to 1048576, it is ${alignment}`);
  }
  cursor.key = undefined;
  return alignment;
}

/** Turns checked places into numbers: every tensor must end inside the file. */
function placeTensors(cursor: HeaderCursor, table: TensorTable, dataStart: number): PlacedTensor[] {
  const room = BigInt(Math.max(0, cursor.source.size - dataStart));
  return table.infos.map(({ name, dtype, shape, byteLength, start, infoOffset }) => {
    if (start + byteLength > room) {
      cursor.tensor = name;
      cursor.fail(
        'E_DATA_BOUNDS',
        `tensor ${name} needs bytes ${BigInt(dataStart) + start} to ${BigInt(dataStart) + start + byteLength}, but the file has ${cursor.source.size}: is the download complete?`,
        infoOffset,
      );
    }
    return { name, dtype, shape: shape.map(Number), byteLength: Number(byteLength), offset: dataStart + Number(start) };
  });
}

function trailingBytes(source: ByteSource, end: number): string[] {
  if (source.size <= end) return [];
  return [`${source.name}: ${source.size - end} bytes follow the last tensor and belong to nothing; the file may hide a second one`];
}
