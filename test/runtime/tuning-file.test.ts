import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import { adapterKey, type Tuning, tuningVersion } from '../../src/core/tuning.js';
import { findTuning, tuningPath, tuningWarnings, writeTuning } from '../../src/runtime/tuning-file.js';

const card: GpuCapabilities = {
  ...baseCapabilities,
  ...{ subgroups: true, subgroupMinSize: 32, subgroupMaxSize: 32, packedDot: true, vendor: 'Maker Inc.', architecture: 'new', description: 'card (driver 1)' },
};
const product: Tuning['products'][number] = {
  ...{ end: 'none', best: false, depth: 1024, weights: [{ dtype: 'q8_0', rows: 1024 }], microseconds: 3 },
  shape: { subgroups: 4, lanes: 32, rows: 2, together: 2, split: 1, ahead: 2 },
};
const tuning: Tuning = { version: tuningVersion, adapter: adapterKey(card), products: [product] };

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'centella-tuning-'));
  vi.stubEnv('XDG_CACHE_HOME', folder);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

function pathOf(capabilities = card): string {
  const path = tuningPath(capabilities);
  if (path === undefined) throw new Error('this runtime has no cache folder');
  return path;
}

function keep(text: string): void {
  mkdirSync(dirname(pathOf()), { recursive: true });
  writeFileSync(pathOf(), text);
}

it('is a file of the adapter and its driver in the cache folder', () => {
  expect(pathOf().startsWith(join(folder, 'centella', 'tuning', 'maker-inc-new-'))).toBe(true);
  expect(pathOf({ ...card, description: 'card (driver 2)' })).not.toBe(pathOf());
});

it('is found again as it was written, and gathers products', async () => {
  expect(await findTuning('auto', card)).toEqual({ report: { source: 'none', used: [], ignored: [] } });
  expect(await writeTuning(tuning, card)).toBe(pathOf());
  expect(await findTuning('auto', card)).toEqual({ tuning, report: { source: pathOf(), used: ['sums q8_0[1024] x 1024'], ignored: [] } });
  expect(await findTuning('none', card)).toEqual({ report: { source: 'none', used: [], ignored: [] } });
  await writeTuning({ ...tuning, products: [{ ...product, depth: 2048 }] }, card);
  expect((await findTuning('auto', card)).report.used).toEqual(['sums q8_0[1024] x 1024', 'sums q8_0[1024] x 2048']);
});

it('is a warning that names the file where that is broken, foreign or of another version', async () => {
  for (const [text, why] of [
    ['{', 'is no JSON'],
    [JSON.stringify({ ...tuning, adapter: { ...tuning.adapter, vendor: 'other' } }), 'vendor is "other" there and "Maker Inc." here'],
    [JSON.stringify({ ...tuning, version: 7 }), 'it is of version 7'],
  ] as const) {
    keep(text);
    const { tuning: found, report } = await findTuning('auto', card);
    expect(found).toBeUndefined();
    expect(tuningWarnings(report)).toEqual([expect.stringContaining(why)]);
    expect(tuningWarnings(report)[0]).toContain(pathOf());
  }
  keep(JSON.stringify({ ...tuning, products: [{ ...product, shape: { ...product.shape, split: 3 } }] }));
  expect(tuningWarnings((await findTuning('auto', card)).report)).toEqual([
    `the tuning file ${pathOf()} has a shape for sums q8_0[1024] x 1024 that is ignored: 3 subgroups to a row do not divide 4`,
  ]);
});

it('loses nothing to writers at the same time, and leaves nothing beside it', async () => {
  const depths = [1024, 2048, 3072, 4096, 5120];
  await Promise.all(depths.map((depth) => writeTuning({ ...tuning, products: [{ ...product, depth }] }, card)));
  expect((await findTuning('auto', card)).tuning?.products.map(({ depth }) => depth).sort((a, b) => a - b)).toEqual(depths);
  expect(readdirSync(dirname(pathOf()))).toEqual([basename(pathOf())]);
});

it('is written although a writer was killed in the middle', async () => {
  keep('{');
  writeFileSync(`${pathOf()}.lock`, '');
  utimesSync(`${pathOf()}.lock`, 0, 0);
  await writeTuning(tuning, card);
  expect((await findTuning('auto', card)).tuning).toEqual(tuning);
});

it('is an error where the cache folder is none', async () => {
  writeFileSync(join(folder, 'centella'), '');
  await expect(writeTuning(tuning, card)).rejects.toMatchObject({ code: 'E_IO', message: expect.stringContaining(`cannot write ${pathOf()}`) });
  const { report } = await findTuning('auto', card);
  expect(tuningWarnings(report)).toEqual([expect.stringContaining('cannot read')]);
});

it('is written anew over a broken file', async () => {
  keep('{');
  await writeTuning(tuning, card);
  expect((await findTuning('auto', card)).tuning).toEqual(tuning);
});

it("is the caller's own object, which must be one", async () => {
  expect(await findTuning(tuning, card)).toMatchObject({ tuning, report: { source: 'caller' } });
  await expect(findTuning({} as Tuning, card)).rejects.toMatchObject({ code: 'E_ARGUMENT', argument: 'tuning' });
  const foreign = await findTuning(tuning, { ...card, subgroupMinSize: 16 });
  expect(tuningWarnings(foreign.report)).toEqual([expect.stringMatching(/^the tuning is ignored.*subgroupMinSize is 32 there and 16 here$/)]);
});
