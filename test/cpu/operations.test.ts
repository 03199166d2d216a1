import { afterAll, describe, expect, it } from 'vitest';
import { CpuDevice } from '../../src/cpu/executor.js';
import { isPackedType } from '../../src/cpu/formats.js';
import type { OpCase } from '../../src/ops/case.js';
import { allCases } from '../../src/ops/cases/index.js';
import { ownCases } from './support/own-cases.js';
import { runCase } from './support/run-case.js';

const device = new CpuDevice();
afterAll(() => device.dispose());

/** Accepted beyond a case's tolerance, relative to the largest value: activations meet packed weights in 16 bits, a rounding of 2^-16 of the largest one of a unit. */
function activationRounding(entry: OpCase): number {
  return entry.op === 'linear' && isPackedType(entry.inputs[1]?.type.dtype ?? 'f32') ? 4e-5 : 0;
}

describe.each([
  ['the cases of all backends', allCases()],
  ['cases of its own', ownCases()],
])('the CPU backend passes %s', (_, cases) => {
  it.each(cases.map((entry) => [entry.name, entry] as const))('%s', async (_name, entry) => {
    const outcome = await runCase(device, entry, activationRounding(entry));
    expect(outcome.worst, outcome.where).toBeLessThanOrEqual(1);
  });
});
