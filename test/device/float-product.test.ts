import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TensorType } from '../../src/core/tensor.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { floatKernel } from '../../src/kernels/decode/product-float.js';
import { selectFloat } from '../../src/kernels/decode/product-float-select.js';
import { type FloatProblem, type FloatShape, floatGroups } from '../../src/kernels/decode/product-float-shape.js';
import { weightLayout } from '../../src/kernels/weights-layout.js';
import { gatedProductCases, qkvCases, tokenLinearCases } from '../../src/ops/cases/decode.js';
import { randomWeight, seededRandom } from '../../src/ops/cases/weight-data.js';
import { checkCase } from '../../src/runtime/check.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { dealt, shareName } from '../support/share.js';

let backend: WebGpuBackend;
beforeAll(async () => {
  backend = new WebGpuBackend(await GpuDevice.request({ checked: true }));
});
afterAll(() => backend.dispose());

/** Results, and the pairs of the best where the problem leaves them, from the same activations and weights in every shape. */
async function resultsOf(problem: FloatProblem, shape: FloatShape): Promise<{ readonly y: Float32Array; readonly pairs: Uint32Array }> {
  const { gpu } = backend;
  const kernel = floatKernel(problem, shape);
  const random = seededRandom(7);
  const rows = problem.matrices.reduce((sum, { layout }) => sum + layout.rows, 0);
  const floats = (count: number): Uint8Array => new Uint8Array(Float32Array.from({ length: count }, () => random() * 2 - 1).buffer);
  const biases = problem.matrices.filter(({ biasStart }) => biasStart !== undefined);
  const inputs = [
    ...[floats(problem.depth), ...(problem.eps === undefined ? [] : [floats(problem.depth)])].map((bytes) => [{ offset: 0, bytes }]),
    ...problem.matrices.map(({ layout: { dtype, rows: count } }) => {
      const weight = randomWeight(dtype, count, problem.depth, random);
      return backend.weights.pack(weight.type, 0, weight.bytes);
    }),
    ...[...biases, ...(problem.end === 'residual' ? [problem] : [])].map(() => [{ offset: 0, bytes: floats(rows) }]),
  ];
  const groups = floatGroups(problem, shape).reduce((sum, count) => sum + count, 0);
  const storages = await Promise.all(
    inputs.map(async (writes) => {
      const size = Math.max(...writes.map(({ offset, bytes }) => offset + bytes.byteLength));
      const storage = await backend.allocate('product', Math.ceil(size / 16) * 16, 'arena');
      for (const { offset, bytes } of writes) await backend.write(storage, offset, bytes);
      return storage;
    }),
  );
  const outputs = [await backend.allocate('product', rows * 4, 'arena')];
  if (problem.best !== undefined) outputs.push(await backend.allocate('product', groups * 8, 'arena'));
  const pipeline = await gpu.pipelines.get(kernel);
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(
    0,
    gpu.pipelines.bindGroup(
      kernel,
      [...storages, ...outputs].map((storage) => ({ buffer: backend.bufferOf(storage) })),
    ),
  );
  pass.dispatchWorkgroups(...kernel.workgroups);
  pass.end();
  gpu.queue.submit([encoder.finish()]);
  const read = await Promise.all(outputs.map((storage) => backend.read({ storage, offset: 0, byteLength: storage.byteLength })));
  for (const storage of [...storages, ...outputs]) storage.free();
  const [y, pairs] = read.map((bytes) => Uint8Array.from(bytes).buffer);
  return { y: new Float32Array(y ?? new ArrayBuffer()), pairs: new Uint32Array(pairs ?? new ArrayBuffer()) };
}

function matrix(type: TensorType, start: number, biasStart?: number): FloatProblem['matrices'][number] {
  return { layout: weightLayout(type), start, biasStart };
}

// A rasteriser gets one plain loop: the shapes of other devices are compared with it, on the adapter's own subgroups and without any.
const halves = (rows: number, depth: number): TensorType => ({ dtype: 'f16', shape: [rows, depth] });
const none = { eps: undefined, end: 'none', plain: true, best: undefined } as const;
const problems: readonly (readonly [name: string, problem: FloatProblem, changes: Partial<FloatShape>])[] = [
  // 17 chunks of f16 (the last half empty) and 33 of f32, rows that no workgroup divides.
  [
    'norm, biases, matrices of two kinds, a row split',
    { ...none, depth: 132, eps: 1e-5, matrices: [matrix(halves(37, 132), 0, 0), matrix({ dtype: 'f32', shape: [9, 132] }, 37, 0)] },
    { teams: 4, rows: 2, together: 1, split: 2, ahead: 2 },
  ],
  [
    'gated, four rows together',
    { ...none, depth: 200, eps: 1e-5, end: 'gated', matrices: [matrix(halves(11, 200), 0), matrix(halves(11, 200), 0)] },
    { teams: 2, rows: 4, together: 4, split: 1, ahead: 2 },
  ],
  // Many steps, which are looped over; activations read from where they are.
  [
    'residual, long rows, not staged',
    { ...none, depth: 8208, end: 'residual', matrices: [matrix(halves(6, 8208), 0)] },
    { teams: 2, rows: 2, together: 2, split: 1, ahead: 2, staged: false },
  ],
  [
    'norm and best, not staged',
    { ...none, depth: 100, eps: 1e-5, best: 0, matrices: [matrix(halves(29, 100), 0)] },
    { teams: 4, rows: 1, together: 1, split: 1, ahead: 1, staged: false },
  ],
];

test.each(dealt(problems))(
  `a product with f32 activations is the same in every shape, in ${shareName}: %s`,
  async (_, problem, changes) => {
    const base = selectFloat(problem, { ...backend.gpu.capabilities, software: true });
    const wanted = await resultsOf(problem, base);
    const largest = wanted.y.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    expect(largest).toBeGreaterThan(0.1);
    for (const shape of [
      { ...base, ...changes, split: base.adding === 'memory' ? 1 : (changes.split ?? 1) },
      { ...base, ...changes, adding: 'memory', lanes: 16, split: 1 },
    ] as const) {
      const got = await resultsOf(problem, shape);
      const error = got.y.reduce((most, value, i) => Math.max(most, Math.abs(value - (wanted.y[i] ?? Number.NaN))), 0);
      expect(error).toBeLessThan(2e-5 * largest);
      if (problem.best === undefined) continue;
      const winner = ({ pairs }: typeof got): number => {
        const ranks = [...pairs].filter((_, i) => i % 2 === 0);
        return pairs[2 * ranks.indexOf(Math.max(...ranks)) + 1] ?? -1;
      };
      expect([winner(got), winner(wanted)]).toEqual(Array(2).fill(wanted.y.indexOf(Math.max(...wanted.y))));
    }
  },
  300_000,
);

// Every operation and both kinds of blocks: those with minimums and those without.
const small = dealt([...tokenLinearCases().slice(1, 4), ...qkvCases().slice(0, 1), ...gatedProductCases().slice(1, 2), ...tokenLinearCases().slice(-4)]);

test('products with f32 activations agree with their reference where a device has no subgroups', async () => {
  const poor = new WebGpuBackend(await GpuDevice.request({ checked: true, mask: { subgroups: false, packedDot: false } }), { kernels: { activations: 'f32' } });
  try {
    for (const opCase of small) expect(await checkCase(poor, opCase)).toMatchObject({ ok: true });
  } finally {
    poor.dispose();
  }
}, 300_000);
