import { afterAll, beforeAll, expect, test } from 'vitest';
import { GpuDevice } from '../../src/gpu/device.js';
import type { GpuTargetOptions } from '../../src/kernels/target.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { mixedModel } from '../support/mixed-model.js';
import { makeDecoder, meanKl, referenceLogits } from '../support/models.js';

let gpu: GpuDevice;
beforeAll(async () => {
  gpu = await GpuDevice.request({ checked: true });
});
afterAll(() => gpu.dispose());

const ids = [3, 7, 11, 15, 19];

/** Types of one layer's queries, keys, values, output and so on: no two neighbours alike, and floats among blocks. */
const model = mixedModel(['q6_k', 'q4_0', 'f16', 'q4_k', 'q5_k', 'q8_0', 'f32', 'q4_k', 'q8_0'], { layers: 1, width: 256, feedForward: 512 });

test.each<[string, GpuTargetOptions, number]>([
  ['with f32 activations', { activations: 'f32', leastMatrixRows: Number.POSITIVE_INFINITY }, 1e-9],
  ['with 8-bit activations wherever weights are blocks', { activations: 'int8' }, 1e-3],
])(
  'a model whose matrices have a type each decodes as by f64, %s',
  async (_name, kernels, tolerance) => {
    const backend = new WebGpuBackend(gpu, { owned: false, kernels });
    const decoder = await makeDecoder(backend, model, { prefillChunk: 4 });
    const { vocabulary } = model.config;
    const got: number[] = [];
    for (const id of ids) got.push(...(await decoder.nextLogits([id])));
    expect(meanKl(referenceLogits(model, ids), got, vocabulary)).toBeLessThan(tolerance);
    decoder.dispose();
    backend.dispose();
  },
  300_000,
);
