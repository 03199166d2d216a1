// Installs Debian packages from the machine's own package sources, with the release's backports added for one call where they are needed.
// No mirror is named here: the backports entry repeats the address and the key of the entry that serves the machine's main suite.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

/** Fields of /etc/os-release, or an empty map where there is none. */
export function osRelease(path = '/etc/os-release') {
  const fields = new Map();
  if (!existsSync(path)) return fields;
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    const found = /^([A-Z_]+)=(.*)$/.exec(line);
    if (found) fields.set(found[1], found[2].replace(/^"(.*)"$/, '$1'));
  }
  return fields;
}

/** 'debian' | 'ubuntu' | undefined: a derivative counts as what it is like. */
export function aptFamily(release = osRelease()) {
  const names = [release.get('ID'), ...(release.get('ID_LIKE') ?? '').split(' ')];
  return names.find((name) => name === 'debian' || name === 'ubuntu');
}

/** The deb822 stanzas of a `.sources` file as arrays of [field, value]; comments dropped, continuation lines joined. */
export function parseStanzas(text) {
  const stanzas = [];
  for (const block of text.split(/\n[ \t]*\n/)) {
    const fields = [];
    for (const line of block.split('\n')) {
      if (line.startsWith('#') || line.trim() === '') continue;
      if (/^[ \t]/.test(line)) {
        if (fields.length > 0) fields[fields.length - 1][1] += `\n${line}`;
        continue;
      }
      const colon = line.indexOf(':');
      if (colon > 0) fields.push([line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]);
    }
    if (fields.length > 0) stanzas.push(new Map(fields));
  }
  return stanzas;
}

/** A deb822 stanza for `<codename>-backports`, beside the stanza of `text` that serves `<codename>`; undefined where none does. */
export function backportsFromStanzas(text, codename) {
  const serving = parseStanzas(text).find(
    (stanza) =>
      (stanza.get('types') ?? '').split(/\s+/).includes('deb') &&
      (stanza.get('suites') ?? '').split(/\s+/).includes(codename) &&
      (stanza.get('enabled') ?? 'yes').toLowerCase() !== 'no',
  );
  if (!serving) return undefined;
  const lines = ['Types: deb', `URIs: ${serving.get('uris')}`, `Suites: ${codename}-backports`, 'Components: main'];
  for (const [field, name] of [
    ['signed-by', 'Signed-By'],
    ['architectures', 'Architectures'],
    ['trusted', 'Trusted'],
  ]) {
    if (serving.has(field)) lines.push(`${name}: ${serving.get(field)}`);
  }
  return { extension: 'sources', text: `${lines.join('\n')}\n` };
}

/** The same for the one-line format: `deb [options] uri suite components`. */
export function backportsFromLines(text, codename) {
  for (const line of text.split('\n')) {
    const found = /^\s*deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s/.exec(`${line} `);
    if (found && found[3] === codename) {
      return { extension: 'list', text: `deb ${found[1] ?? ''}${found[2]} ${codename}-backports main\n` };
    }
  }
  return undefined;
}

function sourceFiles(root) {
  const parts = join(root, 'sources.list.d');
  const inParts = existsSync(parts) ? readdirSync(parts).map((name) => join(parts, name)) : [];
  return [join(root, 'sources.list'), ...inParts].filter((path) => existsSync(path) && /\.(list|sources)$/.test(path));
}

/** The backports entry derived from the sources under `root`, or undefined where no entry serves the codename. */
export function deriveBackports(codename, root = '/etc/apt') {
  for (const path of sourceFiles(root)) {
    const text = readFileSync(path, 'utf8');
    const entry = path.endsWith('.sources') ? backportsFromStanzas(text, codename) : backportsFromLines(text, codename);
    if (entry) return entry;
  }
  return undefined;
}

function output(command, args) {
  const run = spawnSync(command, args, { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
  return run.status === 0 ? run.stdout : '';
}

/** The installed version of a package, or undefined. */
export function installedVersion(name) {
  const [status, version] = output('dpkg-query', ['-W', '-f', '${db:Status-Status} ${Version}', name]).split(' ');
  return status === 'installed' ? version : undefined;
}

/** The version that a plain install would choose, or undefined. */
export function candidateVersion(name) {
  const found = /Candidate: (\S+)/.exec(output('apt-cache', ['policy', name]));
  return found && found[1] !== '(none)' ? found[1] : undefined;
}

function apt(args, say) {
  say(`apt-get ${args.join(' ')}`);
  const run = spawnSync('apt-get', ['-q', ...args], {
    stdio: ['ignore', process.stderr, process.stderr],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
  });
  if (run.error) throw run.error;
  if (run.status !== 0) throw new Error(`apt-get ${args[0]} ended with status ${run.status}`);
}

export function aptUpdate(say) {
  apt(['update'], say);
}

export function aptInstall(packages, say) {
  apt(['install', '-y', '--no-install-recommends', ...packages], say);
}

/**
 * Installs packages from `<codename>-backports`. The entry lives in a temporary copy of the machine's source lists, so that
 * /etc/apt stays as its owner wrote it.
 */
export function aptInstallFromBackports(packages, codename, say) {
  const entry = deriveBackports(codename);
  if (!entry) throw new Error(`no entry for ${codename} in /etc/apt/sources.list or /etc/apt/sources.list.d, so ${codename}-backports cannot be derived`);
  const folder = mkdtempSync(join(tmpdir(), 'centella-apt-'));
  try {
    const parts = join(folder, 'parts');
    mkdirSync(parts);
    for (const path of sourceFiles('/etc/apt')) copyFileSync(path, join(parts, basename(path)));
    writeFileSync(join(parts, `centella-backports.${entry.extension}`), entry.text);
    const options = ['-o', 'Dir::Etc::sourcelist=/dev/null', '-o', `Dir::Etc::sourceparts=${parts}`];
    apt(['update', ...options], say);
    apt(['install', '-y', '--no-install-recommends', '-t', `${codename}-backports`, ...options, ...packages], say);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
