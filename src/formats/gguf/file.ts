import { ArgumentError, DisposedError, FormatError, OutOfMemoryError } from '../../core/errors.js';
import type { ByteSource } from '../source.js';
import type { GgufHeader, GgufTensor } from './header.js';
import { type StreamOptions, streamPieces, type TensorPiece } from './stream.js';
import { describeType, type GgufValue } from './values.js';

const maxPieceBytes = 2 ** 31;

/** An open GGUF model: metadata, tensor table, and access to the tensors' bytes. All shards of a split model are one file here. */
export class GgufFile {
  /** The file's name, or what else tells it from others. */
  readonly name: string;
  /** Of the container. */
  readonly version: 2 | 3;
  /** Every key with its value and the type that it has in the file; of a split model, the first shard's. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** In the order of the file (shard after shard). */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** What is odd about the file without making it unreadable. */
  readonly warnings: readonly string[];
  readonly #sources: readonly ByteSource[];
  #open = true;

  /** @internal Use `openGguf`. */
  constructor(shards: readonly [GgufHeader, ...GgufHeader[]], tensors: ReadonlyMap<string, GgufTensor>) {
    this.name = shards[0].source.name;
    this.version = shards[0].version;
    this.metadata = shards[0].metadata;
    this.tensors = tensors;
    this.warnings = shards.flatMap((shard) => shard.warnings);
    this.#sources = shards.map((shard) => shard.source);
  }

  /** The text at `key`, undefined where the key is absent. Like all getters it throws `FormatError` E_METADATA for a value of another type. */
  getString(key: string): string | undefined {
    const value = this.metadata.get(key);
    return value === undefined ? undefined : value.type === 'string' ? value.value : this.#wrongType(key, 'a string', value);
  }

  /** A boolean; undefined where the key is absent. */
  getBoolean(key: string): boolean | undefined {
    const value = this.metadata.get(key);
    return value === undefined ? undefined : value.type === 'bool' ? value.value : this.#wrongType(key, 'a boolean', value);
  }

  /** Any of GGUF's integer types; the value must be exact in a Number. */
  getInt(key: string): number | undefined {
    const value = this.metadata.get(key);
    if (value === undefined) return undefined;
    if (value.type === 'array' || value.type === 'string' || value.type === 'bool' || value.type === 'f32' || value.type === 'f64') {
      return this.#wrongType(key, 'an integer', value);
    }
    const number = Number(value.value);
    return Number.isSafeInteger(number) ? number : this.#fail(key, `${key} is ${value.value}, beyond the integers that can be used (2^53)`);
  }

  /** As `getInt`, and not negative. */
  getUint(key: string): number | undefined {
    const value = this.getInt(key);
    return value !== undefined && value < 0 ? this.#fail(key, `${key} must not be negative, it is ${value}`) : value;
  }

  /** An f32 or an f64, which may be infinite or NaN. */
  getFloat(key: string): number | undefined {
    const value = this.metadata.get(key);
    return value === undefined ? undefined : value.type === 'f32' || value.type === 'f64' ? value.value : this.#wrongType(key, 'a float', value);
  }

  /** An array of strings; undefined where the key is absent. */
  getStringArray(key: string): readonly string[] | undefined {
    const value = this.metadata.get(key);
    if (value === undefined) return undefined;
    return value.type === 'array' && value.elementType === 'string' ? value.values : this.#wrongType(key, 'an array of string', value);
  }

  /** An array of any integer type of up to 32 bits. */
  getIntArray(key: string): ArrayLike<number> | undefined {
    const value = this.metadata.get(key);
    if (value === undefined) return undefined;
    if (value.type !== 'array') return this.#wrongType(key, 'an array of integers', value);
    switch (value.elementType) {
      case 'u8':
      case 'i8':
      case 'u16':
      case 'i16':
      case 'u32':
      case 'i32':
        return value.values;
      default:
        return this.#wrongType(key, 'an array of integers', value);
    }
  }

  /** An array of f32 or f64. */
  getFloatArray(key: string): Float32Array | Float64Array | undefined {
    const value = this.metadata.get(key);
    if (value === undefined) return undefined;
    return value.type === 'array' && (value.elementType === 'f32' || value.elementType === 'f64')
      ? value.values
      : this.#wrongType(key, 'an array of floats', value);
  }

  /** An array of booleans, as bytes 0 and 1. */
  getBooleanArray(key: string): Uint8Array | undefined {
    const value = this.metadata.get(key);
    if (value === undefined) return undefined;
    return value.type === 'array' && value.elementType === 'bool' ? value.values : this.#wrongType(key, 'an array of booleans', value);
  }

  /**
   * The tensor's packed bytes, in memory that may be shared with the source: read them, do not write to them. Throws `OutOfMemoryError` above 2 GiB, which not
   * every runtime can hold in one piece.
   */
  readTensor(name: string, signal?: AbortSignal): Promise<Uint8Array> {
    return new Promise((resolve) => {
      const tensor = this.#tensor(name);
      if (tensor.byteLength > maxPieceBytes) {
        const sizes = { requested: tensor.byteLength, available: maxPieceBytes };
        throw new OutOfMemoryError(
          `${name} has ${tensor.byteLength} bytes, more than one piece of memory may have (${maxPieceBytes}): use streamTensors`,
          sizes,
        );
      }
      resolve(this.#source(tensor.shard).read(tensor.offset, tensor.byteLength, signal));
    });
  }

  /**
   * The bytes of the named tensors (all of them unless given), in the order of the file whatever the order of `names`, in pieces of at most `chunkBytes`
   * (8 MiB unless given; a multiple of 8): tensors that lie next to each other share reads, nothing is read twice, and `reads` reads at most (two unless given) are in memory.
   */
  streamTensors(names?: Iterable<string>, options: StreamOptions = {}): AsyncIterable<TensorPiece> {
    const wanted = names === undefined ? undefined : new Set(names);
    for (const name of wanted ?? []) this.#tensor(name);
    const tensors = [...this.tensors.values()].filter((tensor) => wanted?.has(tensor.name) ?? true);
    return streamPieces(tensors, (shard) => this.#source(shard), options);
  }

  /** Closes the files. Metadata and tensor table stay readable. */
  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await Promise.all(this.#sources.map((source) => source.close()));
  }

  /** As `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #tensor(name: string): GgufTensor {
    const tensor = this.tensors.get(name);
    if (tensor === undefined) throw new FormatError('E_TENSOR_MISSING', `${this.name} has no tensor ${name}`, { tensor: name });
    return tensor;
  }

  #source(shard: number): ByteSource {
    if (!this.#open) throw new DisposedError(this.name);
    const source = this.#sources[shard];
    if (source === undefined) throw new ArgumentError('shard', `${this.name} has ${this.#sources.length} files, there is no file ${shard}`);
    return source;
  }

  #wrongType(key: string, wanted: string, value: GgufValue): never {
    return this.#fail(key, `${key} must be ${wanted}, it is ${describeType(value)}`);
  }

  #fail(key: string, message: string): never {
    throw new FormatError('E_METADATA', `${this.name}: ${message}`, { key });
  }
}
