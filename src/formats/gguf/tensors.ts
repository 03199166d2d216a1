import { type DType, dtypeOfGgml, dtypes } from '../../core/dtype.js';
import type { HeaderCursor } from './cursor.js';
import { maxDimensions, maxNameBytes } from './limits.js';

/** The smallest tensor info: name length, one byte of name, rank, one dimension, type, offset. */
export const smallestTensorInfo = 8 + 1 + 4 + 8 + 4 + 8;

const largestInt64 = 2n ** 63n - 1n;

/** A tensor's place before the data section's start is known: `start` counts from there. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  /** Slowest axis first. */
  readonly shape: readonly bigint[];
  readonly byteLength: bigint;
  readonly start: bigint;
  /** Where the info lies in the file. */
  readonly infoOffset: number;
}

export interface TensorTable {
  readonly infos: readonly TensorInfo[];
  /** End of the last tensor with its padding, from the data section's start. */
  readonly paddedEnd: bigint;
}

/** Reads `count` tensor infos. Everything that needs no file size is checked here; sizes stay BigInt until they are known to lie inside the file. */
export async function readTensorInfos(cursor: HeaderCursor, count: number, alignment: number): Promise<TensorTable> {
  const infos: TensorInfo[] = [];
  const names = new Set<string>();
  let paddedEnd = 0n;
  for (let i = 0; i < count; i++) {
    cursor.tensor = undefined;
    const info = await readTensorInfo(cursor, i, names);
    if (info.start !== paddedEnd) {
      cursor.fail(
        'E_OFFSET',
        `tensor ${info.name} is said to start at ${info.start} of the data section, but the tensors before it end at ${paddedEnd}`,
        cursor.position - 8,
      );
    }
    paddedEnd = padded(info.start + info.byteLength, alignment);
    if (paddedEnd > largestInt64) cursor.fail('E_OVERFLOW', `the tensors up to ${info.name} have ${paddedEnd} bytes in all, more than 2^63`, info.infoOffset);
    names.add(info.name);
    infos.push(info);
  }
  cursor.tensor = undefined;
  return { infos, paddedEnd };
}

async function readTensorInfo(cursor: HeaderCursor, index: number, names: ReadonlySet<string>): Promise<TensorInfo> {
  const infoOffset = cursor.position;
  const name = await readName(cursor, index);
  cursor.tensor = name;
  if (names.has(name)) cursor.fail('E_NAME', `the tensor name ${name} occurs twice`, infoOffset);
  const sizes = await readSizes(cursor, name);
  if (!cursor.has(12)) await cursor.fetch(12, `the info of tensor ${name}`);
  const typeOffset = cursor.position;
  const id = cursor.u32();
  const dtype = dtypeOfGgml(id);
  if (dtype === undefined) return cursor.fail('E_TENSOR_TYPE', `tensor ${name} has type ${id}, which ggml does not have (any more)`, typeOffset);
  const { block, bytes } = dtypes[dtype];
  const row = sizes[0] ?? 0n;
  if (row % BigInt(block) !== 0n) cursor.fail('E_BLOCK', `tensor ${name} has rows of ${row} values, but ${dtype} comes in blocks of ${block}`, typeOffset);
  const elements = sizes.reduce((product, size) => product * size, 1n);
  const byteLength = (elements / BigInt(block)) * BigInt(bytes);
  if (byteLength > largestInt64) cursor.fail('E_OVERFLOW', `tensor ${name} has ${byteLength} bytes, more than 2^63`, infoOffset);
  return { name, dtype, shape: sizes.reverse(), byteLength, start: cursor.u64(), infoOffset };
}

async function readName(cursor: HeaderCursor, index: number): Promise<string> {
  const what = `the name of tensor ${index}`;
  if (!cursor.has(8)) await cursor.fetch(8, what);
  const at = cursor.position;
  const length = cursor.length();
  if (length === 0 || length > maxNameBytes) cursor.fail('E_NAME', `${what} has ${length} bytes; 1 to ${maxNameBytes} are possible`, at);
  if (!cursor.has(length)) await cursor.fetch(length, what);
  const name = cursor.strictText(length, what);
  if (name.includes('\0')) cursor.fail('E_NAME', `${what} has a zero byte in it: ${JSON.stringify(name)}`, at);
  return name;
}

/** Sizes in the file's order: the fastest axis first. */
async function readSizes(cursor: HeaderCursor, name: string): Promise<bigint[]> {
  const what = `the shape of tensor ${name}`;
  if (!cursor.has(4)) await cursor.fetch(4, what);
  const at = cursor.position;
  const rank = cursor.u32();
  if (rank < 1 || rank > maxDimensions) cursor.fail('E_DIMS', `tensor ${name} has ${rank} dimensions; 1 to ${maxDimensions} are possible`, at);
  if (!cursor.has(8 * rank)) await cursor.fetch(8 * rank, what);
  const sizes: bigint[] = [];
  let elements = 1n;
  for (let axis = 0; axis < rank; axis++) {
    const size = cursor.u64();
    if (size === 0n || size > largestInt64)
      cursor.fail('E_SHAPE', `tensor ${name} has size ${BigInt.asIntN(64, size)} in dimension ${axis}`, at + 4 + 8 * axis);
    elements *= size;
    if (elements > largestInt64) cursor.fail('E_OVERFLOW', `tensor ${name} has more than 2^63 elements`, at + 4 + 8 * axis);
    sizes.push(size);
  }
  return sizes;
}

function padded(bytes: bigint, alignment: number): bigint {
  const step = BigInt(alignment);
  return ((bytes + step - 1n) / step) * step;
}
