/**
 * Identical GPUs on Linux. Dawn tells adapters apart by name alone; Mesa's device-select layer (a Vulkan layer of the package mesa-vulkan-drivers that works with
 * every driver) knows their PCI addresses: it lists them on request and puts the one that DRI_PRIME names first, for Vulkan instances made from then on.
 */

import { detectRuntime, environmentVariable } from './runtime.js';

export interface SelectableGpu {
  /** The driver's name of it, which is also Dawn's. */
  readonly name: string;
  /** "0000:07:00.0"; absent for what is on no PCI bus, software drivers for instance. */
  readonly pciAddress?: string;
}

export interface SelectableGpus {
  readonly gpus: readonly SelectableGpu[];
  /** Why there is no list. */
  readonly problem?: string;
}

/** First start of a driver included. */
const listTimeoutMs = 30_000;

/** The layer prints its list to stderr at the first request for an adapter and ends the process: hence a process of its own. */
const listScript = `import(process.argv[1]).then(async ({ create }) => {
  const gpu = create([]);
  await gpu.requestAdapter();
  process.exit(0);
});`;

let known: Promise<SelectableGpus> | undefined;

/** The GPUs that the layer can tell apart. Asked once a process, which takes a fraction of a second. */
export function selectableGpus(): Promise<SelectableGpus> {
  known ??= listGpus();
  return known;
}

/** Why the layer cannot be used here, where it cannot. */
function obstacle(): string | undefined {
  const { name, scope } = detectRuntime();
  if (name !== 'node' || process.platform !== 'linux') return 'identical GPUs can be told apart only in Node on Linux';
  if (scope === 'worker') return 'identical GPUs can be told apart only in the main thread: the environment of a worker is a copy, which drivers do not see';
  return environmentVariable('MESA_VK_DEVICE_SELECT') === undefined
    ? undefined
    : 'MESA_VK_DEVICE_SELECT is set and chooses the GPU for the whole process: unset it';
}

async function listGpus(): Promise<SelectableGpus> {
  const problem = obstacle();
  if (problem !== undefined) return { gpus: [], problem };
  const { execFile } = process.getBuiltinModule('node:child_process');
  const dawn = process
    .getBuiltinModule('node:module')
    .createRequire(import.meta.url)
    .resolve('webgpu');
  const env = { ...process.env, MESA_VK_DEVICE_SELECT: 'list', NODE_OPTIONS: '' };
  const { href } = process.getBuiltinModule('node:url').pathToFileURL(dawn);
  const said = await new Promise<string>((resolve) => {
    // A failure says nothing more than the missing list does; its text is part of the report.
    execFile(process.execPath, ['-e', listScript, href], { env, timeout: listTimeoutMs }, (error, _, stderr) => resolve(`${stderr}${error?.message ?? ''}`));
  });
  const gpus = parseSelectableGpus(said);
  if (gpus.some(({ pciAddress }) => pciAddress !== undefined)) return { gpus };
  const detail = said.trim() === '' ? '' : ` (${said.trim().split('\n').at(-1)})`;
  return {
    gpus,
    problem: `Mesa's device-select layer gives no PCI addresses: is it installed (on Debian and Ubuntu the package mesa-vulkan-drivers)?${detail}`,
  };
}

/** Reads the layer's list: lines like `  GPU 0: 10de:2335 "NVIDIA H200" discrete GPU 0000:07:00.0`. */
export function parseSelectableGpus(text: string): readonly SelectableGpu[] {
  const line = /^\s*GPU \d+: [0-9a-f]+:[0-9a-f]+ "(.*)"[^"\n]*?(?:\s([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]))?\s*$/gim;
  return [...text.matchAll(line)].map(([, name = '', pciAddress]) => (pciAddress === undefined ? { name } : { name, pciAddress: pciAddress.toLowerCase() }));
}

/** What DRI_PRIME calls the GPU at a PCI address: "pci-0000_07_00_0". */
export function primeName(pciAddress: string): string {
  return `pci-${pciAddress.replaceAll(/[:.]/g, '_')}`;
}

/** Runs of `withPrime` one after the other: the environment belongs to the whole process. */
let turn: Promise<unknown> = Promise.resolve();

/** Runs `start` while the layer puts the GPU at `pciAddress` first, then puts the environment back. */
export function withPrime<T>(pciAddress: string, start: () => Promise<T>): Promise<T> {
  const run = turn.then(async () => {
    const before = process.env['DRI_PRIME'];
    process.env['DRI_PRIME'] = primeName(pciAddress);
    try {
      return await start();
    } finally {
      if (before === undefined) delete process.env['DRI_PRIME'];
      else process.env['DRI_PRIME'] = before;
    }
  });
  turn = run.catch(() => undefined);
  return run;
}
