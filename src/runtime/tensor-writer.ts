/** Tensors on their way to a backend, piece by piece as a file gives them. */

import { byteLengthOf } from '../core/dtype.js';
import { ArgumentError, FormatError } from '../core/errors.js';
import { byteLengthOfType, elementCount, formatType } from '../core/tensor.js';
import type { Backend } from './backend.js';
import { isStoredPacked, type StoredTensor, shardType } from './stored-tensor.js';

/** Takes a tensor's bytes in order, in ggml's layout. */
export interface TensorWriter {
  push(bytes: Uint8Array): Promise<void>;
  /** Throws where bytes are missing. */
  finish(): Promise<void>;
}

/** The writer that a tensor wants: packed weights go by whole groups of rows. */
export function tensorWriter(backend: Backend, tensor: StoredTensor): TensorWriter {
  return isStoredPacked(tensor) ? new PackedWriter(backend, tensor) : new PlainWriter(backend, tensor);
}

function countBytes(tensor: StoredTensor, got: number, complete: boolean): void {
  const wanted = byteLengthOfType(tensor.type);
  if (got > wanted || (complete && got !== wanted)) {
    throw new FormatError('E_DATA_BOUNDS', `${tensor.name} is ${formatType(tensor.type)} and takes ${wanted} bytes, got ${got}`, { tensor: tensor.name });
  }
}

/** Stores bytes as they come; keeps back what does not fill a word. */
class PlainWriter implements TensorWriter {
  readonly #backend: Backend;
  readonly #tensor: StoredTensor;
  #received = 0;
  #written = 0;
  #rest = new Uint8Array();

  constructor(backend: Backend, tensor: StoredTensor) {
    this.#backend = backend;
    this.#tensor = tensor;
  }

  async push(bytes: Uint8Array): Promise<void> {
    this.#received += bytes.byteLength;
    countBytes(this.#tensor, this.#received, false);
    const joined = join(this.#rest, bytes);
    const whole = joined.byteLength - (joined.byteLength % 4);
    await this.#write(joined.subarray(0, whole));
    this.#rest = joined.slice(whole);
  }

  async finish(): Promise<void> {
    countBytes(this.#tensor, this.#received, true);
    await this.#write(this.#rest);
  }

  async #write(bytes: Uint8Array): Promise<void> {
    const storage = this.#tensor.shards[0]?.storage;
    if (bytes.byteLength === 0 || storage === undefined) return;
    await this.#backend.write(storage, this.#written, bytes);
    this.#written += bytes.byteLength;
  }
}

/** Packs whole groups of rows as they come; at most one group is kept back. */
class PackedWriter implements TensorWriter {
  readonly #backend: Backend;
  readonly #tensor: StoredTensor;
  readonly #rowBytes: number;
  #received = 0;
  #row = 0;
  #rest: Uint8Array = new Uint8Array();

  constructor(backend: Backend, tensor: StoredTensor) {
    this.#backend = backend;
    this.#tensor = tensor;
    this.#rowBytes = byteLengthOf(tensor.type.dtype, elementCount(tensor.type.shape.slice(1)));
  }

  async push(bytes: Uint8Array): Promise<void> {
    this.#received += bytes.byteLength;
    countBytes(this.#tensor, this.#received, false);
    const joined = join(this.#rest, bytes);
    const groupBytes = this.#rowBytes * this.#backend.weights.rowGroup;
    const complete = this.#received === byteLengthOfType(this.#tensor.type);
    const whole = complete ? joined.byteLength : joined.byteLength - (joined.byteLength % groupBytes);
    await this.#writeRows(joined.subarray(0, whole));
    this.#rest = joined.slice(whole);
  }

  async finish(): Promise<void> {
    countBytes(this.#tensor, this.#received, true);
  }

  /** Rows may end inside one shard and go on in the next: shards start at multiples of the row group. */
  async #writeRows(bytes: Uint8Array): Promise<void> {
    let done = 0;
    while (done < bytes.byteLength) {
      const shard = this.#tensor.shards.find(({ start, rows }) => this.#row < start + rows);
      if (shard === undefined) throw new ArgumentError('bytes', `${this.#tensor.name} has no row ${this.#row}`);
      const rows = Math.min(shard.start + shard.rows - this.#row, (bytes.byteLength - done) / this.#rowBytes);
      const piece = bytes.subarray(done, done + rows * this.#rowBytes);
      const [type, firstRow] = [shardType(this.#tensor.type, shard), this.#row - shard.start];
      if (this.#backend.writeRows !== undefined) await this.#backend.writeRows(shard.storage, type, firstRow, piece);
      else for (const write of this.#backend.weights.pack(type, firstRow, piece)) await this.#backend.write(shard.storage, write.offset, write.bytes);
      this.#row += rows;
      done += piece.byteLength;
    }
  }
}

function join(a: Uint8Array, b: Uint8Array): Uint8Array {
  if (a.byteLength === 0) return b;
  const joined = new Uint8Array(a.byteLength + b.byteLength);
  joined.set(a);
  joined.set(b, a.byteLength);
  return joined;
}
