import { describe, expect, test } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import type { DType } from '../../src/core/dtype.js';
import type { TensorType } from '../../src/core/tensor.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { ProductEnd } from '../../src/kernels/decode/product.js';
import { floatKernel } from '../../src/kernels/decode/product-float.js';
import { type ProductTypes, selectFloat, selectProductPath } from '../../src/kernels/decode/product-float-select.js';
import { type FloatProblem, floatBytes, floatGroups, floatOutputs } from '../../src/kernels/decode/product-float-shape.js';
import type { ActivationChoice } from '../../src/kernels/decode/select.js';
import { gpuTarget } from '../../src/kernels/target.js';
import { gpuWeightStore } from '../../src/kernels/weights.js';
import { weightLayout } from '../../src/kernels/weights-layout.js';
import { lower } from '../../src/plan/lower.js';

const sized = (size: number, changes: Partial<GpuCapabilities> = {}): GpuCapabilities => ({
  ...baseCapabilities,
  ...{ subgroups: true, subgroupMinSize: size, subgroupMaxSize: size, packedDot: true, ...changes },
});
const large = sized(32, {
  limits: {
    ...baseCapabilities.limits,
    maxStorageBuffersPerShaderStage: 10,
    maxComputeInvocationsPerWorkgroup: 1024,
    maxComputeWorkgroupSizeX: 1024,
    maxComputeWorkgroupStorageSize: 49_152,
  },
});
const devices: readonly (readonly [name: string, capabilities: GpuCapabilities])[] = [
  ['a large device', large],
  ...[4, 8, 32, 128].map((size) => [`the least device with subgroups of ${size}`, sized(size)] as const),
  ['a device whose subgroups vary', sized(8, { subgroupMaxSize: 64 })],
  ['the least device', baseCapabilities],
  ['a rasteriser', sized(8, { software: true })],
];

const problemOf = (dtype: DType, depth: number, rows: number, end: ProductEnd, best: number | undefined): FloatProblem => {
  const matrix = { layout: weightLayout({ dtype, shape: [rows, depth] }), start: 0, biasStart: undefined };
  return { depth, matrices: end === 'gated' ? [matrix, matrix] : [matrix], eps: 1e-5, end, plain: true, best };
};

describe.each(devices)('products with f32 activations on %s', (_, capabilities) => {
  const { limits, subgroupMinSize, subgroupMaxSize } = capabilities;
  const sizes = [[64, 5] as const, [1024, 3072] as const, [8960, 1536] as const, [4096, 14_336] as const, [28_672, 8192] as const];
  const all = sizes.flatMap(([depth, rows]) =>
    (['f32', 'f16', 'q8_0'] as const).flatMap((dtype) =>
      (['none', 'residual', 'gated'] as const).flatMap((end) =>
        (end === 'none' ? [undefined, 0] : [undefined]).map((best) => ({ dtype, depth, rows, end, best })),
      ),
    ),
  );

  test.each(all)('of $dtype weights, $depth columns and $rows rows, end $end, best $best, fit it', ({ dtype, depth, rows, end, best }) => {
    const problem = problemOf(dtype, depth, rows, end, best);
    const shape = selectFloat(problem, capabilities);
    const threads = shape.lanes * shape.teams;
    expect(threads).toBeLessThanOrEqual(limits.maxComputeInvocationsPerWorkgroup);
    expect(floatBytes(problem, shape)).toBeLessThanOrEqual(limits.maxComputeWorkgroupStorageSize);
    expect([shape.teams % shape.split, shape.rows % shape.together]).toEqual([0, 0]);
    if (end === 'gated') expect([shape.rows % 2, shape.split]).toEqual([0, 1]);
    // Every result of a workgroup is finished by a thread of its own.
    const outputs = floatOutputs(end, shape);
    expect(outputs).toBeLessThanOrEqual(threads);
    const covered = floatGroups(problem, shape).map((groups) => groups * outputs);
    expect(covered.every((count) => count >= rows && count - rows < outputs)).toBe(true);
    // Subgroups of a size that is not known add up nothing.
    const known = subgroupMinSize > 0 && subgroupMinSize === subgroupMaxSize;
    expect(shape.adding).toBe(known ? 'subgroup' : 'memory');
    expect(floatKernel(problem, shape).features).toEqual(known ? ['subgroups'] : []);
  });
});

describe('the path of a product', () => {
  const weight = (dtype: DType = 'q4_k', rows = 2048, columns = 2048): TensorType => ({ dtype, shape: [rows, columns] });
  const pathOf = (product: Partial<ProductTypes>, choice: ActivationChoice = 'auto', capabilities = large) =>
    selectProductPath({ weights: [weight()], end: 'none', vectors: 3, ...product }, choice, gpuWeightStore(capabilities), capabilities);

  test.each<[string, Partial<ProductTypes>, ActivationChoice, GpuCapabilities, string, string]>([
    ['packed weights', {}, 'auto', large, 'int8', 'the device multiplies 8-bit activations fast'],
    ['float weights', { weights: [weight('f16')] }, 'auto', large, 'f32', 'weights of type f16 take f32 activations'],
    ['a device without packed dots', {}, 'auto', { ...large, packedDot: false }, 'f32', 'the device has no dot products of packed bytes'],
    ['a device without subgroups', {}, 'int8', { ...large, subgroups: false }, 'f32', 'the device has no subgroups of one size of 8 or more'],
    ['f32 that is asked for', {}, 'f32', large, 'f32', 'activations are kept in f32'],
    ['few columns', { weights: [weight('q8_0', 2048, 512)] }, 'auto', large, 'f32', '512 columns are few: activations stay in f32'],
    ['a head in two bindings', { weights: [weight('q8_0', 128_256, 2048)] }, 'auto', large, 'f32', 'a weight takes several bindings'],
    ['a rasteriser', {}, 'auto', { ...large, software: true }, 'steps', 'a rasteriser has no fast dot products'],
    ['a rasteriser with f32', {}, 'f32', { ...large, software: true }, 'f32', 'activations are kept in f32'],
    ['odd columns', { weights: [weight('f32', 64, 66)] }, 'f32', large, 'steps', 'activations are kept in f32; 66 columns are no multiple of 4'],
    [
      'too many bindings',
      { weights: [weight(), weight(), weight()], vectors: 6 },
      'f32',
      sized(32),
      'steps',
      'activations are kept in f32; it binds 9 buffers, and the device 8',
    ],
    [
      'gate and up of different kinds',
      { weights: [weight('f16'), weight('f32')], end: 'gated' },
      'f32',
      large,
      'steps',
      'activations are kept in f32; gate and up have weights of different kinds',
    ],
    [
      'values in two bindings',
      { weights: [weight(), weight(), weight('f32', 20_000, 2048)] },
      'f32',
      large,
      'steps',
      'activations are kept in f32; a weight of several takes more than one binding',
    ],
  ])('of %s', (_, product, choice, capabilities, path, reason) => {
    expect(pathOf(product, choice, capabilities)).toEqual({ path, reason });
  });
});

describe('lowered steps', () => {
  const vector = (width: number): TensorType => ({ dtype: 'f32', shape: [1, width] });
  const gainType: TensorType = { dtype: 'f32', shape: [1024] };

  test('hand each product the form that it reads', () => {
    const g = new GraphBuilder();
    const x = g.input('x', vector(1024));
    const gain = g.param('gain', gainType);
    const weight = (name: string, dtype: DType) => g.param(name, { dtype, shape: [1024, 1024] });
    // Halves, bytes, bytes, halves: 8-bit activations are made once where nobody has left them, and passed on where somebody has.
    const a = g.add('gatedProduct', { eps: 1e-5 }, [x, gain, weight('gate', 'f16'), weight('up', 'f16')], 'a');
    const b = g.add('tokenLinear', { bias: false, residual: true }, [a, weight('b', 'q8_0'), x], 'b');
    const c = g.add('tokenLinear', { bias: false, residual: true }, [b, weight('c', 'q8_0'), x], 'c');
    g.output('y', g.add('tokenLinear', { bias: false, residual: true }, [c, weight('d', 'f32'), x], 'd'));
    const { steps } = lower(g.build(), gpuTarget(large));
    expect(steps.map(({ kernel }) => kernel.family)).toEqual(['token_product_f32', 'pack_activations', 'token_product', 'token_product', 'token_product_f32']);
  });

  test('of a head in several bindings leave the best of each where the choice finds them', () => {
    const g = new GraphBuilder();
    const x = g.input('x', vector(1024));
    const w = g.param('w', { dtype: 'f16', shape: [100_000, 1024] });
    const logits = g.add('tokenLinear', { bias: false, residual: false, eps: 1e-5 }, [x, g.param('gain', gainType), w], 'head');
    const state = g.state('state', { dtype: 'u32', shape: [65] });
    g.output('next', g.add('chooseNext', {}, [state, logits], 'choose'));
    const { steps, values } = lower(g.build(), gpuTarget(large));
    expect(steps.map(({ kernel }) => kernel.family)).toEqual(['token_product_f32', 'token_product_f32', 'choose_token']);
    const groups = steps.slice(0, -1).map(({ kernel }) => kernel.workgroups[0] * kernel.workgroups[1]);
    const pairs = steps[0]?.args.at(-1)?.value ?? -1;
    expect(steps[1]?.args.at(-1)?.value).toBe(pairs);
    expect(values.get(pairs)?.type.shape).toEqual([groups.reduce((sum, count) => sum + count, 0), 2]);
  });
});
