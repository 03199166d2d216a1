import { describe, expect, it } from 'vitest';
import { checkImports } from '../../scripts/check-imports.mjs';

/** The offences of a small source tree; every case starts from one that has none. */
function check(changes: Record<string, string>): string[] {
  const lawful = {
    'core/errors.ts': 'export class CentellaError extends Error {}\n',
    'core/dtype.ts': "import { CentellaError } from './errors.js';\nexport const fail = () => new CentellaError();\n",
    'platform/files.ts': "import type { Stats } from 'node:fs';\nexport const open = () => import('node:fs/promises');\nexport type S = Stats;\n",
    'formats/reader.ts': "import { open } from '../platform/files.js';\nexport const read = open;\n",
    'index.ts': "export { CentellaError } from './core/errors.js';\n",
  };
  return checkImports(new Map(Object.entries({ ...lawful, ...changes })));
}

describe('the import rules', () => {
  it('accept a lawful tree', () => {
    expect(check({})).toEqual([]);
  });

  it('refuse a room that is not in the row of the importing one, type-only imports included', () => {
    expect(check({ 'core/tensor.ts': "\nimport type { read } from '../formats/reader.js';\nexport type R = typeof read;\n" })).toEqual([
      "src/core/tensor.ts:2: imports '../formats/reader.js': core may import nothing",
    ]);
  });

  it('refuse node: and packages outside platform, however they are imported', () => {
    for (const line of [
      "import fs from 'node:fs';",
      "export const fs = import('node:fs');",
      "export type S = import('node:fs').Stats;",
      "export * from 'node:fs';",
    ]) {
      expect(check({ 'formats/disk.ts': line })).toEqual(["src/formats/disk.ts:1: imports 'node:fs': only platform may import what is not Centella's own"]);
    }
    expect(check({ 'index.ts': "export { create } from 'webgpu';" })).toHaveLength(1);
  });

  it('let the command line alone import the package that it is made with', () => {
    expect(check({ 'cli/program.ts': "export { Command } from 'commander';" })).toEqual([]);
    expect(check({ 'cli/program.ts': "export { create } from 'webgpu';" })).toHaveLength(1);
    expect(check({ 'engine/program.ts': "export { Command } from 'commander';" })).toHaveLength(1);
  });

  it('refuse cycles, across lines of type imports too', () => {
    expect(check({ 'core/errors.ts': "import type { fail } from './dtype.js';\nexport class CentellaError extends Error { f?: typeof fail }\n" })).toEqual([
      'src/core/errors.ts:1: is in a cycle of imports: core/errors.ts -> core/dtype.ts -> core/errors.ts',
    ]);
  });

  it('refuse imports for side effects, of entry points, of nothing and from outside src', () => {
    expect(check({ 'formats/a.ts': "import './reader.js';" })[0]).toContain('for its side effects');
    expect(check({ 'formats/a.ts': "import { CentellaError } from '../index.js';" })[0]).toContain('the entry point');
    expect(check({ 'formats/a.ts': "import { x } from './missing.js';" })[0]).toContain('there is no src/formats/missing.ts');
    expect(check({ 'formats/a.ts': "import { x } from '../../test/x.js';" })[0]).toContain('outside src');
  });

  it('refuse a file in no room', () => {
    expect(check({ 'utils/a.ts': 'export const a = 1;', 'helpers.ts': 'export const b = 1;' })).toEqual([
      'src/utils/a.ts:1: is in no room, nor an entry point',
      'src/helpers.ts:1: is in no room, nor an entry point',
    ]);
  });
});
