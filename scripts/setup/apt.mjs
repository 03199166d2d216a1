// Installs Debian packages from the machine's own package sources; from the release's backports where the plain ones are too old.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { deriveBackports, sourceFiles } from './sources.mjs';

/** @typedef {(line: string) => void} Say */

/**
 * The version that a plain install would choose, or undefined.
 * @param {string} name
 */
export function candidateVersion(name) {
  const run = spawnSync('apt-cache', ['policy', name], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
  const version = /Candidate: (\S+)/.exec(run.stdout ?? '')?.[1];
  return version === '(none)' ? undefined : version;
}

/**
 * @param {string[]} args
 * @param {Say} say
 */
function apt(args, say) {
  say(`apt-get ${args.join(' ')}`);
  const run = spawnSync('apt-get', ['-q', ...args], {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
  });
  if (run.error !== undefined) throw run.error;
  // Hundreds of lines, of interest only where they end badly.
  if (run.status !== 0) throw new Error(`${run.stdout}${run.stderr}apt-get ${args[0]} ended with status ${run.status}`);
}

/** @param {Say} say */
export function update(say) {
  apt(['update'], say);
}

/**
 * @param {string[]} packages
 * @param {Say} say
 * @param {string[]} options
 */
export function install(packages, say, options = []) {
  apt(['install', '-y', '--no-install-recommends', ...options, ...packages], say);
}

/**
 * Installs packages from `<codename>-backports`. The entry lives in a temporary copy of the machine's source lists: /etc/apt stays as its owner wrote it.
 * @param {string[]} packages
 * @param {string} codename
 * @param {Say} say
 */
export function installFromBackports(packages, codename, say) {
  const entry = deriveBackports(codename);
  if (entry === undefined) throw new Error(`no source in /etc/apt serves ${codename}, so ${codename}-backports cannot be derived from it`);
  const folder = mkdtempSync(join(tmpdir(), 'centella-apt-'));
  try {
    const parts = join(folder, 'parts');
    mkdirSync(parts);
    for (const path of sourceFiles()) copyFileSync(path, join(parts, basename(path)));
    writeFileSync(join(parts, `centella-backports.${entry.extension}`), entry.text);
    const options = ['-o', 'Dir::Etc::sourcelist=/dev/null', '-o', `Dir::Etc::sourceparts=${parts}`];
    say(`using ${codename}-backports for this install:\n${entry.text.trimEnd()}`);
    apt(['update', ...options], say);
    install(packages, say, ['-t', `${codename}-backports`, ...options]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
