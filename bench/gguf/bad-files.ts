/**
 * Malformed GGUF files, one class of fault each, with what the container's reader must say. `code` is undefined for files that load here: odd but harmless ones,
 * and those whose fault is in the vocabulary or the hyperparameters, which later stages check. Plain data, used by the tests and by the benchmark.
 */

import type { FormatErrorCode } from '../../src/gguf.js';

export interface BadFile {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly code: FormatErrorCode | undefined;
  /** What the error must name. */
  readonly key?: string;
  readonly tensor?: string;
  readonly warns?: boolean;
}

const types = { u8: 0, u32: 4, i32: 5, f32: 6, string: 8, array: 9 };

type Bytes = Uint8Array | string;

function join(...parts: readonly Bytes[]): Uint8Array {
  const encoder = new TextEncoder();
  const bytes = parts.map((part) => (typeof part === 'string' ? encoder.encode(part) : part));
  const out = new Uint8Array(bytes.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of bytes) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function u64(value: number | bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(value)), true);
  return bytes;
}

function text(value: Bytes): Uint8Array {
  const bytes = join(value);
  return join(u64(bytes.length), bytes);
}

function entry(key: Bytes, type: number, value: Uint8Array): Uint8Array {
  return join(text(key), u32(type), value);
}

const string = (key: Bytes, value: string) => entry(key, types.string, text(value));
const number = (key: Bytes, value: number) => entry(key, types.u32, u32(value));
const array = (key: Bytes, type: number, count: number | bigint, ...items: readonly Bytes[]) => entry(key, types.array, join(u32(type), u64(count), ...items));

function tensor(name: Bytes, sizes: readonly (number | bigint)[], type = 0, offset: number | bigint = 0, rank = sizes.length): Uint8Array {
  return join(text(name), u32(rank), ...sizes.map(u64), u32(type), u64(offset));
}

interface Parts {
  readonly magic?: string;
  readonly version?: number;
  readonly entries?: readonly Uint8Array[];
  readonly tensors?: readonly Uint8Array[];
  readonly entryCount?: number | bigint;
  readonly tensorCount?: number | bigint;
  readonly data?: number;
}

const base = [string('general.architecture', 'llama'), number('llama.block_count', 1)];

function file({ magic = 'GGUF', version = 3, entries = base, tensors = [], entryCount, tensorCount, data = 0 }: Parts): Uint8Array {
  const header = join(magic, u32(version), u64(tensorCount ?? tensors.length), u64(entryCount ?? entries.length), ...entries, ...tensors);
  return join(header, new Uint8Array((32 - (header.length % 32)) % 32), new Uint8Array(data).fill(1));
}

const oneTensor = (info: Uint8Array, data = 128, entries = base) => file({ entries, tensors: [info], data });
const oneEntry = (item: Uint8Array) => file({ entries: [item] });
const aligned = (item: Uint8Array) => oneTensor(tensor('a', [32]), 128, [...base, item]);
const good = oneTensor(tensor('a', [32, 2]), 256);

function nested(depth: number): Uint8Array {
  let value = join(u32(types.u8), u64(1), Uint8Array.of(1));
  for (let i = 0; i < depth; i++) value = join(u32(types.array), u64(1), value);
  return entry('k', types.array, value);
}

const vocabulary = array('tokenizer.ggml.tokens', types.string, 2, text('a'), text('b'));
const nearly2to63 = 2n ** 63n - 64n;
const alignment = 'general.alignment';

const refused: readonly (readonly [name: string, code: FormatErrorCode, bytes: Uint8Array, names?: { key?: string; tensor?: string }])[] = [
  ['empty', 'E_MAGIC', new Uint8Array(0)],
  ['two letters', 'E_MAGIC', join('GG')],
  ['another magic', 'E_MAGIC', file({ magic: 'FUGG' })],
  ['version 0', 'E_VERSION', file({ version: 0 })],
  ['version 1', 'E_VERSION', file({ version: 1 })],
  ['version 4', 'E_VERSION', file({ version: 4 })],
  ['big-endian', 'E_VERSION', file({ version: 0x03000000 })],
  ['2^64 - 1 tensors', 'E_COUNT', file({ tensorCount: -1n })],
  ['2^64 - 1 entries', 'E_COUNT', file({ entryCount: -1n })],
  ['a million tensors, none there', 'E_TRUNCATED', file({ tensorCount: 1_000_000 })],
  ['99,999 entries, two there', 'E_TRUNCATED', file({ entryCount: 99_999 })],
  ['cut in the counts', 'E_TRUNCATED', good.subarray(0, 20)],
  ['cut in the magic and version', 'E_TRUNCATED', good.subarray(0, 6)],
  ['cut in a key', 'E_TRUNCATED', good.subarray(0, 40)],
  ['cut in a tensor info', 'E_TRUNCATED', good.subarray(0, good.length - 256 - 40)],
  ['data 100 bytes short', 'E_DATA_BOUNDS', good.subarray(0, good.length - 100), { tensor: 'a' }],
  ['key of 2^64 - 1 bytes', 'E_STRING', oneEntry(join(u64(-1n), 'x', u32(4), u32(1)))],
  ['key of 9 MB in a tiny file', 'E_STRING', oneEntry(join(u64(9_000_000), 'x', u32(4), u32(1)))],
  ['key longer than the file', 'E_TRUNCATED', oneEntry(join(u64(60_000), 'x', u32(4), u32(1)))],
  ['empty key', 'E_KEY', oneEntry(number('', 1))],
  ['key twice', 'E_DUP_KEY', file({ entries: [...base, string('general.architecture', 'gpt2')] }), { key: 'general.architecture' }],
  ['value type 13', 'E_KV_TYPE', oneEntry(entry('k', 13, u32(0))), { key: 'k' }],
  ['boolean 2', 'E_KV_TYPE', oneEntry(entry('k', 7, Uint8Array.of(2, 0, 0, 0))), { key: 'k' }],
  ['string of 1 GiB', 'E_STRING', oneEntry(entry('k', types.string, u64(2 ** 30))), { key: 'k' }],
  ['string longer than the file', 'E_TRUNCATED', oneEntry(entry('k', types.string, u64(2 ** 19))), { key: 'k' }],
  ['array of 2^63', 'E_ARRAY', oneEntry(array('k', types.u8, 2n ** 63n)), { key: 'k' }],
  ['array longer than the file', 'E_TRUNCATED', oneEntry(array('k', types.f32, 3_000_000)), { key: 'k' }],
  ['999,999 strings, none there', 'E_TRUNCATED', oneEntry(array('k', types.string, 999_999)), { key: 'k' }],
  ['string of an array longer than the file', 'E_TRUNCATED', oneEntry(array('k', types.string, 1, u64(1000), 'x')), { key: 'k' }],
  ['string of an array of 2^40', 'E_STRING', oneEntry(array('k', types.string, 1, u64(2 ** 40), 'x')), { key: 'k' }],
  ['array of type 99', 'E_ARRAY_TYPE', oneEntry(array('k', 99, 1, u32(0))), { key: 'k' }],
  ['array of booleans with a 9', 'E_ARRAY_TYPE', oneEntry(array('k', 7, 1, Uint8Array.of(9))), { key: 'k' }],
  ['arrays nested 100 deep', 'E_DEPTH', oneEntry(nested(100)), { key: 'k' }],
  ['100,000 arrays of 1,000,000', 'E_DEPTH', oneEntry(array('k', types.array, 100_000, u32(types.array), u64(1_000_000))), { key: 'k' }],
  ['key not UTF-8', 'E_UTF8', oneEntry(number(Uint8Array.of(0xff, 0xfe, 0x80), 1))],
  ['alignment 0', 'E_ALIGN', aligned(number(alignment, 0)), { key: alignment }],
  ['alignment 13', 'E_ALIGN', aligned(number(alignment, 13)), { key: alignment }],
  ['alignment 2^31', 'E_ALIGN', aligned(number(alignment, 2 ** 31)), { key: alignment }],
  ['alignment as i32', 'E_ALIGN', aligned(entry(alignment, types.i32, u32(32))), { key: alignment }],
  ['alignment as text', 'E_ALIGN', aligned(string(alignment, '64')), { key: alignment }],
  ['no dimension', 'E_DIMS', oneTensor(tensor('a', []), 32), { tensor: 'a' }],
  ['five dimensions', 'E_DIMS', oneTensor(tensor('a', [2, 2, 2, 2, 2])), { tensor: 'a' }],
  ['2^32 - 1 dimensions', 'E_DIMS', oneTensor(tensor('a', [2], 0, 0, 0xffffffff)), { tensor: 'a' }],
  ['size -1', 'E_SHAPE', oneTensor(tensor('a', [-1n])), { tensor: 'a' }],
  ['size 0', 'E_SHAPE', oneTensor(tensor('a', [0])), { tensor: 'a' }],
  ['2^64 elements', 'E_OVERFLOW', oneTensor(tensor('a', [2n ** 32n, 2n ** 32n])), { tensor: 'a' }],
  ['2^65 bytes', 'E_OVERFLOW', oneTensor(tensor('a', [2n ** 31n, 2n ** 31n], 27)), { tensor: 'a' }],
  [
    '2^64 bytes in two tensors',
    'E_OVERFLOW',
    file({ tensors: [tensor('a', [nearly2to63], 24), tensor('b', [nearly2to63], 24, nearly2to63)], data: 128 }),
    { tensor: 'b' },
  ],
  ['tensor larger than the file', 'E_DATA_BOUNDS', oneTensor(tensor('a', [4096, 4096])), { tensor: 'a' }],
  ['tensor of 2^62 bytes', 'E_DATA_BOUNDS', oneTensor(tensor('a', [2n ** 62n], 24)), { tensor: 'a' }],
  ['type 200', 'E_TENSOR_TYPE', oneTensor(tensor('a', [32], 200)), { tensor: 'a' }],
  ['removed type 4', 'E_TENSOR_TYPE', oneTensor(tensor('a', [32], 4)), { tensor: 'a' }],
  ['row of 33 in blocks of 32', 'E_BLOCK', oneTensor(tensor('a', [33], 2)), { tensor: 'a' }],
  ['offset beyond the file', 'E_OFFSET', oneTensor(tensor('a', [32], 0, 2n ** 40n)), { tensor: 'a' }],
  ['offset 7', 'E_OFFSET', oneTensor(tensor('a', [32], 0, 7), 256), { tensor: 'a' }],
  ['offset 2^64 - 1', 'E_OFFSET', oneTensor(tensor('a', [32], 0, -1n)), { tensor: 'a' }],
  ['two tensors in one place', 'E_OFFSET', file({ tensors: [tensor('a', [32]), tensor('b', [32])], data: 256 }), { tensor: 'b' }],
  ['tensor name twice', 'E_NAME', file({ tensors: [tensor('a', [32]), tensor('a', [32], 0, 128)], data: 256 }), { tensor: 'a' }],
  ['tensor name of 65 bytes', 'E_NAME', oneTensor(tensor('n'.repeat(65), [32]))],
  ['tensor name of 0 bytes', 'E_NAME', oneTensor(tensor('', [32]))],
  ['tensor name not UTF-8', 'E_UTF8', oneTensor(tensor(Uint8Array.of(0x61, 0xff), [32]))],
  ['zero byte in a tensor name', 'E_NAME', oneTensor(tensor('a\0b', [32]))],
  [
    'split keys of a missing shard',
    'E_SPLIT',
    file({
      entries: [
        ...base,
        entry('split.no', 2, u32(0).subarray(0, 2)),
        entry('split.count', 2, u32(3).subarray(0, 2)),
        entry('split.tensors.count', types.i32, u32(5)),
      ],
    }),
  ],
  [
    'shard 7 of 3',
    'E_SPLIT',
    file({ entries: [...base, number('split.no', 6), number('split.count', 3), number('split.tensors.count', 5)] }),
    { key: 'split.no' },
  ],
  ['split count as text', 'E_SPLIT', file({ entries: [...base, string('split.count', '3')] }), { key: 'split.count' }],
];

const loading: readonly (readonly [name: string, bytes: Uint8Array, warns?: boolean])[] = [
  ['a good file', good],
  ['key __proto__', file({ entries: [...base, array('__proto__', types.u32, 1, u32(7))] })],
  ['key tensor_count', file({ entries: [...base, number('tensor_count', 7)] })],
  ['4 KiB after the data', join(good, new Uint8Array(4096).fill(1)), true],
  ['scores as u8', file({ entries: [...base, vocabulary, array('tokenizer.ggml.scores', types.u8, 2, Uint8Array.of(1, 2))] })],
  ['tokens as u32', file({ entries: [...base, array('tokenizer.ggml.tokens', types.u32, 2, u32(1), u32(2))] })],
  ['end token 999,999 of 2', file({ entries: [...base, vocabulary, number('tokenizer.ggml.eos_token_id', 999_999)] })],
  ['2^31 layers', file({ entries: [string('general.architecture', 'llama'), number('llama.block_count', 0x7fffffff)] })],
  ['no heads', file({ entries: [...base, number('llama.attention.head_count', 0)] })],
  ['epsilon NaN', file({ entries: [...base, entry('llama.attention.layer_norm_rms_epsilon', types.f32, u32(0x7fc00000))] })],
];

export const badFiles: readonly BadFile[] = [
  ...refused.map(([name, code, bytes, names]): BadFile => ({ name, bytes, code, ...names })),
  ...loading.map(([name, bytes, warns = false]): BadFile => ({ name, bytes, code: undefined, warns })),
];
