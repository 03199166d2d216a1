import { beforeAll, describe, expect, it } from 'vitest';
import { attentionRule } from '../../src/kernels/attention.js';
import { cacheWriteRule } from '../../src/kernels/cache.js';
import { cacheWriteCases } from '../../src/ops/cases/cache.js';
import { attentionCasesToDeal, wideHeads } from '../support/attention-cases.js';
import { maskedWays } from '../support/masks.js';
import { failures, openTestDevice, type TestDevice } from '../support/run-steps.js';
import { dealt, shareName } from '../support/share.js';

/** A software rasteriser compiles some of these kernels for seconds. */
const timeout = 600_000;

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

describe.each(maskedWays)('attention with %s', (_name, mask, way) => {
  it(`agrees with the reference in ${shareName}`, { timeout }, async () => {
    expect(await failures(test, attentionRule, dealt(attentionCasesToDeal(), { ...way, slow: wideHeads }), { mask })).toEqual([]);
  });

  it(`finds what cacheWrite wrote in ${shareName}`, async () => {
    expect(await failures(test, () => cacheWriteRule, dealt(cacheWriteCases(), way), { mask })).toEqual([]);
  });
});
