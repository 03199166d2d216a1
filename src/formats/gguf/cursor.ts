import { FormatError, type FormatErrorCode, throwIfAborted } from '../../core/errors.js';
import type { ByteSource } from '../source.js';
import type { GgufLimits } from './limits.js';

/** Read-ahead grows with what has been read, between these bounds: small files cost one small read, large headers few large ones. */
const smallestRead = 64 * 1024;
const largestRead = 4 * 1024 * 1024;

const keyDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * A forward reader over the head of a file. Bytes are fetched once, in growing pieces, and only when what is being parsed needs them; memory follows the bytes
 * that came, never the numbers that the file claims.
 */
export class HeaderCursor {
  readonly source: ByteSource;
  readonly limits: GgufLimits;
  /** What the position belongs to, for errors. */
  key: string | undefined;
  tensor: string | undefined;
  position = 0;
  #bytes: Uint8Array = new Uint8Array(0);
  #view = new DataView(new ArrayBuffer(0));
  #filled = 0;
  readonly #signal: AbortSignal | undefined;

  constructor(source: ByteSource, limits: GgufLimits, signal: AbortSignal | undefined) {
    this.source = source;
    this.limits = limits;
    this.#signal = signal;
  }

  /** Bytes from the position to the end of the file. */
  get remaining(): number {
    return this.source.size - this.position;
  }

  /** Bytes fetched so far, from the file's start. */
  get fetched(): Uint8Array {
    return this.#bytes.subarray(0, this.#filled);
  }

  fail(code: FormatErrorCode, message: string, offset = this.position): never {
    throw new FormatError(code, `${this.source.name}: ${message}`, {
      offset,
      ...(this.key === undefined ? {} : { key: this.key }),
      ...(this.tensor === undefined ? {} : { tensor: this.tensor }),
    });
  }

  /** Whether `count` bytes from the position on are in memory already. */
  has(count: number): boolean {
    return this.position + count <= this.#filled;
  }

  /** Throws E_TRUNCATED unless the file has `count` more bytes; nothing is read. */
  require(count: number, what: string): void {
    if (count > this.remaining)
      this.fail('E_TRUNCATED', `the file ends inside ${what}: ${count} bytes wanted at byte ${this.position}, ${this.remaining} left`);
  }

  /** Brings `count` bytes from the position on into memory. */
  async fetch(count: number, what: string): Promise<void> {
    this.require(count, what);
    if (this.position + count > this.limits.headerBytes) this.fail('E_COUNT', `the header passes the limit of ${this.limits.headerBytes} bytes in ${what}`);
    while (!this.has(count)) {
      throwIfAborted(this.#signal, `reading ${this.source.name}`);
      const wanted = Math.max(Math.min(Math.max(this.#filled, smallestRead), largestRead), this.position + count - this.#filled);
      await this.#append(Math.min(wanted, this.source.size - this.#filled));
    }
  }

  async #append(length: number): Promise<void> {
    const piece = await this.source.read(this.#filled, length, this.#signal);
    if (this.#filled + length > this.#bytes.length) {
      const grown = new Uint8Array(Math.min(Math.max(2 * this.#bytes.length, this.#filled + length), this.source.size));
      grown.set(this.fetched);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#bytes.set(piece, this.#filled);
    this.#filled += length;
  }

  // The readers below want their bytes in memory: `has` or `fetch` comes first.

  u32(): number {
    const value = this.#view.getUint32(this.position, true);
    this.position += 4;
    return value;
  }

  u64(): bigint {
    const value = this.#view.getBigUint64(this.position, true);
    this.position += 8;
    return value;
  }

  /** A 64-bit number as a Number, Infinity where it is past 2^53: fit to be compared with a limit, and exact below. */
  length(): number {
    const low = this.u32();
    const high = this.u32();
    return high < 2 ** 21 ? high * 2 ** 32 + low : Infinity;
  }

  bytes(count: number): Uint8Array {
    const bytes = this.#bytes.subarray(this.position, this.position + count);
    this.position += count;
    return bytes;
  }

  view(count: number): DataView {
    const view = new DataView(this.#bytes.buffer, this.position, count);
    this.position += count;
    return view;
  }

  /** A key or a name: text that must be UTF-8. */
  strictText(count: number, what: string): string {
    const at = this.position;
    try {
      return keyDecoder.decode(this.bytes(count));
    } catch (cause) {
      if (cause instanceof TypeError) this.fail('E_UTF8', `${what} at byte ${at} is not valid UTF-8`, at);
      throw cause;
    }
  }
}
