/** Serves the repository to a browser under test: the build, the pages and the models, and nothing else of the machine. */

import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const repository = fileURLToPath(new URL('../../', import.meta.url));

const servedFolders = ['dist', 'web', 'models', 'test/fixtures'];

const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.gguf': 'application/octet-stream',
};

export interface StaticServer {
  /** For example `http://localhost:40123`, without a slash at the end. */
  readonly origin: string;
  close(): Promise<void>;
}

/** Byte positions of a `Range` header, the end exclusive; undefined for a header that asks for the whole. */
function parseRange(header: string | undefined, size: number): { start: number; end: number } | undefined {
  const [, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? [];
  if (first === '' && last === '') return undefined;
  if (first === '') return { start: Math.max(0, size - Number(last)), end: size };
  return { start: Number(first), end: last === '' ? size : Math.min(size, Number(last) + 1) };
}

/** The file that a request's path names, or undefined for what is absent or not served. */
function servedFile(url: string): string | undefined {
  const relative = normalize(decodeURIComponent(new URL(url, 'http://localhost').pathname)).slice(1);
  if (!servedFolders.some((folder) => relative.startsWith(`${folder}/`))) return undefined;
  const path = join(repository, relative);
  return existsSync(path) && statSync(path).isFile() ? path : undefined;
}

/** Listens on a free port of this machine. Pages are cross-origin isolated, so that they may share memory between threads. */
export async function serveRepository(): Promise<StaticServer> {
  const server = createServer((request, response) => {
    const path = servedFile(request.url ?? '/');
    if (path === undefined) {
      response.writeHead(404).end();
      return;
    }
    const { size } = statSync(path);
    const range = parseRange(request.headers.range, size);
    const { start, end } = range ?? { start: 0, end: size };
    response.writeHead(range === undefined ? 200 : 206, {
      'content-type': types[extname(path)] ?? 'application/octet-stream',
      'content-length': end - start,
      'accept-ranges': 'bytes',
      'cross-origin-opener-policy': 'same-origin',
      'cross-origin-embedder-policy': 'require-corp',
      ...(range === undefined ? {} : { 'content-range': `bytes ${start}-${end - 1}/${size}` }),
    });
    if (request.method === 'HEAD' || end <= start) response.end();
    else createReadStream(path, { start, end: end - 1 }).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error(`wanted a port of this machine, got ${String(address)}`);
  return {
    origin: `http://localhost:${address.port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
