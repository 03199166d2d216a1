import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BenchArgs } from '../../bench/support/args.js';
import { type BenchReport, type Figure, formatFigure, formatNumber, rates, spread } from '../../bench/support/result.js';
import { checkSavePath, compareReport, comparisonText, formatResults, merged, readComparison, readResults } from '../../bench/support/results-file.js';

function report(figures: readonly Figure[], bench = 'decode'): BenchReport {
  return { bench, command: `bench ${bench}`, date: '2026-01-01', machine: { node: '20' }, adapter: 'a device', figures };
}

const rate = (name: string, value: number): Figure => ({ name, value, unit: 'tok/s' });

describe('a file of results', () => {
  it('replaces figures of the same name, maker and checks, and keeps the others with their report', () => {
    const before = { reports: [report([rate('a', 1), rate('b', 2), { ...rate('a', 3), by: 'a peer' }, { ...rate('a', 4), checks: 'checked' }])] };
    const { reports } = merged(before, report([rate('a', 9)]));
    expect(reports.map(({ figures }) => figures.map(({ value }) => value))).toEqual([[2, 3, 4], [9]]);
    expect(merged({ reports }, report([rate('a', 9)], 'prefill')).reports.map(({ bench }) => bench)).toEqual(['decode', 'decode', 'prefill']);
  });

  it('is JSON with one figure a line', () => {
    const file = { reports: [report([rate('a', 1 / 3), rate('b', 2)]), report([rate('c', 3)], 'prefill')] };
    const text = formatResults(file);
    expect(JSON.parse(text)).toEqual({ reports: [report([rate('a', 0.333333), rate('b', 2)]), report([rate('c', 3)], 'prefill')] });
    expect(text.split('\n').filter((line) => line.includes('"value"'))).toHaveLength(3);
  });
});

describe('a comparison', () => {
  it('is above 1 where a rate grew or a time shrank, and lists the worst first', () => {
    const time = (value: number): Figure => ({ name: 'load', value, unit: 'ms' });
    const before = { reports: [report([rate('a', 100), time(50), rate('gone', 1)])] };
    const compared = compareReport(before, report([rate('a', 150), time(100), rate('new', 1)]));
    expect(compared.map(({ gain }) => gain)).toEqual([0.5, 1.5]);
    expect(compared[0]?.line).toContain('load: 100 ms, was 50.0 ms');
  });

  it('takes nothing for as much as nothing, and what is no number for the worst', () => {
    const count = (value: number, name = 'compiled twice'): Figure => ({ name, value, unit: 'count' });
    const gains = (before: number, now: number): number[] =>
      compareReport({ reports: [report([count(before)])] }, report([count(now)])).map(({ gain }) => gain);
    expect([gains(0, 0), gains(2, 0), gains(0, 2), gains(2, Number.NaN)]).toEqual([[1], [Infinity], [0], [0]]);
  });

  it('is with the same device, and says what it could not compare', () => {
    const file = { reports: [{ ...report([rate('a', 1)]), adapter: 'another device' }, report([rate('b', 1)])] };
    expect(compareReport(file, report([rate('a', 5)]))).toEqual([]);
    expect(comparisonText('x.json', file, report([rate('a', 5), rate('b', 2)]))).toBe(
      'beside x.json:\n  2.000  b: 2.00 tok/s, was 1.00 tok/s\n  1 of 2 figures are not in it for a device; it also has decode on another device, which is not compared',
    );
    expect(comparisonText('x.json', file, report([rate('b', 2)])).split('\n')).toHaveLength(2);
  });

  it('is not made with a file that is absent or damaged', () => {
    const folder = mkdtempSync(join(tmpdir(), 'centella-results-'));
    const path = join(folder, 'kept.json');
    expect(() => readComparison(path)).toThrow('there is no such file; --save=FILE makes one');
    expect(readResults(path)).toEqual({ reports: [] });
    checkSavePath(path);
    expect(() => checkSavePath(join(folder, 'none', 'kept.json'))).toThrow('cannot be written');
    for (const text of ['{', '[]', 'null', '{"reports": 5}']) {
      writeFileSync(path, text);
      expect(() => readComparison(path)).toThrow('is no file of results');
      expect(() => checkSavePath(path)).toThrow('is no file of results');
    }
    rmSync(folder, { recursive: true });
  });

  it('leaves out figures of other benchmarks and other checks', () => {
    const before = { reports: [report([rate('a', 1)], 'prefill'), report([{ ...rate('a', 1), checks: 'checked' }])] };
    expect(compareReport(before, report([rate('a', 2)]))).toEqual([]);
  });
});

describe('figures', () => {
  it('are medians with their extremes', () => {
    expect(spread([3, 1, 2])).toEqual({ value: 2, least: 1, most: 3, samples: 3 });
    expect(spread([4, 1, 2, 3]).value).toBe(2.5);
    expect(rates(100, [50, 25])).toEqual({ value: 3, least: 2, most: 4, samples: 2 });
    expect(formatFigure({ ...rate('a', 1234.5), least: 1200, most: 1300 })).toBe('1,235 tok/s (1,200 to 1,300)');
    expect([0.01234, 1.234, 99.95, 0].map(formatNumber)).toEqual(['0.0123', '1.23', '100.0', '0']);
  });
});

describe('arguments', () => {
  const known = { flags: ['checked'], values: ['rows', 'synthetic', 'device'] };
  it('are options in both forms, flags, and the rest in order', () => {
    const args = new BenchArgs(['a.gguf', '--rows=8,16', '--synthetic', 'tiny', '--checked', 'b.gguf', '--save=x'], known);
    expect(args.rest).toEqual(['a.gguf', 'b.gguf']);
    expect([args.counts('rows', [1]), args.list('synthetic'), args.flag('checked'), args.flag('json'), args.text('save'), args.device()]).toEqual([
      [8, 16],
      ['tiny'],
      true,
      false,
      'x',
      'auto',
    ]);
  });

  it.each([['--colour'], ['--rows'], ['--checked=1']])('are refused: %s', (arg) => {
    expect(() => new BenchArgs([arg], known)).toThrow(arg.slice(0, 6));
  });

  it.each(['0', '1.5', 'x'])('take no count of %s', (value) => {
    expect(() => new BenchArgs([`--rows=${value}`], known).count('rows', 1)).toThrow('whole numbers');
  });
});
