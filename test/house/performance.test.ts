import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { performancePage } from '../../scripts/performance.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));

describe('the page on performance', () => {
  const made = performancePage(root);

  it('and its plots are what bench/results makes them: node scripts/performance.mjs writes them', () => {
    const stale = [...made].filter(([path, content]) => !existsSync(join(root, path)) || readFileSync(join(root, path), 'utf8') !== content);
    expect(stale.map(([path]) => path)).toEqual([]);
  });

  it('shows every plot that is kept', () => {
    const kept = readdirSync(join(root, 'docs/performance')).map((name) => `docs/performance/${name}`);
    expect(kept.filter((path) => !made.has(path))).toEqual([]);
  });

  it('has a place for every benchmark that has results', () => {
    const { reports } = JSON.parse(readFileSync(join(root, 'bench/results/h200.json'), 'utf8')) as { reports: readonly { bench: string }[] };
    const page = made.get('docs/performance.md') ?? '';
    expect(reports.map(({ bench }) => bench).filter((bench) => !page.includes(`<!-- figures ${bench} -->`))).toEqual([]);
  });
});
