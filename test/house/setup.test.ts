import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { withheld } from '../../scripts/setup/adapters.mjs';
import { isInstalled } from '../../scripts/setup/node.mjs';
import { backportsFromLines, backportsFromStanzas, deriveBackports } from '../../scripts/setup/sources.mjs';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'centella-setup-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

const deb822 = `# the security suite comes first and does not serve the release
Types: deb
URIs: http://mirror.invalid/security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://mirror.invalid/old
Suites: bookworm

Types: deb deb-src
# a comment inside a stanza
URIs: http://mirror.invalid/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/some.gpg
`;

describe('the backports entry', () => {
  it('repeats the address and the key of the stanza that serves the release', () => {
    expect(backportsFromStanzas(deb822, 'bookworm')?.text).toBe(
      'Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm-backports\nComponents: main\nSigned-By: /usr/share/keyrings/some.gpg\n',
    );
  });

  it('keeps a key that is written out over several lines', () => {
    const inline = 'Types: deb\nURIs: http://mirror.invalid/debian\nSuites: trixie\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY\n';
    expect(backportsFromStanzas(inline, 'trixie')?.text).toContain('Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY\n');
  });

  it('reads the one-line format with its options', () => {
    const lines =
      '# deb http://mirror.invalid/no bookworm main\ndeb-src http://mirror.invalid/no bookworm main\ndeb [arch=amd64 signed-by=/k.gpg] http://mirror.invalid/d bookworm main\n';
    expect(backportsFromLines(lines, 'bookworm')?.text).toBe('deb [arch=amd64 signed-by=/k.gpg] http://mirror.invalid/d bookworm-backports main\n');
    expect(backportsFromLines(lines, 'trixie')).toBeUndefined();
  });

  it('is found in either place that apt reads, and nowhere else', () => {
    mkdirSync(join(folder, 'sources.list.d'));
    writeFileSync(join(folder, 'sources.list.d/debian.sources.disabled'), deb822);
    expect(deriveBackports('bookworm', folder)).toBeUndefined();
    cpSync(join(folder, 'sources.list.d/debian.sources.disabled'), join(folder, 'sources.list.d/debian.sources'));
    expect(deriveBackports('bookworm', folder)?.extension).toBe('sources');
    writeFileSync(join(folder, 'sources.list'), 'deb http://mirror.invalid/d bookworm main\n');
    expect(deriveBackports('bookworm', folder)?.extension).toBe('list');
  });
});

describe('CENTELLA_WITHOUT', () => {
  it('names what a run does without, and refuses a name that means nothing', () => {
    expect(withheld('lavapipe', 'chromium, lavapipe')).toBe(true);
    expect(withheld('swiftshader', 'chromium, lavapipe')).toBe(false);
    expect(withheld('chromium', '')).toBe(false);
    expect(() => withheld('lavapipe', 'lavapip')).toThrow("names 'lavapip'");
  });
});

describe('the npm packages', () => {
  function write(name: string, packages: object): void {
    writeFileSync(join(folder, name), JSON.stringify({ packages }));
  }

  it('are up to date when every locked version is installed, other platforms aside', () => {
    const locked = { '': { version: '0.1.0' }, 'node_modules/a': { version: '1.0.0' }, 'node_modules/b-darwin': { version: '2.0.0', optional: true } };
    write('package-lock.json', locked);
    expect(isInstalled(folder)).toBe(false);
    mkdirSync(join(folder, 'node_modules'));
    write('node_modules/.package-lock.json', { 'node_modules/a': { version: '1.0.0' } });
    expect(isInstalled(folder)).toBe(true);
    write('node_modules/.package-lock.json', { 'node_modules/a': { version: '0.9.0' } });
    expect(isInstalled(folder)).toBe(false);
  });
});
