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
import { masks } from '../support/masks.js';
import { ruleFailures } from '../support/rule-failures.js';
import { failures, openTestDevice, type TestDevice } from '../support/run-steps.js';

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

describe.each([
  ['in a place of its own', false],
  ['in place', true],
])('elementwise operations %s', (_name, inPlace) => {
  it('agree with the reference in every case', async () => {
    expect(await ruleFailures(test, () => unaryRule, unaryCases(), { inPlace })).toEqual([]);
    expect(await ruleFailures(test, () => binaryRule, binaryCases(), { inPlace })).toEqual([]);
    expect(await ruleFailures(test, () => swigluRule, swigluCases(), { inPlace })).toEqual([]);
    expect(await failures(test, () => ropeRule, ropeCases(), { inPlace })).toEqual([]);
  });
});

describe.each(masks)('row operations with %s', (_name, mask) => {
  it('agree with the reference in every case', async () => {
    expect(await failures(test, rmsNormRule, rmsNormCases(), { mask })).toEqual([]);
    expect(await failures(test, argmaxRule, argmaxCases(), { mask })).toEqual([]);
  });
});

describe('operations on the session', () => {
  it('agree with the reference in every case', async () => {
    expect(await failures(test, () => lastRowRule, lastRowCases())).toEqual([]);
    expect(await failures(test, () => advanceRule, advanceCases())).toEqual([]);
  });
});
