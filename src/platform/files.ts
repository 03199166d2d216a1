/** Files with positional reads, for server runtimes. */

import { ArgumentError, CentellaError, DisposedError } from '../core/errors.js';
import { nodeModule } from './node-module.js';
import { detectRuntime } from './runtime.js';

export interface RandomAccessFile {
  /** The path as given. */
  readonly name: string;
  /** Bytes, as of opening. */
  readonly size: number;
  /**
   * Fills `target` with the bytes at `offset`.
   * @throws CentellaError E_IO where the file ends earlier or the system reports an error.
   */
  readInto(offset: number, target: Uint8Array): Promise<void>;
  /** `length` bytes at `offset`, in memory of their own. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/**
 * Opens a file for reading.
 * @throws CentellaError E_IO where it cannot be opened, E_UNSUPPORTED in browsers (use a Blob or a URL there).
 */
export async function openFile(path: string | URL): Promise<RandomAccessFile> {
  if (!detectRuntime().syncAvailable)
    throw new CentellaError('E_UNSUPPORTED', `files are opened by path in Node, Deno and Bun only; in a browser give a Blob or a URL (got ${path})`);
  const name = String(path);
  const handle = await nodeModule('node:fs/promises')
    .open(path, 'r')
    .catch((cause: unknown) => {
      throw ioError(`cannot open ${name}`, cause);
    });
  const { size } = await handle.stat();
  let open = true;

  async function readInto(offset: number, target: Uint8Array): Promise<void> {
    if (!open) throw new DisposedError(`the file ${name}`);
    if (!Number.isSafeInteger(offset) || offset < 0) throw new ArgumentError('offset', `a file offset is a whole number of bytes from 0, got ${offset}`);
    let done = 0;
    while (done < target.byteLength) {
      const { bytesRead } = await handle.read(target, done, target.byteLength - done, offset + done).catch((cause: unknown) => {
        throw ioError(`cannot read ${name} at byte ${offset + done}`, cause);
      });
      if (bytesRead === 0)
        throw new CentellaError(
          'E_IO',
          `${name} ends at byte ${offset + done}; wanted ${target.byteLength} bytes from ${offset}. Was it cut or is it still being written?`,
        );
      done += bytesRead;
    }
  }

  return {
    name,
    size,
    readInto,
    async read(offset, length) {
      const bytes = new Uint8Array(length);
      await readInto(offset, bytes);
      return bytes;
    },
    async close() {
      if (!open) return;
      open = false;
      await handle.close();
    },
  };
}

/**
 * Writes a file of text, over one that is there.
 * @throws CentellaError E_IO where it cannot be written.
 */
export async function writeTextFile(path: string, text: string): Promise<void> {
  await nodeModule('node:fs/promises')
    .writeFile(path, text)
    .catch((cause: unknown) => {
      throw ioError(`cannot write ${path}`, cause);
    });
}

/**
 * Asks whether `writeTextFile` could write there, before work whose result it is; writes nothing.
 * @throws CentellaError E_IO where the file, or the folder that it would be made in, may not be written.
 */
export async function expectWritable(path: string): Promise<void> {
  const { access, constants, stat } = nodeModule('node:fs/promises');
  // Absent, or not to be seen: then the folder decides, and says why.
  const there = await stat(path).catch(() => undefined);
  if (there?.isDirectory() === true) throw new CentellaError('E_IO', `cannot write ${path}: it is a folder, name a file`);
  await access(there === undefined ? nodeModule('node:path').dirname(path) : path, constants.W_OK).catch((cause: unknown) => {
    throw ioError(`cannot write ${path}`, cause);
  });
}

function ioError(what: string, cause: unknown): CentellaError {
  return new CentellaError('E_IO', `${what}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
}
