// npm's packages and the build, each brought up to date only where it is not.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isBuilt } from '../build.mjs';

/**
 * @typedef {object} LockEntry
 * @property {string} [version]
 * @property {boolean} [optional]
 */

/**
 * @param {string} path
 * @returns {Record<string, LockEntry>}
 */
function lockedPackages(path) {
  return JSON.parse(readFileSync(path, 'utf8')).packages;
}

/**
 * Whether node_modules holds what package-lock.json says, by npm's own record of what it installed. Optional packages serve other platforms.
 * @param {string} root
 */
export function isInstalled(root) {
  const record = join(root, 'node_modules/.package-lock.json');
  if (!existsSync(record)) return false;
  const installed = lockedPackages(record);
  return Object.entries(lockedPackages(join(root, 'package-lock.json'))).every(
    ([path, entry]) => path === '' || entry.optional === true || installed[path]?.version === entry.version,
  );
}

/**
 * @param {string} root
 * @param {string} command
 * @param {string[]} args
 */
function run(root, command, args) {
  const shell = process.platform === 'win32';
  // Standard output stays the command's own that follows: a demo's text, a report's lines.
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', process.stderr, process.stderr], shell });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with status ${status}`);
}

/**
 * @param {string} root
 * @param {import('./apt.mjs').Say} say
 */
export function ensurePackages(root, say) {
  if (isInstalled(root)) return;
  if (process.env['CENTELLA_NO_INSTALL'] === '1')
    throw new Error('npm packages are missing or outdated, and CENTELLA_NO_INSTALL=1 forbids installing: run npm ci');
  say('installing the npm packages of package-lock.json: npm ci');
  run(root, 'npm', ['ci']);
}

/**
 * @param {string} root
 * @param {import('./apt.mjs').Say} say
 */
export function ensureBuild(root, say) {
  if (isBuilt(root)) return;
  say('building dist');
  run(root, process.execPath, [join(root, 'scripts/build.mjs')]);
}
