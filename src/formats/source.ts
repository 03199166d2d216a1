/** Random access to the bytes of a model, wherever they are. */

import { ArgumentError, DisposedError, throwIfAborted } from '../core/errors.js';

/** Bytes that can be read in pieces. Implement it to read models from a place that Centella does not know. */
export interface ByteSource {
  /** What messages call it: a path, a URL, a file name. */
  readonly name: string;
  /** Bytes in all. */
  readonly size: number;
  /** What the reader of the model should know ("the server sends whole files only"). */
  readonly warnings?: readonly string[];
  /**
   * Exactly `length` bytes from byte `offset`, or a rejection; never fewer. The range lies inside the size. The bytes may be a view of memory that the source
   * keeps: read them, do not write to them.
   */
  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** As `read`, into memory of the caller's, which is the source's until the promise settles. Absent where `read` has the bytes in memory first anyway. */
  readInto?(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/** A path (server runtimes), a URL as text or object, a Blob or File, bytes in memory, or a source of one's own. */
export type SourceLike = string | URL | Blob | ArrayBuffer | Uint8Array | ByteSource;

/** Bytes in memory as a source; reads are views of them. */
export function memorySource(bytes: Uint8Array, name: string): ByteSource {
  let open = true;
  const source: ByteSource = {
    name,
    size: bytes.length,
    read(offset, length, signal) {
      return checkedRead(source, offset, length, signal, () => {
        if (!open) throw new DisposedError(name);
        return bytes.subarray(offset, offset + length);
      });
    },
    close() {
      open = false;
      return Promise.resolve();
    },
  };
  return source;
}

/** `source` with the bytes from `at` on kept in memory, so that they are not read again. */
export function withHeldBytes(source: ByteSource, at: number, held: Uint8Array): ByteSource {
  const end = at + held.length;
  const isHeld = (offset: number, length: number): boolean => Math.max(offset, at) < Math.min(offset + length, end);
  const into = source.readInto?.bind(source);
  async function read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    throwIfAborted(signal, `reading ${source.name}`);
    if (!isHeld(offset, length)) return source.read(offset, length, signal);
    const [from, to] = [Math.max(offset, at), Math.min(offset + length, end)];
    const piece = held.subarray(from - at, to - at);
    if (piece.length === length) return piece;
    const joined = new Uint8Array(length);
    joined.set(piece, from - offset);
    if (from > offset) joined.set(await source.read(offset, from - offset, signal));
    if (to < offset + length) joined.set(await source.read(to, offset + length - to, signal), to - offset);
    return joined;
  }
  return {
    name: source.name,
    size: source.size,
    ...(source.warnings ? { warnings: source.warnings } : {}),
    read,
    ...(into === undefined
      ? {}
      : {
          async readInto(offset, target, signal) {
            if (isHeld(offset, target.byteLength)) target.set(await read(offset, target.byteLength, signal));
            else await into(offset, target, signal);
          },
        }),
    close: () => source.close(),
  };
}

/** A read with its range checked before, and the signal before and after. */
export async function checkedRead<T>(
  source: { readonly name: string; readonly size: number },
  offset: number,
  length: number,
  signal: AbortSignal | undefined,
  read: () => T | Promise<T>,
): Promise<T> {
  throwIfAborted(signal, `reading ${source.name}`);
  requireRange(source, offset, length);
  const bytes = await read();
  throwIfAborted(signal, `reading ${source.name}`);
  return bytes;
}

/** Throws `ArgumentError` unless [offset, offset + length) lies inside the source. */
export function requireRange(source: { readonly name: string; readonly size: number }, offset: number, length: number): void {
  if (Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0 && offset + length <= source.size) return;
  throw new ArgumentError('offset', `${source.name} has ${source.size} bytes; ${length} bytes at ${offset} are not inside it`);
}
