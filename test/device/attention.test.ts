import { beforeAll, describe, expect, it } from 'vitest';
import { attentionRule } from '../../src/kernels/attention.js';
import { cacheWriteRule } from '../../src/kernels/cache.js';
import { attentionCases } from '../../src/ops/cases/attention.js';
import { cacheWriteCases } from '../../src/ops/cases/cache.js';
import { masks } from '../support/masks.js';
import { failures, openTestDevice, type TestDevice } from '../support/run-steps.js';

/** A software rasteriser compiles some of these kernels for seconds. */
const timeout = 600_000;

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

describe.each(masks)('attention with %s', (_name, mask) => {
  it('agrees with the reference in every case', { timeout }, async () => {
    expect(await failures(test, attentionRule, attentionCases(), { mask })).toEqual([]);
  });

  it('finds what cacheWrite wrote', async () => {
    expect(await failures(test, () => cacheWriteRule, cacheWriteCases(), { mask })).toEqual([]);
  });
});
