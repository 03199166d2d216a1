/**
 * The WebGPU adapter of this test process, chosen by the project that runs the file: Mesa's lavapipe or SwiftShader (vitest.config.ts), or the machine's GPU
 * (vitest.gpu.config.ts).
 */

import { create, globals } from 'webgpu';
import { type AdapterName, adapterManifest } from '../../scripts/setup/adapters.mjs';
import { chooseAdapter, listAdapters } from '../../src/gpu/adapter.js';
import { testAdapterName } from './adapter-name.js';

/** What each driver's own description begins with. */
const descriptions: Record<AdapterName, string> = { lavapipe: 'llvmpipe', swiftshader: 'SwiftShader' };

// Dawn dies when the object that `create` returns is collected while a device lives: one module-level reference holds it.
const held: { gpu?: GPU } = {};

/** Whether this process tests an adapter that renders on the CPU. */
export function testsSoftware(): boolean {
  return testAdapterName() !== 'hardware';
}

/** Where the adapter of this process is in `GpuDevice.adapters()`. */
export async function testAdapterIndex(): Promise<number> {
  const { adapters } = await listAdapters();
  const entry = adapters.find(({ software }) => software === testsSoftware());
  if (entry === undefined) throw new Error(`none of ${adapters.length} adapters is ${testAdapterName()}`);
  return entry.index;
}

/** A part of the adapter's name that it has in every report. */
export async function testAdapterPattern(): Promise<RegExp> {
  const name = testAdapterName();
  if (name !== 'hardware') return new RegExp(descriptions[name], 'i');
  const { adapters } = await listAdapters();
  const words = adapters.find(({ software }) => !software)?.name.match(/\w+/g) ?? [name];
  // Drivers write the same name as "NVIDIA H200" and "nvidia-h200".
  return new RegExp(words.slice(0, 2).join('.*'), 'i');
}

/** A fresh adapter (one makes one device), checked to be the one that this process must test; with Dawn's own checks on. Makes WebGPU's constants global. */
export async function requestTestAdapter(): Promise<GPUAdapter> {
  Object.assign(globalThis, globals);
  const name = testAdapterName();
  return name === 'hardware' ? (await chooseAdapter({ software: 'refuse', checked: true })).adapter : requestSoftware(name);
}

async function requestSoftware(name: AdapterName): Promise<GPUAdapter> {
  if (adapterManifest(name) === undefined) throw new Error(`the adapter ${name} is not installed: run npm test, or name it in CENTELLA_WITHOUT`);
  held.gpu ??= create([]);
  const adapter = await held.gpu.requestAdapter();
  if (adapter === null) throw new Error(`Dawn finds no adapter in the environment of ${name}: VK_ICD_FILENAMES=${process.env['VK_ICD_FILENAMES']}`);
  if (!adapter.info.description.startsWith(descriptions[name])) throw new Error(`wanted the adapter ${name}, got ${adapter.info.description}`);
  return adapter;
}
