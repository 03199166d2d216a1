import { beforeAll, describe, expect, it } from 'vitest';
import { baseCapabilities, type GpuCapabilities, maskCapabilities } from '../../src/core/capabilities.js';
import type { GpuKernel } from '../../src/core/kernel.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { rewrite } from '../../src/graph/rewrite.js';
import { attentionMatrixKernel, selectMatrixAttention } from '../../src/kernels/attention/matrix.js';
import { matrixAttentionBytes } from '../../src/kernels/attention/matrix-layout.js';
import type { AttentionProblem } from '../../src/kernels/attention/text.js';
import { swigluKernel } from '../../src/kernels/elementwise.js';
import { type GemmProblem, gemmBytes, gemmKernel, gemmStore } from '../../src/kernels/matrix/gemm.js';
import { dequantiseKernel, halvesKernel, turnedHalvesKernel } from '../../src/kernels/matrix/halves.js';
import { gemmTileShapes, hasMatrices, leastMatrixRows, selectMatrix } from '../../src/kernels/matrix/linear.js';
import { matrixRounding } from '../../src/kernels/matrix/rounding.js';
import { normKernel, selectNorm } from '../../src/kernels/norm.js';
import { gpuTarget } from '../../src/kernels/target.js';
import { weightLayout, weightTypes } from '../../src/kernels/weights-layout.js';
import type { OpCase } from '../../src/ops/case.js';
import { attentionCases } from '../../src/ops/cases/attention.js';
import { linearCases } from '../../src/ops/cases/linear.js';
import { stateWords } from '../../src/ops/state.js';
import { planGraph } from '../../src/plan/plan.js';
import { openShaderCompiler, type ShaderCompiler } from '../support/shader-compiler.js';

const matrices: GpuCapabilities = {
  ...baseCapabilities,
  limits: { ...baseCapabilities.limits, maxComputeWorkgroupStorageSize: 49_152, maxStorageBufferBindingSize: 2 ** 31 - 4, maxBufferSize: 2 ** 40 },
  f16: true,
  subgroups: true,
  subgroupMinSize: 32,
  subgroupMaxSize: 32,
  subgroupMatrices: [{ componentType: 'f16', resultComponentType: 'f32', m: 16, n: 16, k: 16 }],
};

const attention = (changes: Partial<AttentionProblem> = {}): AttentionProblem => ({
  rows: 128,
  heads: 8,
  kvHeads: 2,
  width: 128,
  capacity: 500,
  keys: 'f16',
  values: 'f16',
  scale: 0.1,
  ...changes,
});

describe('matrices are chosen', () => {
  it.each([
    ['without f16', { f16: false }],
    ['without subgroups', { subgroups: false }],
    ['without matrices', { subgroupMatrices: false }],
  ] as const)('on no device %s', (_name, mask) => {
    const poorer = maskCapabilities(matrices, mask);
    expect(hasMatrices(poorer)).toBe(false);
    expect(selectMatrix({ rows: 2048, outputs: 4096, depth: 4096 }, poorer)).toBeUndefined();
    expect(selectMatrixAttention(attention(), poorer)).toBeUndefined();
  });

  it('on no device whose subgroups vary in size, or whose matrices are of another size or type', () => {
    expect(hasMatrices({ ...matrices, subgroupMinSize: 16 })).toBe(false);
    expect(hasMatrices({ ...matrices, subgroupMatrices: [{ componentType: 'f16', resultComponentType: 'f16', m: 16, n: 16, k: 16 }] })).toBe(false);
    expect(hasMatrices({ ...matrices, subgroupMatrices: [{ componentType: 'f16', resultComponentType: 'f32', m: 16, n: 8, k: 16 }] })).toBe(false);
    expect(hasMatrices(matrices)).toBe(true);
  });

  it('from a number of rows on, which tests may lower', () => {
    const shape = { rows: leastMatrixRows - 1, outputs: 512, depth: 512 };
    expect(selectMatrix(shape, matrices)).toBeUndefined();
    expect(selectMatrix(shape, matrices, 2)).toBeDefined();
    expect(selectMatrix({ ...shape, rows: leastMatrixRows }, matrices)).toBeDefined();
  });

  it.each([
    [2048, 14_336, 4096, 128, 128, 1],
    [2048, 4096, 14_336, 128, 128, 1],
    [2048, 1024, 4096, 128, 128, 2],
    [512, 4096, 14_336, 128, 128, 2],
    [128, 4096, 14_336, 128, 128, 8],
    [32, 14_336, 4096, 64, 64, 1],
    [2048, 512, 64, 64, 64, 1],
  ])('with tiles and parts for %d x %d x %d', (rows, outputs, depth, tileRows, tileColumns, splits) => {
    expect(selectMatrix({ rows, outputs, depth }, matrices)).toMatchObject({ tile: { rows: tileRows, columns: tileColumns }, splits });
  });

  it('with smaller tiles where workgroup memory is the guaranteed one', () => {
    const choice = selectMatrix({ rows: 2048, outputs: 4096, depth: 4096 }, { ...matrices, limits: baseCapabilities.limits });
    expect(choice && gemmBytes(choice.tile)).toBeLessThanOrEqual(baseCapabilities.limits.maxComputeWorkgroupStorageSize);
    expect(choice?.reason).toContain('f16 matrices, tiles of 128x64');
  });

  it('for attention with heads that matrices divide, where workgroup memory holds a tile', () => {
    for (let width = 8; width <= 272; width += 8) {
      const choice = selectMatrixAttention(attention({ width }), matrices);
      expect(choice !== undefined).toBe(width % 16 === 0 && width <= 256);
      if (choice !== undefined) expect(matrixAttentionBytes(attention({ width }), choice.shape)).toBeLessThanOrEqual(49_152);
    }
    expect(selectMatrixAttention(attention(), { ...matrices, limits: baseCapabilities.limits })).toBeUndefined();
    expect(selectMatrixAttention(attention({ rows: 2 }), matrices)).toBeUndefined();
  });
});

/** The steps of y = x w^T for a weight of a type, and another product of the same x. */
function productSteps(dtype: 'f32' | 'f16' | 'q4_0', rows: number, outputs: number, depth: number) {
  const g = new GraphBuilder();
  const x = g.input('x', { dtype: 'f32', shape: [rows, depth] });
  g.output('y', g.linear(x, g.param('w', { dtype, shape: [outputs, depth] }), { rounded: true }, 'y'));
  g.output('z', g.linear(x, g.param('v', { dtype, shape: [outputs, depth] }), { rounded: true }, 'z'));
  return planGraph(g.build(), gpuTarget(matrices)).steps;
}

const familiesOf = (steps: readonly { readonly kernel: GpuKernel }[]): readonly string[] => steps.map(({ kernel }) => kernel.family);

describe('the steps of a product of many rows', () => {
  it('make x f16 once for all its products, and each weight before its own', () => {
    const steps = productSteps('q4_0', 256, 256, 256);
    expect(familiesOf(steps)).toEqual(['to_f16', 'weights_to_f16', 'gemm_f16', 'weights_to_f16', 'gemm_f16']);
  });

  it('read f16 weights where they are', () => {
    expect(familiesOf(productSteps('f16', 256, 256, 256))).toEqual(['to_f16', 'gemm_f16', 'gemm_f16']);
    expect(familiesOf(productSteps('f16', 256, 256, 100))).toEqual(['to_f16', 'weights_to_f16', 'gemm_f16', 'weights_to_f16', 'gemm_f16']);
  });

  it('keep f32 weights in f32', () => {
    expect(new Set(familiesOf(productSteps('f32', 256, 256, 256)))).toEqual(new Set(['matmul']));
  });

  it('decode a large weight in slabs', () => {
    const steps = productSteps('q4_0', 256, 40_000, 4096).filter(({ kernel }) => kernel.family === 'weights_to_f16');
    expect(steps.length).toBe(6);
    const scratch = steps.map(({ args }) => args[1]?.location.byteLength ?? 0);
    expect(Math.max(...scratch)).toBeLessThanOrEqual(2 ** 27);
    expect(scratch.slice(0, 3).reduce((a, b) => a + b)).toBe(40_000 * 4096 * 2);
  });

  it('add up the parts of a split depth', () => {
    expect(familiesOf(productSteps('q4_0', 64, 128, 8192))).toContain('split_sum');
  });
});

describe('f16 as the form of values between kernels', () => {
  /** A norm that two products read, a gate of theirs, and a product of that, all of many rows; `plain`: the norm's own values are wanted too. */
  function stepsOf({ plain = false, capabilities = matrices, width = 256 } = {}) {
    const g = new GraphBuilder();
    const weight = (name: string, rows: number, columns: number): number => g.param(name, { dtype: 'f16', shape: [rows, columns] });
    const normed = g.rmsNorm(g.input('x', { dtype: 'f32', shape: [64, width] }), g.param('gain', { dtype: 'f32', shape: [width] }), 1e-5);
    const [gate, up] = ['gate', 'up'].map((name) => g.linear(normed, weight(name, 128, width), { rounded: true }, name));
    g.output('y', g.linear(g.add('swiglu', {}, [gate ?? -1, up ?? -1]), weight('down', width, 128), { rounded: true }, 'down'));
    if (plain) g.output('normed', normed);
    return planGraph(g.build(), gpuTarget(capabilities)).steps;
  }
  const halves = (steps: ReturnType<typeof stepsOf>): readonly string[] =>
    steps.filter(({ kernel }) => kernel.wgsl().includes('pack4(')).map(({ kernel }) => kernel.family);

  it('is what a norm and a gate leave for products of many rows', () => {
    const steps = stepsOf();
    expect(familiesOf(steps)).toEqual(['rms_norm', 'gemm_f16', 'gemm_f16', 'swiglu', 'gemm_f16']);
    expect(halves(steps)).toEqual(['rms_norm', 'swiglu']);
  });

  it('is made by a pass of its own where the plain values are wanted too, or rows need padding', () => {
    expect(familiesOf(stepsOf({ plain: true }))).toEqual(['rms_norm', 'to_f16', 'gemm_f16', 'gemm_f16', 'swiglu', 'gemm_f16']);
    expect(familiesOf(stepsOf({ width: 248 })).slice(0, 3)).toEqual(['rms_norm', 'to_f16', 'weights_to_f16']);
  });

  it('is nothing on devices without matrices', () => {
    expect(halves(stepsOf({ capabilities: maskCapabilities(matrices, { subgroupMatrices: false }) }))).toEqual([]);
  });

  it('passes from attention through a reshape', () => {
    const g = new GraphBuilder();
    const state = g.state('session', { dtype: 'u32', shape: [stateWords(64)] });
    const cache = (name: string): number => g.state(name, { dtype: 'f16', shape: [2, 128, 64] });
    const q = g.input('q', { dtype: 'f32', shape: [64, 4, 64] });
    const attended = g.reshape(g.attention(q, cache('keys'), cache('values'), state, { scale: 0.1 }), [64, 256]);
    g.output('y', g.linear(attended, g.param('w', { dtype: 'f16', shape: [128, 256] }), { rounded: true }));
    const steps = planGraph(g.build(), gpuTarget(matrices)).steps;
    expect(familiesOf(steps)).toEqual(['attention_matrix', 'gemm_f16']);
    expect(halves(steps)).toEqual(['attention_matrix']);
  });
});

describe('the steps of a product of two matrices', () => {
  const steps = (options: { rounded?: boolean; alpha?: number; relu?: boolean }, size = 256, capabilities = matrices): readonly string[] => {
    const g = new GraphBuilder();
    const product = g.matmul(g.input('a', { dtype: 'f32', shape: [size, size] }), g.input('b', { dtype: 'f32', shape: [size, size] }), options);
    g.output('y', options.relu === true ? g.unary('relu', product) : product);
    return familiesOf(planGraph(rewrite(g.build(), { regions: true }).graph, gpuTarget(capabilities)).steps);
  };

  it('use matrices only where rounding is asked for, the sides are long enough, and the device has them', () => {
    expect(steps({ rounded: true }, 2048)).toEqual(['to_f16', 'to_f16_turned', 'gemm_f16']);
    for (const family of [...steps({}), ...steps({ rounded: true }, 96), ...steps({ rounded: true }, 256, baseCapabilities)])
      expect(family).not.toContain('f16');
  });

  it('finish the product in one more', () => {
    expect(steps({ rounded: true, alpha: 2 }, 2048)).toEqual(['to_f16', 'to_f16_turned', 'gemm_f16', 'split_sum']);
    expect(steps({ rounded: true, relu: true }, 2048)).toEqual(['to_f16', 'to_f16_turned', 'gemm_f16', 'split_sum']);
  });
});

describe('the text of kernels on matrices', () => {
  let compiler: ShaderCompiler;
  beforeAll(async () => {
    compiler = await openShaderCompiler();
  });

  const problem: GemmProblem = { rows: 128, outputs: 128, depth: 512, columns: 128, start: 0, bias: false, residual: 'none', splits: 1 };
  const problems: readonly (readonly [GemmProblem, string])[] = [
    [problem, 'direct'],
    [{ ...problem, residual: 'read' }, 'direct'],
    [{ ...problem, residual: 'inPlace' }, 'direct'],
    [{ ...problem, splits: 2 }, 'direct'],
    [{ ...problem, bias: true, residual: 'read', columns: 256, start: 128 }, 'staged'],
    [{ ...problem, rows: 100, outputs: 130, columns: 130, residual: 'inPlace' }, 'staged'],
    [{ ...problem, rows: 100, outputs: 130, columns: 130, splits: 4 }, 'staged'],
  ];

  it.each(gemmTileShapes.map((tile) => [`${tile.rows}x${tile.columns}`, tile] as const))('is valid for products in tiles of %s', async (_name, tile) => {
    for (const [one, store] of problems) {
      expect(gemmStore(one, tile)).toBe(store);
      expect(await compiler.errors(gemmKernel(one, tile, 32))).toEqual([]);
    }
  });

  it('differs in key wherever it differs', () => {
    const kernels = gemmTileShapes.flatMap((tile) => problems.map(([one]) => gemmKernel(one, tile, 32)));
    expect(new Set(kernels.map(({ key }) => key)).size).toBe(kernels.length);
    expect(new Set(kernels.map((kernel) => kernel.wgsl())).size).toBe(kernels.length);
  });

  it.each(weightTypes)('is valid for decoding %s', async (dtype) => {
    expect(await compiler.errors(dequantiseKernel(weightLayout({ dtype, shape: [64, 256] }), 8, 16, 256))).toEqual([]);
  });

  it('is valid for activations of any width', async () => {
    for (const columns of [64, 60, 61]) expect(await compiler.errors(halvesKernel(3, columns, 64))).toEqual([]);
  });

  it('is valid for producers of f16', async () => {
    const one = attention({ width: 64 });
    const shape = selectMatrixAttention(one, matrices)?.shape;
    expect(shape && (await compiler.errors(attentionMatrixKernel(one, shape, true)))).toEqual([]);
    expect(await compiler.errors(swigluKernel(256, 'half'))).toEqual([]);
    for (const width of [256, 40_000]) expect(await compiler.errors(normKernel(4, width, 1e-5, selectNorm(4, width, matrices), undefined, true))).toEqual([]);
  });

  it('clears what workgroups share before they read it: unchecked devices do not', () => {
    const one = attention({ width: 64 });
    const shape = selectMatrixAttention(one, matrices)?.shape;
    const text = shape === undefined ? '' : attentionMatrixKernel(one, shape).wgsl();
    const walk = text.indexOf('for (var tile');
    expect(text.slice(0, walk)).toContain('atomicStore(&grown, 0u)');
    expect(text.slice(text.indexOf('atomicStore(&grown, 0u)'), walk)).toContain('workgroupBarrier()');
  });

  it('is valid for matrices that are turned', async () => {
    for (const [lines, k] of [
      [128, 128],
      [33, 70],
    ] as const)
      expect(await compiler.errors(turnedHalvesKernel(lines, k, 128))).toEqual([]);
  });

  it.each([16, 48, 64, 80, 96, 128, 160, 256])('is valid for attention with heads of %d', async (width) => {
    for (const cache of ['f16', 'f32'] as const) {
      const one = attention({ width, keys: cache, values: cache });
      const shape = selectMatrixAttention(one, matrices)?.shape;
      expect(shape && (await compiler.errors(attentionMatrixKernel(one, shape)))).toEqual([]);
    }
  });

  it.each([
    { window: 40 },
    { softcap: 30 },
    { sinks: true },
    { window: 40, softcap: 30, sinks: true },
    { keys: 'q8_planes', values: 'q8_planes' },
    { keys: 'q8_planes', values: 'q8_planes', sinks: true, softcap: 30, window: 40 },
  ] as const)('is valid for attention with %o', async (extras) => {
    const one = attention({ width: 64, ...extras });
    const shape = selectMatrixAttention(one, matrices)?.shape;
    const kernel = shape && attentionMatrixKernel(one, shape);
    expect(kernel && (await compiler.errors(kernel))).toEqual([]);
    expect(kernel?.bindings.length).toBeLessThanOrEqual(8);
  });
});

describe('what f16 operands may add to an error', () => {
  const cases: readonly OpCase[] = [...linearCases(), ...attentionCases()];

  it('is nothing where matrices are not used', () => {
    for (const opCase of cases) expect(matrixRounding(opCase, baseCapabilities)).toBeUndefined();
    const f32 = linearCases().filter(({ inputs }) => inputs[1]?.type.dtype === 'f32');
    for (const opCase of f32) expect(matrixRounding(opCase, matrices, 1)).toBeUndefined();
  });

  it('is small beside the results, and has one number for each', () => {
    const used = cases.filter((opCase) => matrixRounding(opCase, matrices) !== undefined);
    expect(used.length).toBeGreaterThan(20);
    for (const opCase of used.filter(({ op }) => op === 'linear')) {
      const rounding = matrixRounding(opCase, matrices) ?? new Float64Array();
      const [x, w] = opCase.inputs;
      expect(rounding.length).toBe((x?.type.shape[0] ?? 0) * (w?.type.shape[0] ?? 0));
      expect(rounding.every((value) => value >= 0 && Number.isFinite(value))).toBe(true);
    }
    for (const opCase of used.filter(({ op }) => op === 'attention')) {
      const rounding = matrixRounding(opCase, matrices) ?? new Float64Array();
      expect(rounding.length).toBe((opCase.inputs[0]?.type.shape ?? []).reduce((a, b) => a * b, 1));
      expect(rounding.every((value) => value > 0 && value < 0.1)).toBe(true);
    }
  });
});
