import { describe, expect, test } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import type { DType } from '../../src/core/dtype.js';
import type { TensorType } from '../../src/core/tensor.js';
import { activationBlock } from '../../src/kernels/decode/activations.js';
import { type ProductEnd, type ProductProblem, productBytes, productGroups, productKernel, productOutputs } from '../../src/kernels/decode/product.js';
import { type ActivationChoice, refuseProduct, selectProduct } from '../../src/kernels/decode/select.js';
import { fitShape } from '../../src/kernels/decode/tuned.js';
import { gpuWeightStore } from '../../src/kernels/weights.js';
import { weightLayout } from '../../src/kernels/weights-layout.js';

const sized = (size: number, changes: Partial<GpuCapabilities> = {}): GpuCapabilities => ({
  ...baseCapabilities,
  ...{ subgroups: true, subgroupMinSize: size, subgroupMaxSize: size, packedDot: true, ...changes },
});
const large = sized(32, {
  limits: { ...baseCapabilities.limits, maxComputeInvocationsPerWorkgroup: 1024, maxComputeWorkgroupSizeX: 1024, maxComputeWorkgroupStorageSize: 49_152 },
});
const devices: readonly (readonly [name: string, capabilities: GpuCapabilities])[] = [
  ['a large device', large],
  ...[8, 16, 32, 64, 128].map((size) => [`the least device with subgroups of ${size}`, sized(size)] as const),
];

/** Columns and rows of products that models have, and of the smallest that are taken. */
const sizes = [
  [64, 32],
  [1024, 3072],
  [2048, 1024],
  [1536, 8960],
  [8960, 1536],
  [4096, 4096],
  [14_336, 4096],
  [4096, 14_336],
  [28_672, 8192],
] as const;

function problemOf(depth: number, results: number, end: ProductEnd, best: boolean): ProductProblem {
  const matrix = { layout: weightLayout({ dtype: 'q8_0', shape: [results, depth] }), start: 0, bias: false };
  return {
    ...{ depth, end, best, eps: 1e-5, plain: true },
    matrices: end === 'gated' ? [matrix, matrix] : [matrix],
    packed: end === 'none' ? 'none' : 'plain',
  };
}

describe.each(devices)('products of a decode step on %s', (_, capabilities) => {
  const { limits, subgroupMinSize } = capabilities;
  const all = sizes.flatMap(([depth, results]) =>
    [['none', false] as const, ['none', true] as const, ['residual', false] as const, ['gated', false] as const].map(
      ([end, best]) => [depth, results, end, best] as const,
    ),
  );

  test.each(all)('of %s columns and %s rows, end %s, best %s, fit it', (depth, results, end, best) => {
    const shape = selectProduct({ depth, results, end, best }, capabilities);
    const problem = problemOf(depth, results, end, best);
    const outputs = productOutputs(end, shape);
    expect(shape.subgroups * subgroupMinSize).toBeLessThanOrEqual(limits.maxComputeInvocationsPerWorkgroup);
    expect(productBytes(problem, shape)).toBeLessThanOrEqual(limits.maxComputeWorkgroupStorageSize);
    // What is asked of measured shapes holds for the shipped ones.
    expect(fitShape({ depth, results, end, best }, shape, capabilities)).toEqual(shape);
    // Whole blocks, and no partial workgroup, where results are packed.
    if (end !== 'none') expect([outputs % activationBlock, results % outputs]).toEqual([0, 0]);
    if (end !== 'none') expect(outputs / 4).toBeLessThanOrEqual(shape.subgroups * subgroupMinSize);
    const covered = productGroups(problem, shape).map((groups) => groups * outputs);
    expect(covered.every((rows) => rows >= results && rows - results < outputs)).toBe(true);
    expect(productKernel(problem, shape).workgroupSize[0]).toBe(shape.subgroups * subgroupMinSize);
  });
});

test('a large device gets the shapes that measured best', () => {
  const shape = (depth: number, results: number, end: ProductEnd, best = false): readonly number[] => {
    const { subgroups, lanes, rows, together, split, ahead } = selectProduct({ depth, results, end, best }, large);
    return [subgroups, lanes, rows, together, split, ahead];
  };
  expect(shape(4096, 14_336, 'gated')).toEqual([16, 16, 4, 2, 1, 1]);
  expect(shape(1536, 8960, 'gated')).toEqual([8, 16, 4, 4, 1, 1]);
  expect(shape(14_336, 4096, 'residual')).toEqual([16, 32, 1, 1, 1, 1]);
  expect(shape(4096, 4096, 'residual')).toEqual([8, 16, 4, 4, 2, 2]);
  expect(shape(8192, 2048, 'residual')).toEqual([16, 32, 1, 1, 1, 4]);
  expect(shape(3072, 1024, 'residual')).toEqual([8, 16, 2, 2, 1, 6]);
  expect(shape(4096, 128_256, 'none', true)).toEqual([4, 16, 4, 4, 1, 1]);
});

test('long inputs that workgroup memory cannot hold are read from where they are', () => {
  expect(selectProduct({ depth: 28_672, results: 8192, end: 'residual', best: false }, sized(32)).staged).toBe(false);
  expect(selectProduct({ depth: 28_672, results: 8192, end: 'residual', best: false }, large).staged).toBe(true);
});

describe('8-bit activations', () => {
  const weight = (dtype: DType = 'q4_k', rows = 2048, columns = 2048): TensorType => ({ dtype, shape: [rows, columns] });
  const refusal = (weights: TensorType[], choice: ActivationChoice = 'auto', capabilities = large, results: number | undefined = undefined) =>
    refuseProduct(weights, results, choice, gpuWeightStore(capabilities), capabilities);

  test('are taken for packed weights of some depth', () => {
    for (const dtype of ['q4_0', 'q8_0', 'q4_k', 'q5_k', 'q6_k'] as const) expect(refusal([weight(dtype)])).toBeUndefined();
    expect(refusal([weight('q8_0', 64, 128)], 'int8')).toBeUndefined();
  });

  test.each([
    ['the caller wants f32', refusal([weight()], 'f32'), 'activations are kept in f32'],
    ['packed dots are missing', refusal([weight()], 'auto', { ...large, packedDot: false }), 'the device has no dot products of packed bytes'],
    ['subgroups are missing', refusal([weight()], 'int8', { ...large, subgroups: false }), 'the device has no subgroups of one size of 8 or more'],
    ['subgroups vary', refusal([weight()], 'int8', { ...large, subgroupMaxSize: 64 }), 'the device has no subgroups of one size of 8 or more'],
    ['a CPU renders', refusal([weight()], 'auto', { ...large, software: true }), 'a rasteriser has no fast dot products'],
    ['columns are few', refusal([weight('q8_0', 2048, 512)]), '512 columns are few: activations stay in f32'],
    ['one weight is not packed', refusal([weight(), weight('f16')]), 'weights of type f16 take f32 activations'],
    ['results are no whole blocks', refusal([weight()], 'auto', large, 2040), 'the widths are not multiples of 64 and 32'],
    ['a weight is sharded', refusal([weight('q8_0', 128_256, 2048)]), 'a weight takes several bindings'],
  ])('are refused where %s', (_, reason, wanted) => {
    expect(reason).toBe(wanted);
  });
});
