// Where the software Vulkan drivers and Chromium are. A Vulkan driver is chosen by the environment of a process (VK_ICD_FILENAMES), so each adapter is
// tested in processes of its own.
import { existsSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** @typedef {'lavapipe' | 'swiftshader'} AdapterName */

/** @type {readonly AdapterName[]} */
export const adapterNames = ['lavapipe', 'swiftshader'];

/** @typedef {AdapterName | 'hardware'} TestAdapterName The adapters of the test projects: the software ones, and the GPU of this machine. */

/** @type {readonly TestAdapterName[]} */
export const testAdapterNames = [...adapterNames, 'hardware'];

/** What a test run can be told to do without, by name, in CENTELLA_WITHOUT. */
export const needNames = [...adapterNames, 'chromium'];

/** Where distributions put the manifests of Vulkan drivers. */
const manifestFolders = ['/usr/share/vulkan/icd.d', '/usr/local/share/vulkan/icd.d', '/etc/vulkan/icd.d'];

const chromiumPaths = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/snap/bin/chromium', '/usr/bin/google-chrome-stable', '/usr/bin/google-chrome'];

/** SwiftShader comes inside Chromium. */
const swiftshaderManifests = [
  '/usr/lib/chromium/vk_swiftshader_icd.json',
  '/usr/lib/chromium-browser/vk_swiftshader_icd.json',
  '/snap/chromium/current/usr/lib/chromium-browser/vk_swiftshader_icd.json',
  '/opt/google/chrome/vk_swiftshader_icd.json',
];

/**
 * The Vulkan manifest of an adapter, or undefined where it is not installed.
 * @param {AdapterName} name
 * @returns {string | undefined}
 */
export function adapterManifest(name) {
  if (name === 'swiftshader') return swiftshaderManifests.find((path) => existsSync(path));
  for (const folder of manifestFolders) {
    const file = existsSync(folder) ? readdirSync(folder).find((entry) => /^lvp_icd.*\.json$/.test(entry)) : undefined;
    if (file !== undefined) return join(folder, file);
  }
  return undefined;
}

/**
 * The environment in which Dawn sees one adapter and no other; a driver that is absent yields a path that names it.
 * @param {AdapterName} name
 * @returns {Record<string, string>}
 */
export function adapterEnvironment(name) {
  const manifest = adapterManifest(name) ?? `/${name}-is-not-installed.json`;
  // Both names: the loader prefers VK_DRIVER_FILES where a user has set it. Mesa writes its shader cache and complains without a runtime folder.
  return { VK_ICD_FILENAMES: manifest, VK_DRIVER_FILES: manifest, XDG_RUNTIME_DIR: process.env['XDG_RUNTIME_DIR'] ?? tmpdir() };
}

/** The Chromium to test with (CENTELLA_CHROMIUM, else the usual places), or undefined. */
export function chromiumPath() {
  const chosen = process.env['CENTELLA_CHROMIUM'];
  return chosen !== undefined && chosen !== '' ? chosen : chromiumPaths.find((path) => existsSync(path));
}

/**
 * Whether CENTELLA_WITHOUT (a comma list) names this need. An unknown name in the list is an error: it would look like a test that passed.
 * @param {string} name
 * @param {string} list
 */
export function withheld(name, list = process.env['CENTELLA_WITHOUT'] ?? '') {
  const names = list.split(',').map((entry) => entry.trim());
  for (const entry of names) {
    if (entry !== '' && !needNames.includes(entry)) throw new Error(`CENTELLA_WITHOUT names '${entry}'; it may name ${needNames.join(', ')}`);
  }
  return names.includes(name);
}
