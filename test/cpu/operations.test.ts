import { afterAll, describe, expect, it } from 'vitest';
import { CpuDevice } from '../../src/cpu/executor.js';
import { allCases } from '../../src/ops/cases/index.js';
import { ownCases } from './support/own-cases.js';
import { runCase } from './support/run-case.js';

const device = new CpuDevice();
afterAll(() => device.dispose());

describe.each([
  ['the cases of all backends', allCases()],
  ['cases of its own', ownCases()],
])('the CPU backend passes %s', (_, cases) => {
  it.each(cases.map((entry) => [entry.name, entry] as const))('%s', async (_name, entry) => {
    const outcome = await runCase(device, entry);
    expect(outcome.worst, outcome.where).toBeLessThanOrEqual(1);
  });
});
