import { bytesOf } from '../../core/bytes.js';
import { type DType, dtypes } from '../../core/dtype.js';
import { ArgumentError } from '../../core/errors.js';
import { elementCount, roundUp, type Shape } from '../../core/tensor.js';
import { maxDimensions, maxNameBytes } from './limits.js';
import { shardName } from './split.js';
import { type GgufArray, type GgufType, type GgufValue, ggufTypeIds, ggufValue } from './values.js';

/** A tensor to write: its packed bytes, or a function that makes them piece by piece when their turn comes. */
export interface GgufTensorInput {
  readonly name: string;
  readonly dtype: DType;
  /** Slowest axis first. */
  readonly shape: Shape;
  readonly data: Uint8Array | (() => Iterable<Uint8Array> | AsyncIterable<Uint8Array>);
}

/** What a GGUF file is to hold. */
export interface GgufInput {
  /** 3 unless given. */
  readonly version?: 2 | 3 | undefined;
  readonly metadata: Iterable<readonly [key: string, value: GgufValue]>;
  readonly tensors: readonly GgufTensorInput[];
  /** 32 unless given; any other is also written as `general.alignment`. */
  readonly alignment?: number | undefined;
}

/** Where `writeGgufTo` puts bytes: a file handle, a WritableStream's writer, an array's push. */
export interface GgufSink {
  write(bytes: Uint8Array): unknown;
}

const encoder = new TextEncoder();

/** Collects little-endian fields. */
class FieldWriter {
  readonly #parts: Uint8Array[] = [];
  length = 0;

  bytes(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.length += bytes.length;
  }

  u32(value: number): void {
    this.#field(4, (view) => view.setUint32(0, value, true));
  }

  u64(value: number | bigint): void {
    this.#field(8, (view) => view.setBigUint64(0, BigInt(value), true));
  }

  text(text: string): void {
    const bytes = encoder.encode(text);
    this.u64(bytes.length);
    this.bytes(bytes);
  }

  type(type: GgufType): void {
    this.u32(ggufTypeIds[type]);
  }

  value(value: GgufValue): void {
    this.type(value.type);
    switch (value.type) {
      case 'array':
        this.#array(value);
        break;
      case 'string':
        this.text(value.value);
        break;
      case 'bool':
        this.bytes(Uint8Array.of(value.value ? 1 : 0));
        break;
      case 'u8':
      case 'i8':
        this.#field(1, (view) => view.setUint8(0, value.value));
        break;
      case 'u16':
      case 'i16':
        this.#field(2, (view) => view.setUint16(0, value.value, true));
        break;
      case 'u32':
      case 'i32':
        this.u32(value.value);
        break;
      case 'f32':
        this.#field(4, (view) => view.setFloat32(0, value.value, true));
        break;
      case 'f64':
        this.#field(8, (view) => view.setFloat64(0, value.value, true));
        break;
      case 'u64':
      case 'i64':
        this.u64(BigInt.asUintN(64, value.value));
        break;
    }
  }

  #array(array: GgufArray): void {
    this.type(array.elementType);
    this.u64(array.values.length);
    if (array.elementType === 'string') for (const text of array.values) this.text(text);
    else this.bytes(bytesOf(array.values));
  }

  #field(size: number, set: (view: DataView) => void): void {
    const bytes = new Uint8Array(size);
    set(new DataView(bytes.buffer));
    this.bytes(bytes);
  }

  finish(): Uint8Array {
    const bytes = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.#parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  }
}

/** Header, tensor table, and the padding up to the data. */
function headerBytes(input: GgufInput): Uint8Array {
  const alignment = alignmentOf(input);
  const metadata = new Map(input.metadata);
  if (alignment !== 32) metadata.set('general.alignment', ggufValue.u32(alignment));
  const out = new FieldWriter();
  out.bytes(encoder.encode('GGUF'));
  out.u32(input.version ?? 3);
  out.u64(input.tensors.length);
  out.u64(metadata.size);
  for (const [key, value] of metadata) {
    if (key === '') throw new ArgumentError('metadata', 'a metadata key must not be empty');
    out.text(key);
    out.value(value);
  }
  const names = new Set<string>();
  let start = 0;
  for (const tensor of input.tensors) {
    checkTensor(tensor, names);
    out.text(tensor.name);
    out.u32(tensor.shape.length);
    for (const size of tensor.shape.toReversed()) out.u64(size);
    out.u32(dtypes[tensor.dtype].ggml ?? 0);
    out.u64(start);
    start += roundUp(sizeOf(tensor), alignment);
  }
  out.bytes(new Uint8Array(roundUp(out.length, alignment) - out.length));
  return out.finish();
}

function alignmentOf({ alignment = 32 }: GgufInput): number {
  if (alignment >= 8 && alignment <= 2 ** 20 && Number.isInteger(Math.log2(alignment))) return alignment;
  throw new ArgumentError('alignment', `the alignment must be a power of two from 8 to 1048576, got ${alignment}`);
}

function sizeOf({ dtype, shape }: GgufTensorInput): number {
  return (elementCount(shape) / dtypes[dtype].block) * dtypes[dtype].bytes;
}

function checkTensor(tensor: GgufTensorInput, names: Set<string>): void {
  const { name, dtype, shape, data } = tensor;
  const nameBytes = encoder.encode(name).length;
  if (nameBytes === 0 || nameBytes > maxNameBytes || name.includes('\0')) {
    throw new ArgumentError('tensors', `a tensor name has 1 to ${maxNameBytes} bytes and no zero, got ${JSON.stringify(name)}`);
  }
  if (names.has(name)) throw new ArgumentError('tensors', `the tensor name ${name} occurs twice`);
  names.add(name);
  if (dtypes[dtype].ggml === undefined) throw new ArgumentError('tensors', `${name}: GGUF has no type ${dtype}`);
  if (shape.length < 1 || shape.length > maxDimensions || !shape.every((size) => Number.isSafeInteger(size) && size > 0)) {
    throw new ArgumentError('tensors', `${name}: a shape has 1 to ${maxDimensions} sizes of 1 or more, got [${shape.join(', ')}]`);
  }
  if ((shape.at(-1) ?? 0) % dtypes[dtype].block !== 0)
    throw new ArgumentError('tensors', `${name}: rows of ${shape.at(-1)} values are not whole blocks of ${dtype}`);
  if (data instanceof Uint8Array && data.length !== sizeOf(tensor)) {
    throw new ArgumentError('tensors', `${name}: ${dtype} [${shape.join(', ')}] is ${sizeOf(tensor)} bytes, got ${data.length}`);
  }
}

/** The file's bytes in order, as they are made: header, then tensor after tensor with its padding. Throws `ArgumentError` for input that cannot be a GGUF file. */
export async function* ggufChunks(input: GgufInput): AsyncGenerator<Uint8Array> {
  yield headerBytes(input);
  const alignment = alignmentOf(input);
  for (const tensor of input.tensors) {
    const size = sizeOf(tensor);
    let written = 0;
    for await (const piece of tensor.data instanceof Uint8Array ? [tensor.data] : tensor.data()) {
      written += piece.length;
      if (written > size) break;
      yield piece;
    }
    if (written !== size) throw new ArgumentError('tensors', `${tensor.name} must have ${size} bytes, its data has ${written > size ? 'more' : written}`);
    const padding = roundUp(size, alignment) - size;
    if (padding > 0) yield new Uint8Array(padding);
  }
}

/** Writes a GGUF file piece by piece, waiting for each write; the model is never in memory as a whole. */
export async function writeGgufTo(sink: GgufSink, input: GgufInput): Promise<void> {
  for await (const bytes of ggufChunks(input)) await sink.write(bytes);
}

/** A GGUF file in memory; all tensors must be given as bytes. */
export function writeGguf(input: GgufInput): Uint8Array {
  const header = headerBytes(input);
  const alignment = alignmentOf(input);
  const size = input.tensors.reduce((sum, tensor) => sum + roundUp(sizeOf(tensor), alignment), header.length);
  const bytes = new Uint8Array(size);
  bytes.set(header);
  let at = header.length;
  for (const tensor of input.tensors) {
    if (!(tensor.data instanceof Uint8Array)) throw new ArgumentError('tensors', `${tensor.name} is made piece by piece: write it with writeGgufTo`);
    bytes.set(tensor.data, at);
    at += roundUp(tensor.data.length, alignment);
  }
  return bytes;
}

/** One file of a split model. */
export interface GgufShard {
  readonly name: string;
  readonly input: GgufInput;
}

/**
 * Cuts a model into shards `BASE-00001-of-0000N.gguf` of at most `maxTensorBytes` of tensors each (one tensor at least). The metadata is in the first; every
 * shard says which it is.
 */
export function splitGguf(base: string, input: GgufInput, maxTensorBytes: number): GgufShard[] {
  const groups: GgufTensorInput[][] = [[]];
  let size = 0;
  for (const tensor of input.tensors) {
    const group = groups.at(-1);
    if (group === undefined || (group.length > 0 && size + sizeOf(tensor) > maxTensorBytes)) {
      groups.push([tensor]);
      size = sizeOf(tensor);
    } else {
      group.push(tensor);
      size += sizeOf(tensor);
    }
  }
  return groups.map((tensors, shard) => ({
    name: shardName(base, shard, groups.length),
    input: {
      ...input,
      metadata: [
        ...(shard === 0 ? input.metadata : []),
        ['split.no', ggufValue.u16(shard)],
        ['split.count', ggufValue.u16(groups.length)],
        ['split.tensors.count', ggufValue.i32(input.tensors.length)],
      ],
      tensors,
    },
  }));
}
