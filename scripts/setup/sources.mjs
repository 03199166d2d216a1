// Reads apt's source lists, and derives the entry for a release's backports from the one that serves its main suite: the same address, the same key. No
// mirror is named here.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * @typedef {object} SourceEntry
 * @property {'sources' | 'list'} extension the format, as the name of its file ends
 * @property {string} text
 */

/**
 * Fields of /etc/os-release; empty where there is none.
 * @returns {Map<string, string>}
 */
export function osRelease(path = '/etc/os-release') {
  /** @type {Map<string, string>} */
  const fields = new Map();
  if (!existsSync(path)) return fields;
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    const [, name, value] = /^([A-Z_]+)=(.*)$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined) fields.set(name, value.replace(/^"(.*)"$/, '$1'));
  }
  return fields;
}

/**
 * The stanzas of a deb822 `.sources` file: field names in lower case, comments dropped, continuation lines kept.
 * @param {string} text
 * @returns {Map<string, string>[]}
 */
export function parseStanzas(text) {
  const stanzas = [];
  for (const block of text.split(/\n[ \t]*\n/)) {
    /** @type {Map<string, string>} */
    const fields = new Map();
    let last = '';
    for (const line of block.split('\n')) {
      if (line.startsWith('#') || line.trim() === '') continue;
      const colon = line.indexOf(':');
      if (/^[ \t]/.test(line)) fields.set(last, `${fields.get(last) ?? ''}\n${line}`);
      else if (colon > 0) {
        last = line.slice(0, colon).toLowerCase();
        fields.set(last, line.slice(colon + 1).trim());
      }
    }
    if (fields.size > 0) stanzas.push(fields);
  }
  return stanzas;
}

/**
 * @param {Map<string, string>} stanza
 * @param {string} field
 */
function words(stanza, field) {
  return (stanza.get(field) ?? '').split(/\s+/);
}

/**
 * @param {string} text a deb822 file
 * @param {string} codename
 * @returns {SourceEntry | undefined}
 */
export function backportsFromStanzas(text, codename) {
  const serving = parseStanzas(text).find(
    (stanza) => words(stanza, 'types').includes('deb') && words(stanza, 'suites').includes(codename) && stanza.get('enabled')?.toLowerCase() !== 'no',
  );
  if (serving === undefined) return undefined;
  const lines = ['Types: deb', `URIs: ${serving.get('uris')}`, `Suites: ${codename}-backports`, 'Components: main'];
  for (const name of ['Signed-By', 'Architectures', 'Trusted']) {
    const value = serving.get(name.toLowerCase());
    if (value !== undefined) lines.push(`${name}: ${value}`);
  }
  return { extension: 'sources', text: `${lines.join('\n')}\n` };
}

/**
 * @param {string} text the one-line format: `deb [options] uri suite components`
 * @param {string} codename
 * @returns {SourceEntry | undefined}
 */
export function backportsFromLines(text, codename) {
  for (const line of text.split('\n')) {
    const [, options = '', uri, suite] = /^\s*deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s/.exec(line) ?? [];
    if (uri !== undefined && suite === codename) return { extension: 'list', text: `deb ${options}${uri} ${codename}-backports main\n` };
  }
  return undefined;
}

/**
 * The files that apt reads its sources from.
 * @param {string} root
 */
export function sourceFiles(root = '/etc/apt') {
  const parts = join(root, 'sources.list.d');
  const inParts = existsSync(parts) ? readdirSync(parts).map((name) => join(parts, name)) : [];
  return [join(root, 'sources.list'), ...inParts].filter((path) => existsSync(path) && /\.(list|sources)$/.test(path));
}

/**
 * The backports entry beside the first entry under `root` that serves the codename; undefined where none does.
 * @param {string} codename
 */
export function deriveBackports(codename, root = '/etc/apt') {
  for (const path of sourceFiles(root)) {
    const text = readFileSync(path, 'utf8');
    const entry = path.endsWith('.sources') ? backportsFromStanzas(text, codename) : backportsFromLines(text, codename);
    if (entry !== undefined) return entry;
  }
  return undefined;
}
