import { beforeAll, describe, expect, it } from 'vitest';
import type { CapabilityMask } from '../../src/core/capabilities.js';
import { baseCapabilities } from '../../src/core/capabilities.js';
import { gatherRule } from '../../src/kernels/gather.js';
import { linearRule } from '../../src/kernels/linear.js';
import { gatherCases } from '../../src/ops/cases/gather.js';
import { linearCases } from '../../src/ops/cases/linear.js';
import { failures, openTestDevice, type TestDevice } from '../support/run-steps.js';

const masks: readonly (readonly [string, CapabilityMask])[] = [
  ['everything it has', {}],
  ['no f16', { f16: false }],
  ['no subgroups', { subgroups: false }],
  ['the guaranteed limits and no feature', { f16: false, subgroups: false, packedDot: false, limits: baseCapabilities.limits }],
  ['bindings of 16 KiB', { limits: { maxStorageBufferBindingSize: 16_384 } }],
];

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

describe.each(masks)('linear and gatherRows with %s', (_name, mask) => {
  it('agree with the reference in every case', async () => {
    expect(await failures(test, linearRule, linearCases(), { mask })).toEqual([]);
    expect(await failures(test, () => gatherRule, gatherCases(), { mask })).toEqual([]);
  });
});
