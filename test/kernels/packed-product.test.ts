import { beforeAll, describe, expect, it } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { packRowsKernel } from '../../src/kernels/dp4a/activations.js';
import { leastPackedRows, type PackedShape, packedTiles, refusePacked, selectPacked } from '../../src/kernels/dp4a/linear.js';
import { packedKernel, packedTileBytes, packedTileSize } from '../../src/kernels/dp4a/product.js';
import { packedRounding } from '../../src/kernels/dp4a/rounding.js';
import { type GpuTargetOptions, gpuTarget } from '../../src/kernels/target.js';
import { weightLayout, weightTypes } from '../../src/kernels/weights-layout.js';
import { linearCases } from '../../src/ops/cases/linear.js';
import { planGraph } from '../../src/plan/plan.js';
import { openShaderCompiler, type ShaderCompiler } from '../support/shader-compiler.js';

const dots: GpuCapabilities = { ...baseCapabilities, packedDot: true };
const roomy: GpuCapabilities = { ...dots, limits: { ...dots.limits, maxComputeWorkgroupStorageSize: 49_152 } };
const shape = (changes: Partial<PackedShape> = {}): PackedShape => ({ rows: 2048, outputs: 4096, depth: 4096, dtype: 'q4_k', ...changes });

describe('8-bit activations of many rows', () => {
  it.each([
    ['without packed dot products', shape(), baseCapabilities, 'no dot products'],
    ['for few rows', shape({ rows: leastPackedRows - 1 }), dots, 'few rows'],
    ['for weights that are not packed', shape({ dtype: 'f16' }), dots, 'f16'],
    ['on a rasteriser', shape(), { ...dots, software: true }, 'rasteriser'],
    ['where no instruction makes them', shape(), { ...dots, vendor: 'apple' }, 'no instruction'],
    ['for short sums', shape({ depth: 512 }), dots, '512 columns'],
  ])('are refused %s', (_name, problem, capabilities, reason) => {
    expect(refusePacked(problem, capabilities, 'auto')).toContain(reason);
    expect(selectPacked(problem, capabilities)).toBe(refusePacked(problem, capabilities, 'auto'));
  });

  it('are forced off, and on wherever they can be computed', () => {
    expect(refusePacked(shape(), dots, 'f32')).toContain('kept in f32');
    expect(refusePacked(shape({ depth: 256 }), { ...dots, software: true, vendor: 'apple' }, 'int8')).toBeUndefined();
    expect(refusePacked(shape({ dtype: 'f32' }), dots, 'int8')).toContain('f32');
  });
});

const chosen = (problem: PackedShape, capabilities: GpuCapabilities) => {
  const choice = selectPacked(problem, capabilities);
  if (typeof choice === 'string') throw new Error(choice);
  return choice;
};

describe('the tile of a product of 8-bit activations', () => {
  it('fits the guaranteed limits', () => {
    for (const rows of [9, 16, 33, 64, 128, 512, 2048]) {
      for (const outputs of [32, 1024, 4096, 128_256]) {
        const { tile } = chosen(shape({ rows, outputs }), dots);
        expect(packedTileBytes(tile)).toBeLessThanOrEqual(dots.limits.maxComputeWorkgroupStorageSize);
        expect(tile.threads[0] * tile.threads[1]).toBeLessThanOrEqual(256);
      }
    }
  });

  it.each([
    [2048, 4096, 4096, [64, 32], 1],
    [512, 14_336, 4096, [64, 32], 1],
    [2048, 1024, 4096, [64, 32], 1],
    // Too few tiles for a large GPU: the depth makes up for them.
    [64, 4096, 4096, [64, 32], 4],
    [64, 1024, 4096, [16, 64], 4],
    [9, 4096, 4096, [16, 64], 4],
  ])('of %i x %i x %i keeps a GPU busy', (rows, outputs, depth, tile, splits) => {
    const choice = chosen(shape({ rows, outputs, depth }), roomy);
    expect([packedTileSize(choice.tile), choice.splits]).toEqual([tile, splits]);
    expect(choice.reason).toContain(splits === 1 ? 'workgroups' : `in ${splits} parts`);
  });

  it('is a small one that a rasteriser compiles, where it is forced there', () => {
    const choice = selectPacked(shape(), { ...dots, software: true }, 'int8');
    expect(typeof choice === 'object' && [packedTileSize(choice.tile), choice.splits]).toEqual([[16, 16], 1]);
  });
});

/** The families of the steps of two products of one x. */
function families(capabilities: GpuCapabilities, options: GpuTargetOptions = {}): readonly string[] {
  const g = new GraphBuilder();
  const x = g.input('x', { dtype: 'f32', shape: [2048, 4096] });
  for (const name of ['v', 'w']) g.output(name, g.linear(x, g.param(name, { dtype: 'q4_k', shape: [4096, 4096] }), { rounded: true }, name));
  return planGraph(g.build(), gpuTarget({ ...capabilities, limits: { ...capabilities.limits, maxBufferSize: 2 ** 32 } }, options)).steps.map(
    ({ kernel }) => kernel.family,
  );
}

describe('the path of a product of many rows', () => {
  const matrices: GpuCapabilities = {
    ...roomy,
    f16: true,
    subgroups: true,
    subgroupMinSize: 32,
    subgroupMaxSize: 32,
    subgroupMatrices: [{ componentType: 'f16', resultComponentType: 'f32', m: 16, n: 16, k: 16 }],
  };

  it('is f16 matrices where there are any, then 8-bit activations, made once, then f32', () => {
    expect(families(matrices)).toContain('gemm_f16');
    expect(families(roomy)).toEqual(['to_int8', 'gemm_int8', 'gemm_int8']);
    expect(families(roomy, { activations: 'f32' })).toEqual(['matmul', 'matmul']);
    expect(families(baseCapabilities)).toEqual(['matmul', 'matmul']);
  });

  it('needs neither f16 nor subgroups', () => {
    expect(families({ ...dots, f16: false, subgroups: false })).toEqual(['to_int8', 'gemm_int8', 'gemm_int8']);
  });
});

describe('what 8-bit activations may add to an error', () => {
  it('is something for each output of a product that takes them, and nothing elsewhere', () => {
    const accepted = linearCases().map((opCase) => [opCase, packedRounding(opCase, dots, 'int8')] as const);
    for (const [{ params, inputs }, errors] of accepted) {
      const [x, w] = inputs;
      const takes = params.rounded === true && !['f32', 'f16', 'bf16'].includes(w?.type.dtype ?? 'f32');
      expect(errors?.length).toBe(takes ? (x?.type.shape[0] ?? 0) * (w?.type.shape[0] ?? 0) : undefined);
      expect(errors?.every((error) => error > 0 && Number.isFinite(error)) ?? true).toBe(true);
    }
    expect(accepted.filter(([, errors]) => errors !== undefined).length).toBeGreaterThan(6);
  });
});

describe('the text of kernels with 8-bit activations', () => {
  let compiler: ShaderCompiler;
  beforeAll(async () => {
    compiler = await openShaderCompiler();
  });
  const blockTypes = weightTypes.filter((dtype) => !['f32', 'f16', 'bf16'].includes(dtype));
  const problem = (dtype: (typeof weightTypes)[number]) =>
    ({ layout: weightLayout({ dtype, shape: [200, 768] }), start: 0, outputs: 200, rows: 130, bias: true, residual: 'inPlace', splits: 1 }) as const;

  it.each(blockTypes)('is valid for %s', async (dtype) => {
    const tile = packedTiles[0];
    expect(tile && (await compiler.errors(packedKernel(problem(dtype), tile)))).toEqual([]);
  });

  it('is valid for every tile, whole or in parts', async () => {
    for (const tile of packedTiles) {
      for (const splits of [1, 5]) expect(await compiler.errors(packedKernel({ ...problem('q6_k'), splits }, tile))).toEqual([]);
    }
    expect(await compiler.errors(packRowsKernel(3, 96))).toEqual([]);
  });
});
