import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { promptRuns } from '../../src/model/prompt-runs.js';

const sizes = [1, 8, 32, 128, 512, 2048];

describe('the runs of a prompt', () => {
  it.each([
    [1, [1]],
    [5, [5]],
    [128, [128]],
    [200, [200]],
    [512, [512]],
    [600, [512, 88]],
    [1100, [512, 512, 76]],
    [2047, [2047]],
    [2048, [2048]],
    [4100, [2048, 2048, 4]],
  ])('of %d tokens are %j', (tokens, wanted) => {
    expect(promptRuns(tokens, sizes)).toEqual(wanted);
  });

  it('take every token once, fit their sizes, and never compute more rows than one covering run each', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9000 }), fc.integer({ min: 1, max: sizes.length }), (tokens, count) => {
        const some = sizes.slice(0, count);
        const runs = promptRuns(tokens, some);
        const rowsOf = (live: number): number => some.find((size) => size >= live) ?? Number.POSITIVE_INFINITY;
        const largest = some.at(-1) ?? 1;
        expect(runs.reduce((a, b) => a + b, 0)).toBe(tokens);
        expect(runs.slice(0, -1).every((live) => some.includes(live))).toBe(true);
        const padded = Math.floor(tokens / largest) * largest + (tokens % largest === 0 ? 0 : rowsOf(tokens % largest));
        expect(runs.reduce((sum, live) => sum + rowsOf(live), 0)).toBeLessThanOrEqual(padded);
      }),
    );
  });
});
