import { beforeAll, describe, expect, it } from 'vitest';
import { argmaxRule } from '../../src/kernels/argmax.js';
import { binaryRule, swigluRule, unaryRule } from '../../src/kernels/elementwise.js';
import { rmsNormRule } from '../../src/kernels/norm.js';
import { ropeRule } from '../../src/kernels/rope.js';
import { advanceRule, lastRowRule } from '../../src/kernels/state.js';
import { argmaxCases } from '../../src/ops/cases/argmax.js';
import { binaryCases, swigluCases, unaryCases } from '../../src/ops/cases/elementwise.js';
import { rmsNormCases } from '../../src/ops/cases/norm.js';
import { ropeCases } from '../../src/ops/cases/rope.js';
import { advanceCases, lastRowCases } from '../../src/ops/cases/state.js';
import { maskedWays } from '../support/masks.js';
import { ruleFailures } from '../support/rule-failures.js';
import { failures, openTestDevice, type TestDevice } from '../support/run-steps.js';
import { dealt, shareName } from '../support/share.js';

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

describe.each([
  ['in a place of its own', false, { ways: 2, way: 0 }],
  ['in place', true, { ways: 2, way: 1 }],
])('elementwise operations %s', (_name, inPlace, way) => {
  it(`agree with the reference in ${shareName}`, async () => {
    expect(await ruleFailures(test, () => unaryRule, dealt(unaryCases(), way), { inPlace })).toEqual([]);
    expect(await ruleFailures(test, () => binaryRule, dealt(binaryCases(), way), { inPlace })).toEqual([]);
    expect(await ruleFailures(test, () => swigluRule, dealt(swigluCases(), way), { inPlace })).toEqual([]);
    expect(await failures(test, () => ropeRule, dealt(ropeCases(), way), { inPlace })).toEqual([]);
  });
});

describe.each(maskedWays)('row operations with %s', (_name, mask, way) => {
  it(`agree with the reference in ${shareName}`, async () => {
    expect(await failures(test, rmsNormRule, dealt(rmsNormCases(), way), { mask })).toEqual([]);
    expect(await failures(test, argmaxRule, dealt(argmaxCases(), way), { mask })).toEqual([]);
  });
});

describe('operations on the session', () => {
  it('agree with the reference in every case', async () => {
    expect(await failures(test, () => lastRowRule, lastRowCases())).toEqual([]);
    expect(await failures(test, () => advanceRule, advanceCases())).toEqual([]);
  });
});
