import { afterAll, beforeAll, expect, test } from 'vitest';
import type { GpuKernel } from '../../src/core/kernel.js';
import { byteLengthOfType } from '../../src/core/tensor.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { activationType, packsActivations, refuseSubgroups } from '../../src/kernels/decode/activations.js';
import { chooseKernel } from '../../src/kernels/decode/choose.js';
import { type ProductProblem, type ProductShape, productKernel } from '../../src/kernels/decode/product.js';
import { workgroupThreads } from '../../src/kernels/decode/select.js';
import { subgroupRange } from '../../src/kernels/template.js';
import { weightLayout } from '../../src/kernels/weights-layout.js';
import { attendTokenCases, chooseNextCases, gatedProductCases, qkvCases, tokenLinearCases } from '../../src/ops/cases/decode.js';
import { stateWord, stateWords } from '../../src/ops/state.js';
import type { Storage } from '../../src/runtime/backend.js';
import { checkCase } from '../../src/runtime/check.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { fixture } from '../support/fixtures.js';
import { expectedOf, largestDifference, makeDecoder, meanKl, readModel, referenceLogits } from '../support/models.js';

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

// Block decoding and unrolled text cost a rasteriser seconds to compile: one or two cases of each kind here, all of them by `doctor --check` on a GPU.
const others = [...attendTokenCases().filter((_, i) => [1, 3, 6, 10, 18].includes(i)), ...chooseNextCases()];
const packedCases = [
  ...others,
  ...tokenLinearCases().filter((_, i) => [2, 3, 9, 11].includes(i)),
  ...qkvCases().filter((_, i) => [1, 2].includes(i)),
  ...gatedProductCases().filter((_, i) => [1, 2].includes(i)),
];
const floatCases = [
  ...others,
  ...tokenLinearCases().filter((_, i) => [1, 3, 9].includes(i)),
  ...qkvCases().filter((_, i) => i === 1),
  ...gatedProductCases().filter((_, i) => i === 1),
];

test.each([
  ['8-bit activations', packed, packedCases],
  ['f32 activations', plain, floatCases],
] as const)(
  'fused operations of a decode step agree with their reference: %s',
  async (_, index, cases) => {
    for (const opCase of cases) expect(await checkCase(backendOf(index), opCase)).toMatchObject({ ok: true });
  },
  300_000,
);

/** Runs a kernel once over these storages. */
async function dispatch(backend: WebGpuBackend, kernel: GpuKernel, storages: readonly Storage[]): Promise<void> {
  const { gpu } = backend;
  const pipeline = await gpu.pipelines.get(kernel);
  const bindings = storages.map((storage) => ({ buffer: backend.bufferOf(storage) }));
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, gpu.pipelines.bindGroup(kernel, bindings));
  pass.dispatchWorkgroups(...kernel.workgroups);
  pass.end();
  gpu.queue.submit([encoder.finish()]);
}

/** Results of a product whose activations and weights are noise, as bits. */
async function productOf(backend: WebGpuBackend, problem: ProductProblem, shape: ProductShape): Promise<Uint32Array> {
  const kernel = productKernel(problem, shape);
  const inputs = [byteLengthOfType(activationType(problem.depth)), ...problem.matrices.map(({ layout }) => layout.byteLength)];
  const outputBytes = (problem.matrices[0]?.layout.rows ?? 0) * 4;
  const storages = await Promise.all([...inputs, outputBytes].map((size) => backend.allocate('product', size, 'arena')));
  for (const [i, storage] of storages.slice(0, -1).entries()) {
    // Scales in activations and weights alike: without one bit of the exponent none is infinite.
    const words = Uint32Array.from({ length: storage.byteLength / 4 }, (_, at) => Math.imul(at + 7 * i + 1, 2_654_435_761) & 0x33ff_33ff);
    await backend.write(storage, 0, new Uint8Array(words.buffer));
  }
  await dispatch(backend, kernel, storages);
  const [output] = storages.slice(-1);
  if (output === undefined) throw new Error('nothing was allocated');
  const results = new Uint32Array(Uint8Array.from(await backend.read({ storage: output, offset: 0, byteLength: outputBytes })).buffer);
  for (const storage of storages) storage.free();
  return results;
}

/** Whether the device takes no 8-bit activations, for one of the reasons there are. */
function refused({ gpu }: WebGpuBackend): boolean {
  const reason = packsActivations(gpu.capabilities);
  if (reason !== undefined) expect(reason).toMatch(/subgroups|packed bytes/);
  return reason !== undefined;
}

test('a product is the same whichever rows are read side by side and however far ahead', async () => {
  const backend = backendOf(packed);
  const { capabilities } = backend.gpu;
  if (refused(backend)) return;
  const matrix = { layout: weightLayout({ dtype: 'q4_k', shape: [32, 512] }), start: 0, bias: false };
  const problem: ProductProblem = { depth: 512, matrices: [matrix, matrix], eps: undefined, end: 'gated', plain: true, packed: 'none', best: false };
  const size = capabilities.subgroupMinSize;
  const base = { subgroupSize: size, subgroups: 8, lanes: size, split: 1, staged: true, halves: 'integers' } as const;
  const wanted = await productOf(backend, problem, { ...base, rows: 4, together: 4, ahead: 1 });
  expect(new Set(wanted).size).toBeGreaterThan(16);
  for (const [together, ahead] of [
    [2, 2],
    [1, 3],
  ] as const)
    expect(await productOf(backend, problem, { ...base, rows: 4, together, ahead })).toEqual(wanted);
}, 300_000);

test('the choice finds the best of many pairs, the first of equals, whatever the threads and subgroups', async () => {
  const backend = backendOf(packed);
  const { gpu } = backend;
  const threads = workgroupThreads(gpu.capabilities);
  // Eight loads of 256 threads are fewer: where a workgroup may be larger, this one is.
  const pairs = Uint32Array.from({ length: 2 * 3000 }, (_, i) => (i % 2 === 1 ? 10 * i : Math.imul(i + 1, 2_654_435_761) >>> 4));
  for (const [place, index] of [
    [2999, 77],
    [1500, 76],
    [3, 78],
  ] as const)
    pairs.set([0xf000_0000, index], 2 * place);
  for (const subgroups of [subgroupRange(gpu.capabilities), undefined]) {
    const kernel = chooseKernel(pairs.length / 2, subgroups, threads);
    expect(kernel.workgroupSize[0]).toBe(subgroups?.min === subgroups?.max && threads >= 512 ? 512 : 256);
    const state = await backend.allocate('state', stateWords(1) * 4, 'arena');
    const list = await backend.allocate('pairs', pairs.byteLength, 'arena');
    await backend.write(state, 0, new Uint8Array(Uint32Array.from({ length: stateWords(1) }, (_, i) => (i === 0 ? 5 : i === 1 ? 2 : 0)).buffer));
    await backend.write(list, 0, new Uint8Array(pairs.buffer));
    await dispatch(backend, kernel, [state, list]);
    const words = new Uint32Array(Uint8Array.from(await backend.read({ storage: state, offset: 0, byteLength: stateWords(1) * 4 })).buffer);
    expect([words[stateWord.position], words[stateWord.rows], words[stateWord.token], words[stateWord.steps], words[stateWord.ids]]).toEqual([7, 1, 76, 1, 76]);
    for (const storage of [state, list]) storage.free();
  }
});

test('a token attends to its own value as the cache keeps it', async () => {
  const { ids } = await expectedOf('llama3');
  const decoder = await makeDecoder(backendOf(plain), await readModel(fixture('gguf/llama3.gguf')), { cacheType: 'f16' });
  try {
    // The first of two rows and the first token alone see one position, whose value is all that they attend to: unrounded it moves these logits by 0.012.
    const rows = await decoder.evaluate(ids.slice(0, 2));
    decoder.rewind(0);
    const first = await decoder.nextLogits(ids.slice(0, 1));
    expect(largestDifference(first, rows.subarray(0, first.length))).toBeLessThan(2e-3);
  } finally {
    decoder.dispose();
  }
});

/** The largest difference of two vectors of f32 bits, over the largest number of the first. */
function relativeDifference(wanted: Uint32Array, got: Uint32Array): number {
  const [a, b] = [new Float32Array(wanted.buffer), new Float32Array(got.buffer)];
  return (
    a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? Number.NaN))), 0) / a.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  );
}

test.each([
  ['gated', 'q4_k', 32, { subgroups: 8, rows: 4, together: 4, split: 1, ahead: 2 }],
  ['none', 'q6_k', 35, { subgroups: 4, rows: 2, together: 2, split: 2, ahead: 1 }],
] as const)(
  'a product of end %s, %s, is the same where a part of a subgroup shares a row',
  async (end, dtype, rows, shape) => {
    const backend = backendOf(packed);
    const { capabilities } = backend.gpu;
    if (refused(backend)) return;
    // 24 blocks: 3 steps of 8 lanes, 6 of 4; in two parts 2, the second not full, and 3.
    const matrix = { layout: weightLayout({ dtype, shape: [rows, 768] }), start: 0, bias: false };
    const matrices = end === 'gated' ? [matrix, matrix] : [matrix];
    const problem: ProductProblem = { depth: 768, matrices, eps: undefined, end, plain: true, packed: 'none', best: false };
    const size = capabilities.subgroupMinSize;
    const of = (lanes: number): Promise<Uint32Array> => productOf(backend, problem, { ...shape, subgroupSize: size, lanes, staged: true, halves: 'integers' });
    const wanted = await of(size);
    expect(new Set(wanted).size).toBeGreaterThan(16);
    expect(relativeDifference(wanted, await of(size / 2))).toBeLessThan(1e-6);
  },
  300_000,
);

test('the best of a product are the same where a part of a subgroup shares a row', async () => {
  const backend = backendOf(packed);
  const { capabilities } = backend.gpu;
  if (refused(backend)) return;
  const matrix = { layout: weightLayout({ dtype: 'q8_0', shape: [30, 256] }), start: 0, bias: false };
  const problem: ProductProblem = { depth: 256, matrices: [matrix], eps: undefined, end: 'none', plain: false, packed: 'none', best: true };
  const size = capabilities.subgroupMinSize;
  const base = { subgroupSize: size, subgroups: 2, rows: 4, together: 2, split: 1, ahead: 1, staged: false, halves: 'integers' } as const;
  const places = async (lanes: number): Promise<Uint32Array> => (await productOf(backend, problem, { ...base, lanes })).filter((_, i) => i % 2 === 1 && i < 8);
  const plain = new Float32Array((await productOf(backend, { ...problem, plain: true, best: false }, { ...base, lanes: size })).buffer);
  const wanted = [0, 8, 16, 24].map((start) => {
    const part = [...plain.slice(start, start + 8)];
    return start + part.indexOf(Math.max(...part));
  });
  expect([...(await places(size))]).toEqual(wanted);
  expect([...(await places(size / 2))]).toEqual(wanted);
}, 300_000);

test('a fused decode step hands its forms on as a plain one hands values', async () => {
  const { ids: all, vocabulary } = await expectedOf('llama3');
  const ids = all.slice(0, 5);
  const model = await readModel(fixture('gguf/llama3.Q8_0.gguf'));
  const decoder = await makeDecoder(backendOf(packed), model, { cacheType: 'f16' });
  try {
    // Where the device has no subgroups of 8 or more, attention stays plain, and the report says so.
    const applied = decoder.rewrites.filter((entry) => entry.applied).map((entry) => entry.rule);
    const attends = refuseSubgroups(backendOf(packed).gpu.capabilities) === undefined;
    for (const rule of ['qkv', 'attendToken']) expect(applied.includes(rule)).toBe(attends);
    expect(applied).toContain('gatedProduct');
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
    // No token was chosen to go on from.
    await expect(decoder.continueGreedy()).rejects.toMatchObject({ code: 'E_ARGUMENT' });
    // A step of one row: no rounding of activations to 8 bits hides one that is no number among others.
    const gain = new Float32Array(model.config.width).fill(1).fill(Number.NaN, 5, 6);
    await decoder.tensors.write('output_norm.weight', new Uint8Array(gain.buffer));
    decoder.rewind(0);
    await expect(decoder.nextToken(ids.slice(0, 1))).rejects.toMatchObject({ code: 'E_NUMERICAL' });
  } finally {
    decoder.dispose();
  }
}, 300_000);
