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

/** Writes a file of the cache and the folders above it, all of it or nothing. @throws CentellaError E_IO where it cannot be written. */
export async function writeCacheFile(path: string, text: string): Promise<void> {
  const { mkdir, writeFile, rename } = nodeModule('node:fs/promises');
  const partial = `${path}.${process.pid}.part`;
  try {
    await mkdir(nodeModule('node:path').dirname(path), { recursive: true });
    await writeFile(partial, text);
    await rename(partial, path);
  } catch (cause) {
    throw new CentellaError('E_IO', `cannot write ${path}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

/** A path below the cache folder. */
export function cachePath(folder: string, ...parts: readonly string[]): string {
  return nodeModule('node:path').join(folder, ...parts);
}
