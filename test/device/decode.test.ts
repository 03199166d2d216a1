import { afterAll, beforeAll, expect, test } from 'vitest';
import { GpuDevice } from '../../src/gpu/device.js';
import { packsActivations } from '../../src/kernels/decode/activations.js';
import { attendTokenCases, chooseNextCases, gatedProductCases, qkvCases, tokenLinearCases } from '../../src/ops/cases/decode.js';
import { checkCase } from '../../src/runtime/check.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { fixture } from '../support/fixtures.js';
import { expectedOf, makeDecoder, meanKl, readModel, referenceLogits } from '../support/models.js';

const devices: WebGpuBackend[] = [];
const [packed, plain] = [0, 1];

beforeAll(async () => {
  for (const activations of ['int8', 'f32'] as const) devices.push(new WebGpuBackend(await GpuDevice.request({ checked: true }), { kernels: { activations } }));
});
afterAll(() => {
  for (const device of devices) device.dispose();
});

function backendOf(index: number): WebGpuBackend {
  const backend = devices[index];
  if (backend === undefined) throw new Error('the device was not opened');
  return backend;
}

// Unrolled text costs a rasteriser seconds to compile: one or two cases of each kind here, all of them by `doctor --check` on a GPU.
const small = [
  ...attendTokenCases().filter((_, i) => [1, 3, 6, 10, 18].includes(i)),
  ...chooseNextCases(),
  ...tokenLinearCases().filter((_, i) => [2, 3, 9, 11].includes(i)),
  ...qkvCases().filter((_, i) => [1, 2].includes(i)),
  ...gatedProductCases().filter((_, i) => [1, 2].includes(i)),
];

test.each([
  ['8-bit activations', packed],
  ['f32 activations', plain],
])(
  'fused operations of a decode step agree with their reference: %s',
  async (_, index) => {
    for (const opCase of small) expect(await checkCase(backendOf(index), opCase)).toMatchObject({ ok: true });
  },
  300_000,
);

test('a fused decode step hands its forms on as a plain one hands values', async () => {
  const { ids: all, vocabulary } = await expectedOf('llama3');
  const ids = all.slice(0, 5);
  const model = await readModel(fixture('gguf/llama3.Q8_0.gguf'));
  const decoder = await makeDecoder(backendOf(packed), model, { cacheType: 'f16' });
  try {
    // Where the device has no subgroups of 8 or more, the step stays plain, and the report says so for every operation.
    const applied = decoder.rewrites.filter((entry) => entry.applied).map((entry) => entry.rule);
    const fused = packsActivations(backendOf(packed).gpu.capabilities) === undefined;
    for (const rule of ['qkv', 'attendToken', 'gatedProduct']) expect(applied.includes(rule)).toBe(fused);
    const logits = new Float32Array(ids.length * vocabulary);
    for (const [i, id] of ids.entries()) logits.set(await decoder.nextLogits([id]), i * vocabulary);
    // Random weights of 256 columns: 8-bit activations move these logits by about a hundredth, a wrong form would by several.
    expect(meanKl(referenceLogits(model, ids), logits, vocabulary)).toBeLessThan(0.05);
    const stepwise = [await decoder.nextToken([all[5] ?? 0])];
    for (let i = 0; i < 6; i++) stepwise.push(await decoder.continueGreedy(1));
    decoder.rewind(ids.length);
    const ahead = [await decoder.nextToken([all[5] ?? 0])];
    for (let i = 0; i < 6; i++) ahead.push(await decoder.continueGreedy());
    expect(ahead).toEqual(stepwise);
    // What ran ahead is forgotten, and the cache is as if it had not.
    decoder.rewind(ids.length + 3);
    expect(await decoder.nextToken(stepwise.slice(2, 3))).toBe(stepwise[3]);
    await decoder.tensors.write('output_norm.weight', new Uint8Array(new Float32Array(model.config.width).fill(Number.NaN).buffer));
    await expect(decoder.nextToken(ids)).rejects.toMatchObject({ code: 'E_NUMERICAL' });
    await expect(decoder.continueGreedy()).rejects.toMatchObject({ code: 'E_NUMERICAL' });
  } finally {
    decoder.dispose();
  }
}, 300_000);
