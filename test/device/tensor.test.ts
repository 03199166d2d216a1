import { beforeAll, expect, it } from 'vitest';
import type { OpCase } from '../../src/ops/case.js';
import {
  castCases,
  compareCases,
  convCases,
  cumsumCases,
  longCumsumCase,
  movementCases,
  regionCases,
  tileReduceCases,
  topKCases,
  whereCases,
} from '../../src/ops/cases/tensor.js';
import { caseFailures } from '../support/case-failures.js';
import { openTestDevice, type TestDevice } from '../support/run-steps.js';
import { dealt, shareName } from '../support/share.js';

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

/** A product in tiles: lavapipe compiles its text for seconds. */
const slow = ({ op, inputs }: OpCase): boolean => op === 'conv2d' && (inputs[1]?.type.shape[0] ?? 0) >= 16;

it.each<[string, () => readonly OpCase[]]>([
  ['compare', compareCases],
  ['where', whereCases],
  ['cast', castCases],
  ['concat, gather, permute, expand and slice', movementCases],
  ['cumsum', cumsumCases],
  ['topK', topKCases],
  ['conv2d', convCases],
  ['tileReduce', tileReduceCases],
  ['region', regionCases],
])(`%s: agrees with the reference in ${shareName}`, async (_name, cases) => {
  expect(await caseFailures(test, dealt(cases(), { slow }))).toEqual([]);
});

it('cumsum: is exact over millions of small whole numbers', async () => {
  expect(await caseFailures(test, [longCumsumCase(2_200_000)])).toEqual([]);
});
