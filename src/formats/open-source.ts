/** From whatever the caller has to a `ByteSource`. */

import { ArgumentError, CentellaError, shown, throwIfAborted } from '../core/errors.js';
import { openFile } from '../platform/files.js';
import { detectRuntime } from '../platform/runtime.js';
import { type ByteSource, checkedRead, memorySource, type SourceLike } from './source.js';
import { openUrl, type UrlOptions } from './url-source.js';

/**
 * Opens any kind of source. Text with a scheme (`https:`, `blob:`, `data:`, `file:`) is a URL; other text is a path in server runtimes and a URL relative to
 * the page in browsers. Throws `CentellaError` E_IO where it cannot be opened, `AbortedError` where the signal fired.
 */
export async function openSource(source: SourceLike, options: UrlOptions = {}): Promise<ByteSource> {
  throwIfAborted(options.signal, 'opening the source');
  if (typeof source === 'string') return openText(source, options);
  if (source instanceof URL) return openLocation(source, options);
  if (source instanceof Uint8Array) return memorySource(source, 'bytes in memory');
  if (source instanceof ArrayBuffer) return memorySource(new Uint8Array(source), 'bytes in memory');
  if (source instanceof Blob) return blobSource(source);
  if (isByteSource(source)) return ownSource(source);
  throw new ArgumentError('source', `a model comes from a path, a URL, a Blob, an ArrayBuffer, a Uint8Array or a ByteSource, got ${typeof source}`);
}

async function openText(text: string, options: UrlOptions): Promise<ByteSource> {
  // A scheme has two letters or more: "C:\models" is a path.
  if (/^[a-z][a-z0-9+.-]+:/i.test(text)) return openLocation(urlOf(text), options);
  if (detectRuntime().syncAvailable) return openPath(text);
  return openUrl(urlOf(text, globalThis.location?.href), options);
}

function urlOf(text: string, base?: string): URL {
  try {
    return new URL(text, base);
  } catch {
    throw new ArgumentError('source', `${shown(text)} is no address: a path, or a URL such as https://host/model.gguf, is wanted`);
  }
}

async function openLocation(url: URL, options: UrlOptions): Promise<ByteSource> {
  if (url.protocol === 'file:') return openPath(url);
  if (url.protocol !== 'blob:') return openUrl(url, options);
  // A handle on a Blob that is already local; runtimes disagree about ranges of it (Node 20 is off by one).
  const response = await fetch(url).catch((cause: unknown) => {
    throw new CentellaError('E_IO', `cannot open ${url.href}: was it revoked?`, { cause });
  });
  return blobSource(await response.blob());
}

async function openPath(path: string | URL): Promise<ByteSource> {
  const file = await openFile(path);
  return {
    name: file.name,
    size: file.size,
    read(offset, length, signal) {
      return checkedRead(file, offset, length, signal, () => file.read(offset, length));
    },
    readInto(offset, target, signal) {
      return checkedRead(file, offset, target.byteLength, signal, () => file.readInto(offset, target));
    },
    close: () => file.close(),
  };
}

function blobSource(blob: Blob): ByteSource {
  const name = 'name' in blob && typeof blob.name === 'string' ? blob.name : 'blob';
  const source: ByteSource = {
    name,
    size: blob.size,
    read(offset, length, signal) {
      return checkedRead(source, offset, length, signal, async () => {
        const buffer = await blob
          .slice(offset, offset + length)
          .arrayBuffer()
          .catch((cause: unknown) => {
            throw new CentellaError('E_IO', `cannot read ${name} at byte ${offset}: the file may have changed or moved since it was chosen`, { cause });
          });
        if (buffer.byteLength !== length) throw new CentellaError('E_IO', `${name} gave ${buffer.byteLength} bytes at ${offset}, wanted ${length}`);
        return new Uint8Array(buffer);
      });
    },
    close: () => Promise.resolve(),
  };
  return source;
}

/** A source of the caller's, held to what `ByteSource` promises: a reader that waits for bytes that never come would wait for ever. */
function ownSource(source: ByteSource): ByteSource {
  const { name = 'the source', size, warnings } = source;
  const readInto = source.readInto?.bind(source);
  if (!Number.isSafeInteger(size) || size < 0) throw new ArgumentError('source', `the size of ${name} must be a whole number of bytes, got ${shown(size)}`);
  return {
    name,
    size,
    ...(warnings === undefined ? {} : { warnings }),
    async read(offset, length, signal) {
      const bytes: unknown = await source.read(offset, length, signal);
      if (bytes instanceof Uint8Array && bytes.byteLength === length) return bytes;
      const got = bytes instanceof Uint8Array ? `${bytes.byteLength} bytes` : shown(bytes);
      throw new CentellaError('E_IO', `${name}: read(${offset}, ${length}) must give a Uint8Array of ${length} bytes, it gave ${got}`);
    },
    ...(readInto === undefined ? {} : { readInto }),
    close: () => source.close(),
  };
}

function isByteSource(value: unknown): value is ByteSource {
  return (
    typeof value === 'object' && value !== null && 'read' in value && typeof value.read === 'function' && 'size' in value && typeof value.size === 'number'
  );
}
