import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AbortedError, FormatError, ggufValue, OutOfMemoryError, openGguf, splitGguf, writeGguf } from '../../src/gguf.js';
import { expectBytes, mostReads, pattern } from './support.js';

const model = {
  metadata: [['tokens', ggufValue.strings(Array.from({ length: 20_000 }, (_, i) => `token ${i}`))]] as const,
  tensors: Array.from({ length: 6 }, (_, i) => ({ name: `t${i}`, dtype: 'f32' as const, shape: [9000 + i], data: pattern(4 * (9000 + i), i) })),
};
const bytes = writeGguf(model);
const shards = new Map(splitGguf('/split', model, 100_000).map(({ name, input }) => [name, writeGguf(input)]));

/** Ranges asked for since a test began. */
let requests: { path: string; first: number; last: number; headers: IncomingMessage['headers'] }[] = [];

interface Reply {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  readonly body: Uint8Array;
  /** Cuts the connection after the body. */
  readonly cut?: boolean;
}

/** How each path treats a request for bytes first..last of a file; the first request of a load is honest where the lie is to come later. */
const behaviours: Readonly<Record<string, (first: number, last: number, file: Uint8Array) => Reply>> = {
  '/ranges': ranges,
  '/none': (_first, _last, file) => ({ status: 200, body: file }),
  '/later/none': (first, last, file) => (first === 0 ? ranges(first, last, file) : { status: 200, body: file }),
  '/later/shifted': (first, last, file) =>
    first === 0 ? ranges(first, last, file) : { ...ranges(first, last, file), headers: contentRange(first + 8, last + 8, file.length) },
  '/later/shorter': (first, last, file) => (first === 0 ? ranges(first, last, file) : ranges(first, last - 8, file)),
  '/later/grown': (first, last, file) =>
    first === 0 ? ranges(first, last, file) : { ...ranges(first, last, file), headers: contentRange(first, last, file.length + 1) },
  '/later/tag': (first, last, file) => ({
    ...ranges(first, last, file),
    headers: { ...contentRange(first, last, file.length), etag: first === 0 ? '"one"' : '"two"' },
  }),
  '/later/broken': (first, last, file) =>
    first === 0 ? ranges(first, last, file) : { ...ranges(first, last, file), body: file.subarray(first, last - 7), cut: true },
  '/later/missing': (first, last, file) => (first === 0 ? ranges(first, last, file) : { status: 503, body: new Uint8Array(0) }),
  '/unmarked': (first, last, file) => ({ status: 206, body: file.subarray(first, last + 1) }),
  '/unknown-total': (first, last, file) => ({ status: 206, headers: { 'content-range': `bytes ${first}-${last}/*` }, body: file.subarray(first, last + 1) }),
  '/longer': (first, last, file) => ({ status: 206, headers: contentRange(first, last, file.length), body: file.subarray(first, last + 100) }),
  '/reversed': (first, last, file) => ({ ...ranges(first, last, file), headers: contentRange(last, first, file.length) }),
  '/beyond': (first, last, file) => ({ ...ranges(first, last, file), headers: contentRange(first, last, last) }),
  '/absent': () => ({ status: 404, body: new Uint8Array(0) }),
  '/empty': () => ({ status: 416, headers: { 'content-range': 'bytes */0' }, body: new Uint8Array(0) }),
};

function contentRange(first: number, last: number, total: number): Record<string, string> {
  return { 'content-range': `bytes ${first}-${last}/${total}` };
}

function ranges(first: number, last: number, file: Uint8Array): Reply {
  const end = Math.min(last, file.length - 1);
  return { status: 206, headers: contentRange(first, end, file.length), body: file.subarray(first, end + 1) };
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  const path = new URL(request.url ?? '', 'http://local').pathname;
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  const [first, last] = [Number(match?.[1]), Number(match?.[2])];
  requests.push({ path, first, last, headers: request.headers });
  if (path === '/stall') return;
  const shard = shards.get(path);
  const behaviour = shard === undefined ? behaviours[path] : ranges;
  const reply = behaviour?.(first, last, shard ?? bytes) ?? { status: 404, body: new Uint8Array(0) };
  response.writeHead(reply.status ?? 200, {
    ...reply.headers,
    ...(reply.cut ? { 'content-length': String(reply.body.length + 8) } : { 'content-length': String(reply.body.length) }),
  });
  response.write(reply.body, () => (reply.cut ? response.destroy() : response.end()));
}

describe('a URL', () => {
  let server: Server;
  let origin = '';
  const url = (path: string): URL => new URL(path, origin);
  beforeAll(async () => {
    server = createServer(answer);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  async function readAll(source: URL | string): Promise<void> {
    requests = [];
    const file = await openGguf(source);
    for await (const { tensor, offset, bytes: piece } of file.streamTensors(undefined, { chunkBytes: 65_536 })) {
      expectBytes(piece, pattern(tensor.byteLength, Number(tensor.name.slice(1))).subarray(offset, offset + piece.length));
    }
    expect(file.getStringArray('tokens')?.[19_999]).toBe('token 19999');
    await file.close();
  }

  it('is read by ranges, nothing twice', async () => {
    await readAll(url('/ranges'));
    const reads = requests.map(({ first, last }): [number, number] => [first, last - first + 1]);
    expect(mostReads(reads)).toBe(1);
    expect(requests.length).toBeLessThan(12);
    await readAll(String(url('/ranges')));
  });

  it('sends the headers that it is given', async () => {
    requests = [];
    await openGguf(url('/ranges'), { headers: { authorization: 'Bearer abc' } });
    expect(requests.every(({ headers }) => headers.authorization === 'Bearer abc')).toBe(true);
  });

  it('finds the other shards of a split model', async () => {
    await readAll(url('/split-00001-of-00003.gguf?revision=1'));
    expect(new Set(requests.map(({ path }) => path))).toEqual(new Set(shards.keys()));
  });

  it('is downloaded whole, once, where the server has no ranges, and that is said', async () => {
    await readAll(url('/none'));
    expect(requests.length).toBe(1);
    const file = await openGguf(url('/none'));
    expect(file.warnings).toEqual([expect.stringContaining('ignores range requests')]);
    await expect(openGguf(url('/none'), { maxDownloadBytes: 1000 })).rejects.toMatchObject({
      code: 'E_OUT_OF_MEMORY',
      requested: bytes.length,
      available: 1000,
    });
    await expect(openGguf(url('/none'), { maxDownloadBytes: 1000 })).rejects.toThrow(OutOfMemoryError);
  });

  it.each(Object.keys(behaviours).filter((path) => !['/ranges', '/none', '/empty'].includes(path)))('is refused with a typed error: %s', async (path) => {
    await expect(readAll(url(path))).rejects.toMatchObject({ code: 'E_IO' });
  });

  it('reports the status of an error reply', async () => {
    await expect(openGguf(url('/absent'))).rejects.toThrow(/answered 404/);
    await expect(openGguf(new URL('http://127.0.0.1:1/x.gguf'))).rejects.toMatchObject({ code: 'E_IO' });
  });

  it('may be an empty file, which is no model', async () => {
    await expect(openGguf(url('/empty'))).rejects.toThrow(FormatError);
    await expect(openGguf(url('/empty'))).rejects.toMatchObject({ code: 'E_MAGIC' });
  });

  it('can be aborted while the server is silent', async () => {
    const controller = new AbortController();
    const opening = openGguf(url('/stall'), { signal: controller.signal });
    setTimeout(() => controller.abort(), 20);
    await expect(opening).rejects.toThrow(AbortedError);
  });

  it('may be a data: or blob: URL', async () => {
    const small = writeGguf({ metadata: [['k', ggufValue.u32(7)]], tensors: [] });
    const data = await openGguf(`data:application/octet-stream;base64,${Buffer.from(small).toString('base64')}`);
    expect(data.getUint('k')).toBe(7);
    const address = URL.createObjectURL(new Blob([new Uint8Array(small).buffer]));
    expect((await openGguf(address)).getUint('k')).toBe(7);
    URL.revokeObjectURL(address);
  });
});
