import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** What a tool of the repository complains of: empty where it is content. */
function complaints(script: string, ...args: string[]): string {
  const run = spawnSync(process.execPath, [script, ...args], { cwd: root, encoding: 'utf8' });
  return run.status === 0 ? '' : `${run.stdout}${run.stderr}` || `ended with status ${run.status}`;
}

describe('the source', () => {
  it('satisfies the type checker', () => {
    expect(complaints('node_modules/typescript/bin/tsc', '-p', 'tsconfig.json')).toBe('');
  });

  it('satisfies the linter and the formatter', () => {
    expect(complaints('node_modules/@biomejs/biome/bin/biome', 'check', '--error-on-warnings')).toBe('');
  });

  it('keeps the import rules', () => {
    expect(complaints('scripts/check-imports.mjs')).toBe('');
  });
});
