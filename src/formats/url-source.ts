/** A URL as a source, by HTTP range requests. Nothing that a reply says about itself is taken on trust. */

import { AbortedError, CentellaError, OutOfMemoryError, throwIfAborted } from '../core/errors.js';
import { type ByteSource, memorySource, requireRange, withHeldBytes } from './source.js';

/** How a file is fetched. */
export interface UrlOptions {
  readonly signal?: AbortSignal | undefined;
  /** Headers of every request, an authorisation for instance. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Replaces the global `fetch`. */
  readonly fetch?: typeof fetch | undefined;
  /** The largest file that is held in memory where the server sends whole files only; 2 GiB unless given. */
  readonly maxDownloadBytes?: number | undefined;
}

/** The first request asks for this much: enough for the header of most files without a vocabulary. */
const firstBytes = 64 * 1024;

/**
 * Opens a URL with one range request. A server that ignores ranges is read whole, into memory, with a warning. Throws `CentellaError` E_IO for an error status
 * and for replies that do not match the request, `OutOfMemoryError` where a whole download would pass `maxDownloadBytes`.
 */
export async function openUrl(url: URL, options: UrlOptions = {}): Promise<ByteSource> {
  const name = url.protocol === 'data:' ? 'data URL' : url.href;
  const response = await request(url, name, 0, firstBytes - 1, options, options.signal);
  if (response.status === 416 && totalOf(response) === 0) return memorySource(new Uint8Array(0), name);
  if (response.status === 200) return downloadWhole(response, name, options);
  const { end, total } = contentRange(response, name, 0, firstBytes - 1);
  const first = await readBody(response, name, end + 1, options.signal);
  const identity = identityOf(response);
  const source: ByteSource = {
    name,
    size: total,
    async read(offset, length, signal) {
      requireRange(source, offset, length);
      if (length === 0) return new Uint8Array(0);
      const last = offset + length - 1;
      const reply = await request(url, name, offset, last, options, signal);
      const range = contentRange(reply, name, offset, last);
      if (range.total !== total || identityOf(reply) !== identity) throw new CentellaError('E_IO', `${name} changed while it was being read: load it again`);
      if (range.end !== last) throw new CentellaError('E_IO', `${name}: asked for bytes ${offset} to ${last}, the server sent up to ${range.end} only`);
      return readBody(reply, name, length, signal);
    },
    close: () => Promise.resolve(),
  };
  return withHeldBytes(source, 0, first);
}

async function request(url: URL, name: string, first: number, last: number, options: UrlOptions, signal: AbortSignal | undefined): Promise<Response> {
  throwIfAborted(signal, `reading ${name}`);
  const response = await (options.fetch ?? fetch)(url, {
    headers: { ...options.headers, Range: `bytes=${first}-${last}` },
    ...(signal ? { signal } : {}),
  }).catch((cause: unknown) => {
    throwIfAborted(signal, `reading ${name}`);
    throw new CentellaError('E_IO', `cannot reach ${name}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  });
  if (response.status === 206 || response.status === 200) return response;
  if (response.status === 416 && first === 0) return response;
  await response.body?.cancel();
  throw new CentellaError('E_IO', `${name}: the server answered ${response.status} ${response.statusText}`.trimEnd());
}

/** What tells two versions of a file apart; empty where the server says nothing. Weak tags name contents, not bytes. */
function identityOf(response: Response): string {
  const tag = response.headers.get('etag') ?? '';
  return tag.startsWith('W/') ? '' : tag;
}

function totalOf(response: Response): number | undefined {
  const match = /^bytes (?:\*|\d+-\d+)\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
  return match?.[1] === undefined ? undefined : Number(match[1]);
}

/** The range of a 206 reply: it must start where it was asked to and must not go further. */
function contentRange(response: Response, name: string, first: number, last: number): { end: number; total: number } {
  const text = response.headers.get('content-range');
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(text ?? '');
  if (response.status !== 206 || match === null) {
    throw new CentellaError(
      'E_IO',
      `${name}: asked for bytes ${first} to ${last}, got status ${response.status} with Content-Range ${text ?? 'absent'} ` +
        '(across origins the server must expose that header: Access-Control-Expose-Headers: Content-Range, ETag)',
    );
  }
  const [start, end, total] = [Number(match[1]), Number(match[2]), Number(match[3])];
  if (start !== first || end > last || end < start || end >= total || !Number.isSafeInteger(total)) {
    throw new CentellaError('E_IO', `${name}: asked for bytes ${first} to ${last}, the server says that it sent ${text}`);
  }
  return { end, total };
}

/** The body, which must have exactly `length` bytes; no more than that is ever held. */
async function readBody(response: Response, name: string, length: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let filled = 0;
  for await (const chunk of bodyChunks(response, name, signal)) {
    if (filled + chunk.length > length) throw new CentellaError('E_IO', `${name}: the server sent more than the ${length} bytes of its range`);
    bytes.set(chunk, filled);
    filled += chunk.length;
  }
  if (filled !== length) throw new CentellaError('E_IO', `${name}: the server promised ${length} bytes and sent ${filled}`);
  return bytes;
}

async function downloadWhole(response: Response, name: string, options: UrlOptions): Promise<ByteSource> {
  const limit = options.maxDownloadBytes ?? 2 ** 31;
  // With a content encoding the length counts packed bytes.
  const promised = response.headers.get('content-encoding') === null ? Number(response.headers.get('content-length') ?? NaN) : NaN;
  const tooLarge = (size: number) =>
    new OutOfMemoryError(
      `${name}: the server sends whole files only, and this one has ${size} bytes or more, above the limit of ${limit} for downloads into memory: ` +
        'use a server with range requests, or download the file first',
      { requested: size, available: limit },
    );
  if (promised > limit) {
    await response.body?.cancel();
    throw tooLarge(promised);
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of bodyChunks(response, name, options.signal)) {
    size += chunk.length;
    if (size > limit) throw tooLarge(size);
    chunks.push(chunk);
  }
  if (!Number.isNaN(promised) && promised !== size) throw new CentellaError('E_IO', `${name}: the server promised ${promised} bytes and sent ${size}`);
  const whole = memorySource(joined(chunks, size), name);
  if (name === 'data URL') return whole;
  return { ...whole, warnings: [`${name}: the server ignores range requests, so the whole file (${size} bytes) was downloaded into memory`] };
}

function joined(chunks: readonly Uint8Array[], size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

/** The body's chunks; leaving the loop early cancels the transfer. */
async function* bodyChunks(response: Response, name: string, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  let finished = false;
  try {
    while (true) {
      const { done, value } = await reader.read();
      throwIfAborted(signal, `reading ${name}`);
      if (done) {
        finished = true;
        return;
      }
      yield value;
    }
  } catch (cause) {
    if (cause instanceof CentellaError) throw cause;
    if (signal?.aborted) throw new AbortedError(`reading ${name}`, cause);
    throw new CentellaError('E_IO', `${name}: the transfer broke off: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  } finally {
    // The transfer's own failure has been reported already; cancelling a broken stream only repeats it.
    if (!finished) await reader.cancel().catch(() => undefined);
  }
}
