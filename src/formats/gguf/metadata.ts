import type { HeaderCursor } from './cursor.js';
import { decodeStrings, decodeText } from './strings.js';
import { type GgufArray, type GgufNumericType, type GgufType, type GgufValue, ggufTypeBytes, ggufTypeOfId, numericArray } from './values.js';

/** The smallest entry: key length, one byte of key, type, one byte of value. */
export const smallestEntry = 8 + 1 + 4 + 1;

/** Reads `count` metadata entries from the cursor on, in the file's order. */
export async function readMetadata(cursor: HeaderCursor, count: number): Promise<Map<string, GgufValue>> {
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < count; i++) {
    cursor.key = undefined;
    const start = cursor.position;
    const key = await readKey(cursor, i);
    cursor.key = key;
    if (metadata.has(key)) cursor.fail('E_DUP_KEY', `the key ${JSON.stringify(key)} occurs twice`, start);
    metadata.set(key, await readValue(cursor));
  }
  cursor.key = undefined;
  return metadata;
}

async function readKey(cursor: HeaderCursor, index: number): Promise<string> {
  const what = `the key of metadata entry ${index}`;
  if (!cursor.has(8)) await cursor.fetch(8, what);
  const at = cursor.position;
  const length = cursor.length();
  if (length === 0) cursor.fail('E_KEY', `${what} is empty`, at);
  if (length > cursor.limits.keyBytes) cursor.fail('E_STRING', `${what} claims ${length} bytes, the limit is ${cursor.limits.keyBytes}`, at);
  if (!cursor.has(length)) await cursor.fetch(length, what);
  return cursor.strictText(length, what);
}

async function readType(cursor: HeaderCursor): Promise<{ id: number; type: GgufType | undefined }> {
  if (!cursor.has(4)) await cursor.fetch(4, 'a value type');
  const id = cursor.u32();
  return { id, type: ggufTypeOfId(id) };
}

async function readValue(cursor: HeaderCursor): Promise<GgufValue> {
  const { id, type } = await readType(cursor);
  if (type === undefined) return cursor.fail('E_KV_TYPE', `the key ${cursor.key} has value type ${id}; GGUF's types are 0 to 12`, cursor.position - 4);
  if (type === 'string') return { type, value: await readString(cursor) };
  if (type === 'array') return readArray(cursor);
  const size = ggufTypeBytes[type];
  if (!cursor.has(size)) await cursor.fetch(size, `the value of ${cursor.key}`);
  return scalar(cursor, type, cursor.view(size));
}

function scalar(cursor: HeaderCursor, type: GgufNumericType, view: DataView): GgufValue {
  switch (type) {
    case 'u8':
      return { type, value: view.getUint8(0) };
    case 'i8':
      return { type, value: view.getInt8(0) };
    case 'u16':
      return { type, value: view.getUint16(0, true) };
    case 'i16':
      return { type, value: view.getInt16(0, true) };
    case 'u32':
      return { type, value: view.getUint32(0, true) };
    case 'i32':
      return { type, value: view.getInt32(0, true) };
    case 'f32':
      return { type, value: view.getFloat32(0, true) };
    case 'f64':
      return { type, value: view.getFloat64(0, true) };
    case 'u64':
      return { type, value: view.getBigUint64(0, true) };
    case 'i64':
      return { type, value: view.getBigInt64(0, true) };
    case 'bool': {
      const value = view.getUint8(0);
      if (value > 1) cursor.fail('E_KV_TYPE', `the boolean ${cursor.key} is ${value}; 0 and 1 are the only ones`, cursor.position - 1);
      return { type, value: value === 1 };
    }
  }
}

/** The length of a string, checked against the limit and the end of the file; its bytes are in memory afterwards. */
async function readString(cursor: HeaderCursor): Promise<string> {
  const what = `the value of ${cursor.key}`;
  if (!cursor.has(8)) await cursor.fetch(8, what);
  const length = stringLength(cursor);
  if (!cursor.has(length)) await cursor.fetch(length, what);
  return decodeText(cursor.bytes(length));
}

function stringLength(cursor: HeaderCursor): number {
  const at = cursor.position;
  const length = cursor.length();
  if (length > cursor.limits.stringBytes)
    cursor.fail('E_STRING', `a string of ${cursor.key} claims ${length} bytes, the limit is ${cursor.limits.stringBytes}`, at);
  return length;
}

async function readArray(cursor: HeaderCursor): Promise<GgufArray> {
  const { id, type } = await readType(cursor);
  if (type === undefined)
    return cursor.fail('E_ARRAY_TYPE', `the array ${cursor.key} has elements of type ${id}; GGUF's types are 0 to 12`, cursor.position - 4);
  if (type === 'array') return cursor.fail('E_DEPTH', `the array ${cursor.key} holds arrays; only plain elements are supported`, cursor.position - 4);
  if (!cursor.has(8)) await cursor.fetch(8, `the length of the array ${cursor.key}`);
  const at = cursor.position;
  const count = cursor.length();
  if (count > cursor.limits.arrayElements)
    cursor.fail('E_ARRAY', `the array ${cursor.key} claims ${count} elements, the limit is ${cursor.limits.arrayElements}`, at);
  if (type === 'string') return readStrings(cursor, count);
  const size = count * ggufTypeBytes[type];
  if (!cursor.has(size)) await cursor.fetch(size, `the array ${cursor.key}`);
  const bytes = cursor.bytes(size);
  if (type === 'bool' && bytes.some((byte) => byte > 1)) cursor.fail('E_ARRAY_TYPE', `the array ${cursor.key} of booleans holds other bytes than 0 and 1`, at);
  return numericArray(type, bytes);
}

/** Strings are checked now and decoded when they are first wanted. */
async function readStrings(cursor: HeaderCursor, count: number): Promise<GgufArray> {
  const what = `the array ${cursor.key}`;
  cursor.require(count * 8, what);
  const start = cursor.position;
  const ends = new Uint32Array(count);
  let size = 0;
  for (let i = 0; i < count; i++) {
    if (!cursor.has(8)) await cursor.fetch(8, what);
    const length = stringLength(cursor);
    if (!cursor.has(length)) await cursor.fetch(length, what);
    cursor.position += length;
    size += length;
    ends[i] = size;
  }
  let packed: Uint8Array | undefined = withoutLengths(cursor.fetched.subarray(start, cursor.position), ends);
  let values: readonly string[] | undefined;
  return {
    type: 'array',
    elementType: 'string',
    get values() {
      if (packed !== undefined) values = decodeStrings(packed, ends);
      packed = undefined;
      return values ?? [];
    },
  };
}

/** The strings' bytes one after the other. */
function withoutLengths(bytes: Uint8Array, ends: Uint32Array): Uint8Array {
  const packed = new Uint8Array(bytes.length - 8 * ends.length);
  let from = 8;
  let at = 0;
  for (let i = 0; i < ends.length; i++) {
    const end = ends[i] ?? 0;
    while (at < end) packed[at++] = bytes[from++] ?? 0;
    from += 8;
  }
  return packed;
}
