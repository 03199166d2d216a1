/** The WebGPU adapter of this test process: Mesa's lavapipe or SwiftShader, chosen by the project that runs the file (vitest.config.ts). */

import { create, globals } from 'webgpu';
import { type AdapterName, adapterManifest, adapterNames } from '../../scripts/setup/adapters.mjs';

export { type AdapterName, adapterNames } from '../../scripts/setup/adapters.mjs';

/** What each driver's own description begins with. */
const descriptions: Record<AdapterName, string> = { lavapipe: 'llvmpipe', swiftshader: 'SwiftShader' };

// Dawn dies when the object that `create` returns is collected while a device lives: one module-level reference holds it.
const held: { gpu?: GPU } = {};

/** The adapter that this process must test. Throws outside the device projects. */
export function testAdapterName(): AdapterName {
  const chosen = process.env['CENTELLA_TEST_ADAPTER'];
  const name = adapterNames.find((entry) => entry === chosen);
  if (name === undefined) throw new Error('device tests belong in test/device: only its projects choose an adapter');
  return name;
}

/** Dawn's `GPU`, with the WebGPU constants (`GPUBufferUsage` and the like) made global, once a process. */
export function testGpu(): GPU {
  held.gpu ??= startDawn();
  return held.gpu;
}

function startDawn(): GPU {
  const name = testAdapterName();
  if (adapterManifest(name) === undefined) throw new Error(`the adapter ${name} is not installed: run npm test, or name it in CENTELLA_WITHOUT`);
  Object.assign(globalThis, globals);
  return create([]);
}

/** A fresh adapter (one makes one device), checked to be the one that this process must test. */
export async function requestTestAdapter(): Promise<GPUAdapter> {
  const name = testAdapterName();
  const adapter = await testGpu().requestAdapter();
  if (adapter === null) throw new Error(`Dawn finds no adapter in the environment of ${name}: VK_ICD_FILENAMES=${process.env['VK_ICD_FILENAMES']}`);
  if (!adapter.info.description.startsWith(descriptions[name])) throw new Error(`wanted the adapter ${name}, got ${adapter.info.description}`);
  return adapter;
}
