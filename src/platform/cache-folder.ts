/** Files of the user's cache, for server runtimes. */

import { CentellaError } from '../core/errors.js';
import { nodeModule } from './node-module.js';
import { detectRuntime, environmentVariable } from './runtime.js';

/** Where Centella keeps what it can make again: XDG_CACHE_HOME/centella, else the system's own place. Undefined in browsers, and in Deno, which asks for leave. */
export function cacheFolder(): string | undefined {
  const { name } = detectRuntime();
  if (name !== 'node' && name !== 'bun') return undefined;
  const { join } = nodeModule('node:path');
  const home = nodeModule('node:os').homedir();
  const systems: Partial<Record<NodeJS.Platform, string>> = {
    darwin: join(home, 'Library', 'Caches'),
    win32: environmentVariable('LOCALAPPDATA') ?? join(home, 'AppData', 'Local'),
  };
  const chosen = environmentVariable('XDG_CACHE_HOME');
  return join(chosen === undefined || chosen === '' ? (systems[process.platform] ?? join(home, '.cache')) : chosen, 'centella');
}

/** The text of a file of the cache; undefined where there is none. @throws CentellaError E_IO where it cannot be read. */
export async function readCacheFile(path: string): Promise<string | undefined> {
  try {
    return await nodeModule('node:fs/promises').readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as { code?: string }).code === 'ENOENT') return undefined;
    throw new CentellaError('E_IO', `cannot read ${path}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

/**
 * Writes what becomes of a file's text (undefined where there is none), and the folders above it, all of it or nothing. Several writers, of this process or others, come one after the other.
 * @throws CentellaError E_IO where it cannot be read or written.
 */
export async function updateCacheFile(path: string, change: (before: string | undefined) => string): Promise<void> {
  const { mkdir, rm } = nodeModule('node:fs/promises');
  const lock = `${path}.lock`;
  try {
    await mkdir(nodeModule('node:path').dirname(path), { recursive: true });
    await takeLock(lock);
    try {
      await replaceFile(path, change(await readCacheFile(path)));
    } finally {
      await rm(lock, { force: true });
    }
  } catch (cause) {
    if (cause instanceof CentellaError) throw cause;
    throw new CentellaError('E_IO', `cannot write ${path}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

async function replaceFile(path: string, text: string): Promise<void> {
  const { writeFile, rename, rm } = nodeModule('node:fs/promises');
  const partial = `${path}.${process.pid}.part`;
  try {
    await writeFile(partial, text);
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/** A writer needs milliseconds: a lock that is older was left by one that was killed. */
const staleMs = 5_000;
const retryMs = 10;

async function takeLock(lock: string): Promise<void> {
  const { rm, stat, writeFile } = nodeModule('node:fs/promises');
  for (;;) {
    try {
      return await writeFile(lock, '', { flag: 'wx' });
    } catch (error) {
      if ((error as { code?: string }).code !== 'EEXIST') throw error;
    }
    // Undefined where it went in the meantime.
    const age = await stat(lock).then(
      ({ mtimeMs }) => Date.now() - mtimeMs,
      () => 0,
    );
    if (age > staleMs) await rm(lock, { force: true });
    else await new Promise((resolve) => setTimeout(resolve, retryMs));
  }
}

/** A path below the cache folder. */
export function cachePath(folder: string, ...parts: readonly string[]): string {
  return nodeModule('node:path').join(folder, ...parts);
}
