/** The workloads in other TypeScript libraries, each in a process of its own on the same adapter, from the node_modules folder in COMPUTE_PEERS. */

import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { dawnFlags } from '../../src/platform/dawn.js';
import { prepareJax } from './jax.js';
import { measureOnnx } from './onnx.js';
import { prepareTfjs } from './tfjs.js';
import { type Measured, measure, type Workload, workloads } from './workloads.js';

export const libraries = ['@tensorflow/tfjs-backend-webgpu', '@jax-js/jax', 'onnxruntime-node'] as const;

export interface PeerResult {
  readonly library: string;
  readonly version: string;
  readonly name: string;
  readonly measured?: Measured;
  /** Why there is none. */
  readonly error?: string;
}

const timeoutMs = 30_000;

/** One workload in every library. A library that fails, hangs or ends is reported with what it said. */
export function runPeers(index: number, small: boolean): readonly PeerResult[] {
  const work = workloads(small)[index];
  if (work === undefined) throw new Error(`there is no workload ${index}`);
  return libraries.map((library) => {
    const args = [fileURLToPath(import.meta.url), library, String(index), small ? 'small' : 'full'];
    const child = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: timeoutMs });
    const line = child.stdout.split('\n').findLast((text) => text.startsWith('{'));
    if (line !== undefined) return { library, name: work.name, ...(JSON.parse(line) as { version: string }) };
    const said = child.stderr.trim().split('\n').slice(-2).join(' ');
    return { library, version: '', name: work.name, error: child.error?.message ?? (said === '' ? `ended with ${child.status ?? child.signal}` : said) };
  });
}

function loader(): { require: NodeJS.Require; load: (name: string) => Promise<object> } {
  const require = createRequire(pathToFileURL(`${process.env['COMPUTE_PEERS'] ?? 'node_modules'}/`));
  return { require, load: async (name) => (await import(pathToFileURL(require.resolve(name)).href)) as object };
}

function versionOf(require: NodeJS.Require, library: string): string {
  const folders = require.resolve.paths(library) ?? [];
  for (const folder of folders) {
    try {
      return (require(`${folder}/${library}/package.json`) as { version: string }).version;
    } catch (error) {
      if ((error as { code?: string }).code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  return '';
}

async function measureIn(library: string, work: Workload): Promise<Measured> {
  const { load } = loader();
  if (library === 'onnxruntime-node') return measureOnnx(load, work);
  const dawn = (await import('webgpu')) as { create(flags: readonly string[]): GPU; globals: object };
  // With the toggles that our own devices have. Held for the life of the process: Dawn dies when it is collected.
  const gpu = dawn.create(dawnFlags({}));
  Object.assign(globalThis, dawn.globals, { heldGpu: gpu });
  Object.defineProperty(globalThis, 'navigator', { value: { gpu, userAgent: 'node', language: 'en' }, configurable: true, writable: true });
  return measure(work, await (library === '@jax-js/jax' ? prepareJax(load, work) : prepareTfjs(load, work)));
}

const [library, index, size] = process.argv.slice(2);
if (process.argv[1] === fileURLToPath(import.meta.url) && library !== undefined) {
  const work = workloads(size === 'small')[Number(index)];
  if (work === undefined) throw new Error(`there is no workload ${index}`);
  const version = versionOf(loader().require, library);
  const outcome = await measureIn(library, work).then(
    (measured) => ({ measured }),
    (error: unknown) => ({ error: error instanceof Error ? error.message : String(error) }),
  );
  console.log(JSON.stringify({ version, ...outcome }));
  process.exit(0);
}
