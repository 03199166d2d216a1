import { beforeAll, describe, expect, it } from 'vitest';
import type { OpCase } from '../../src/ops/case.js';
import { dotCase, dotCases, layerNormCases, logSoftmaxCases, longSumCase, reduceCases, softmaxCases } from '../../src/ops/cases/reduce.js';
import { caseFailures } from '../support/case-failures.js';
import { maskedWays } from '../support/masks.js';
import { openTestDevice, type TestDevice } from '../support/run-steps.js';
import { dealt, shareName } from '../support/share.js';

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

it.each<[string, () => readonly OpCase[]]>([
  ['reduce', reduceCases],
  ['dot', dotCases],
])(`%s agrees with the reference in ${shareName}`, async (_name, cases) => {
  expect(await caseFailures(test, dealt(cases()))).toEqual([]);
});

describe.each(maskedWays)('row operations with %s', (_name, mask, way) => {
  it.each<[string, () => readonly OpCase[]]>([
    ['softmax', softmaxCases],
    ['logSoftmax', logSoftmaxCases],
    ['layerNorm', layerNormCases],
  ])(`%s agrees with the reference in ${shareName}`, async (_op, cases) => {
    expect(await caseFailures(test, dealt(cases(), way), { mask })).toEqual([]);
  });
});

describe('twenty million elements', () => {
  it('are added up and multiplied within 1e-6 of the sum of the absolute terms', async () => {
    expect(await caseFailures(test, [longSumCase(20_000_000), dotCase(20_000_000, 5)])).toEqual([]);
  });

  it('are a distribution after softmax', async () => {
    const size = 5_000_000;
    const data = Float32Array.from({ length: size }, (_, i) => (i % 1000) / 100);
    const bytes = new Uint8Array(data.buffer);
    const params = { axis: 0 };
    const opCase: OpCase<'softmax'> = {
      name: 'long softmax',
      op: 'softmax',
      params,
      inputs: [{ role: 'input', type: { dtype: 'f32', shape: [size] }, bytes }],
      tolerance: { relative: 5e-6 },
    };
    expect(await caseFailures(test, [opCase])).toEqual([]);
  });
});
