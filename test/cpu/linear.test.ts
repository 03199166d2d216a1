import { afterAll, describe, expect, it } from 'vitest';
import { CpuDevice } from '../../src/cpu/executor.js';
import { isPackedType } from '../../src/cpu/formats.js';
import { linearCases } from '../../src/ops/cases/linear.js';
import { gatherCases } from '../../src/ops/cases/gather.js';
import { runCase } from './support/run-case.js';

const device = new CpuDevice();
afterAll(() => device.dispose());

/** Activations are quantised to 16 bits: a rounding of 2^-16 of the largest one of a unit, which grows with the terms as the result does. */
const quantizedActivations = 4e-5;

describe('linear on the CPU', () => {
  it.each(linearCases().map((entry) => [entry.name, entry] as const))('%s', async (_, entry) => {
    const packed = isPackedType(entry.inputs[1]?.type.dtype ?? 'f32');
    const outcome = await runCase(device, entry, packed ? quantizedActivations : 0);
    expect(outcome.worst, outcome.where).toBeLessThanOrEqual(1);
  });
});

describe('gatherRows on the CPU', () => {
  it.each(gatherCases().map((entry) => [entry.name, entry] as const))('%s', async (_, entry) => {
    const outcome = await runCase(device, entry);
    expect(outcome.worst, outcome.where).toBeLessThanOrEqual(1);
  });
});
