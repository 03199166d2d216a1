/** The file that keeps what was measured on an adapter. */

import type { GpuCapabilities } from '../core/capabilities.js';
import { ArgumentError, CentellaError, UnsupportedError } from '../core/errors.js';
import { adapterKey, checkTuning, mergeTuning, parseTuning, refuseTuning, type Tuning } from '../core/tuning.js';
import { checkEntries, type TuningCheck } from '../kernels/decode/tuned.js';
import { cacheFolder, cachePath, readCacheFile, updateCacheFile } from '../platform/cache-folder.js';

/** 'auto': the adapter's file, where this runtime has files and there is one. 'none': shipped shapes. Else a table of the caller's, in browsers for instance. */
export type TuningChoice = 'auto' | 'none' | Tuning;

/** What became of a tuning. */
export interface TuningReport extends TuningCheck {
  /** The file's path, 'caller', or 'none' where shapes are the shipped ones. */
  readonly source: string;
  /** Why a table that was found says nothing here. */
  readonly problem?: string;
}

export interface FoundTuning {
  readonly tuning?: Tuning;
  readonly report: TuningReport;
}

/** Where the tuning of an adapter is kept; undefined where this runtime has no such place. */
export function tuningPath(capabilities: GpuCapabilities): string | undefined {
  const folder = cacheFolder();
  if (folder === undefined) return undefined;
  const key = JSON.stringify(adapterKey(capabilities));
  const name = [capabilities.vendor, capabilities.architecture]
    .join('-')
    .replace(/[^a-zA-Z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
  return cachePath(folder, 'tuning', `${name === '' ? 'adapter' : name.toLowerCase()}-${fingerprint(key)}.json`);
}

/** FNV-1a of 32 bits, as 8 hexadecimal digits. */
function fingerprint(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, '0');
}

const none: TuningReport = { source: 'none', used: [], ignored: [] };

/**
 * The table that a device gets, and what of it holds there. A file that is broken or another adapter's is a problem in the report, never a failure.
 * @throws ArgumentError where the caller's own table is none.
 */
export async function findTuning(choice: TuningChoice, capabilities: GpuCapabilities): Promise<FoundTuning> {
  if (choice === 'none') return { report: none };
  if (choice !== 'auto') return reported(checkTuning(choice), 'caller', capabilities);
  const path = tuningPath(capabilities);
  if (path === undefined) return { report: none };
  try {
    const text = await readCacheFile(path);
    return text === undefined ? { report: none } : read(text, path, capabilities);
  } catch (error) {
    if (error instanceof CentellaError) return { report: { ...none, source: path, problem: error.message } };
    throw error;
  }
}

function reported(tuning: Tuning, source: string, capabilities: GpuCapabilities): FoundTuning {
  const problem = refuseTuning(tuning, capabilities);
  return problem === undefined ? { tuning, report: { source, ...checkEntries(tuning, capabilities) } } : { report: { ...none, source, problem } };
}

/** What a caller should know of a table that was not taken wholly. */
export function tuningWarnings({ source, problem, ignored }: TuningReport): readonly string[] {
  const name = source === 'caller' ? 'the tuning' : `the tuning file ${source}`;
  if (problem !== undefined) return [`${name} is ignored, and shipped kernel shapes are used: ${problem}`];
  return ignored.map(({ product, reason }) => `${name} has a shape for ${product} that is ignored: ${reason}`);
}

/**
 * Writes a tuning to its adapter's file, with the products of a file that is there; resolves with the path.
 * @throws UnsupportedError where this runtime has no place for it, CentellaError E_IO where it cannot be written.
 */
export async function writeTuning(tuning: Tuning, capabilities: GpuCapabilities): Promise<string> {
  const path = tuningPath(capabilities);
  if (path === undefined) throw new UnsupportedError('this runtime has no cache folder for a tuning: keep the object and hand it to `openBackend`');
  await updateCacheFile(path, (text) => {
    const before = text === undefined ? undefined : read(text, path, capabilities).tuning;
    return `${JSON.stringify(before === undefined ? tuning : mergeTuning(before, tuning), undefined, 2)}\n`;
  });
  return path;
}

/** What a file's text is to a device. */
function read(text: string, path: string, capabilities: GpuCapabilities): FoundTuning {
  try {
    return reported(parseTuning(text), path, capabilities);
  } catch (error) {
    if (error instanceof ArgumentError) return { report: { ...none, source: path, problem: error.message } };
    throw error;
  }
}
