import { expect, test } from 'vitest';
import type { DType } from '../../src/core/dtype.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { mixedModel } from '../support/mixed-model.js';
import { makeDecoder, meanKl, referenceLogits } from '../support/models.js';

const ids = [3, 7, 11, 15, 19, 23, 27, 31, 40, 2, 60];

test.each<[string, readonly DType[]]>([
  ['all types', ['q6_k', 'q4_0', 'f16', 'q4_k', 'q5_k', 'q8_0', 'f32']],
  ['floats and blocks in turn', ['f32', 'q4_k']],
])('a model of %s is computed on the CPU as by f64', async (_name, types) => {
  const model = mixedModel(types, { layers: 2, width: 256, feedForward: 512 });
  const wanted = referenceLogits(model, ids);
  const backend = new CpuBackend();
  const decoder = await makeDecoder(backend, model);
  const { vocabulary } = model.config;
  expect(meanKl(wanted, await decoder.evaluate(ids), vocabulary)).toBeLessThan(1e-5);
  decoder.rewind(0);
  const single: number[] = [];
  for (const id of ids) single.push(...(await decoder.nextLogits([id])));
  expect(meanKl(wanted, single, vocabulary)).toBeLessThan(1e-5);
  decoder.dispose();
  backend.dispose();
});
