import { type DType, dtypes } from '../../core/dtype.js';
import { FormatError, type FormatErrorCode } from '../../core/errors.js';
import { elementCount, type Shape } from '../../core/tensor.js';
import { openSource } from '../open-source.js';
import type { ByteSource, SourceLike } from '../source.js';
import type { UrlOptions } from '../url-source.js';

/** One entry of its table. */
export interface SafetensorsTensor {
  readonly name: string;
  readonly dtype: DType;
  /** Slowest axis first; [] is a single value. */
  readonly shape: Shape;
  readonly byteLength: number;
  /** Of its first byte in the file. */
  readonly offset: number;
}

/** An open safetensors file. */
export interface SafetensorsFile {
  readonly name: string;
  readonly metadata: ReadonlyMap<string, string>;
  /** In the order of their bytes. */
  readonly tensors: ReadonlyMap<string, SafetensorsTensor>;
  /** The tensor's bytes; read them, do not write to them. Throws `FormatError` E_TENSOR_MISSING for a name that is not there. */
  readTensor(name: string, signal?: AbortSignal): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** The format's own limit. */
const maxHeaderBytes = 100_000_000;

const dtypeNames: ReadonlyMap<string, DType> = new Map([
  ['F64', 'f64'],
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
  ['I64', 'i64'],
  ['I32', 'i32'],
  ['I16', 'i16'],
  ['I8', 'i8'],
  ['U32', 'u32'],
  ['U8', 'u8'],
  ['BOOL', 'u8'],
]);

/** Opens a safetensors file and checks its header whole: the tensors must fill the data without gaps. Throws `FormatError` for a malformed file. */
export async function openSafetensors(source: SourceLike, options: UrlOptions = {}): Promise<SafetensorsFile> {
  const bytes = await openSource(source, options);
  try {
    const { metadata, tensors } = await readHeader(bytes, options.signal);
    return {
      name: bytes.name,
      metadata,
      tensors,
      async readTensor(name, signal) {
        const tensor = tensors.get(name);
        if (tensor === undefined) throw new FormatError('E_TENSOR_MISSING', `${bytes.name} has no tensor ${name}`, { tensor: name });
        return await bytes.read(tensor.offset, tensor.byteLength, signal);
      },
      close: () => bytes.close(),
    };
  } catch (error) {
    await bytes.close();
    throw error;
  }
}

async function readHeader(source: ByteSource, signal: AbortSignal | undefined): Promise<Pick<SafetensorsFile, 'metadata' | 'tensors'>> {
  const fail = (code: FormatErrorCode, message: string, where: { offset?: number; tensor?: string; cause?: unknown } = {}): never => {
    throw new FormatError(code, `${source.name}: ${message}`, where);
  };
  if (source.size < 8) fail('E_TRUNCATED', `a safetensors file has 8 bytes or more, this one has ${source.size}`, { offset: 0 });
  const head = await source.read(0, 8, signal);
  const claimed = new DataView(head.buffer, head.byteOffset, 8).getBigUint64(0, true);
  if (claimed > BigInt(maxHeaderBytes))
    fail('E_COUNT', `the header claims ${claimed} bytes, the limit is ${maxHeaderBytes}: is this a safetensors file?`, { offset: 0 });
  const length = Number(claimed);
  if (8 + length > source.size) fail('E_TRUNCATED', `the header claims ${length} bytes, the file has ${source.size - 8} after its first 8`, { offset: 0 });
  const json = parseJson(await source.read(8, length, signal), fail);
  const metadata = new Map<string, string>();
  const tensors: SafetensorsTensor[] = [];
  for (const [name, entry] of Object.entries(json)) {
    if (!isRecord(entry)) return fail('E_METADATA', `the header entry ${JSON.stringify(name)} is not an object`, { tensor: name });
    if (name !== '__metadata__') tensors.push(tensorOf(name, entry, 8 + length, fail));
    else
      for (const [key, value] of Object.entries(entry))
        metadata.set(key, typeof value === 'string' ? value : fail('E_METADATA', `metadata ${key} is not a string`));
  }
  tensors.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  let end = 8 + length;
  for (const { name, offset, byteLength } of tensors) {
    if (offset !== end) fail('E_OFFSET', `tensor ${name} starts at byte ${offset}, but the tensors before it end at ${end}`, { offset, tensor: name });
    end += byteLength;
    if (end > source.size)
      fail('E_DATA_BOUNDS', `tensor ${name} ends at byte ${end}, the file has ${source.size}: is the download complete?`, { offset, tensor: name });
  }
  if (end !== source.size) fail('E_DATA_BOUNDS', `the tensors end at byte ${end}, the file has ${source.size}`, { offset: end });
  return { metadata, tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])) };
}

type Fail = (code: FormatErrorCode, message: string, where?: { offset?: number; tensor?: string; cause?: unknown }) => never;

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseJson(bytes: Uint8Array, fail: Fail): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    return isRecord(value) ? value : fail('E_METADATA', 'the header is not a JSON object', { offset: 8 });
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    return fail(cause instanceof TypeError ? 'E_UTF8' : 'E_METADATA', `the header is not JSON in UTF-8: ${String(cause)}`, { offset: 8, cause });
  }
}

function tensorOf(name: string, entry: Readonly<Record<string, unknown>>, dataStart: number, fail: Fail): SafetensorsTensor {
  const dtype = dtypeNames.get(String(entry['dtype']));
  if (dtype === undefined)
    return fail('E_TENSOR_TYPE', `tensor ${name} has type ${String(entry['dtype'])}; known are ${[...dtypeNames.keys()].join(', ')}`, { tensor: name });
  const shape = sizes(entry['shape']) ?? fail('E_SHAPE', `tensor ${name} has no shape of whole numbers`, { tensor: name });
  const [from, to, ...more] = sizes(entry['data_offsets']) ?? [];
  if (from === undefined || to === undefined || more.length > 0) return fail('E_OFFSET', `tensor ${name} has no pair of data offsets`, { tensor: name });
  const byteLength = elementCount(shape) * dtypes[dtype].bytes;
  if (!Number.isSafeInteger(byteLength)) return fail('E_OVERFLOW', `tensor ${name} has more than 2^53 bytes`, { tensor: name });
  if (to - from !== byteLength)
    return fail('E_SHAPE', `tensor ${name}, ${dtype} [${shape.join(', ')}], is ${byteLength} bytes, its offsets span ${to - from}`, { tensor: name });
  return { name, dtype, shape, byteLength, offset: dataStart + from };
}

function sizes(value: unknown): number[] | undefined {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0) ? value : undefined;
}
