import { beforeAll, describe, expect, it } from 'vitest';
import { bytesOf } from '../../src/core/bytes.js';
import { packedSteps } from '../../src/kernels/dp4a/linear.js';
import type { PackedTile } from '../../src/kernels/dp4a/product.js';
import { linearRule } from '../../src/kernels/linear.js';
import type { OpCase } from '../../src/ops/case.js';
import { floatInput, randomWeight, seededRandom } from '../../src/ops/cases/weight-data.js';
import { failures, openTestDevice, runCase, type TestDevice } from '../support/run-steps.js';
import { dealt, shareName } from '../support/share.js';

type PackedType = 'q8_0' | 'q4_0' | 'q4_1' | 'q5_0' | 'q5_1' | 'q4_k' | 'q5_k' | 'q6_k';

/**
 * Activations that 8 bits hold exactly: multiples of one step for each block of 32, the largest of them 127 steps (and one block of zeros). Rounding changes nothing, so that results must be as
 * near to the reference as f32 sums are.
 */
function exactRows(rows: number, columns: number, random: () => number): Float32Array {
  const values = new Float32Array(rows * columns);
  for (let block = 0; block < values.length; block += 32) {
    if (block === 32) continue;
    const step = 2 ** (Math.floor(random() * 5) - 9);
    for (let i = 0; i < 32; i++) values[block + i] = step * Math.round(random() * 254 - 127);
    values[block + Math.floor(random() * 32)] = step * (random() < 0.5 ? 127 : -127);
  }
  return values;
}

interface Sizes {
  readonly dtype: PackedType;
  readonly t: number;
  readonly k: number;
  readonly n: number;
  readonly bias?: boolean;
  readonly residual?: boolean;
}

function packedCase({ dtype, t, k, n, bias = false, residual = false }: Sizes): OpCase<'linear'> {
  const random = seededRandom(t + k + n);
  const x = { role: 'input', type: { dtype: 'f32', shape: [t, k] }, bytes: bytesOf(exactRows(t, k, random)) } as const;
  const added = [...(bias ? [floatInput('param', [n], random)] : []), ...(residual ? [floatInput('input', [t, n], random)] : [])];
  return {
    name: `${dtype} T${t} K${k} N${n}`,
    op: 'linear',
    params: { bias, residual, rounded: true },
    inputs: [x, randomWeight(dtype, n, k, random), ...added],
    tolerance: { relativeToMax: 1e-6 * Math.sqrt(Math.max(1, k / 16)) },
  };
}

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

/** 8-bit activations are for devices without f16 matrices: one that has them poses as one that does not. */
const mask = { subgroupMatrices: false } as const;

describe('products of 8-bit activations', () => {
  // Edges along both axes; a depth whose last stage is a part of one where the block allows.
  const cases = [
    packedCase({ dtype: 'q8_0', t: 17, k: 96, n: 19, bias: true }),
    packedCase({ dtype: 'q4_0', t: 16, k: 160, n: 32, residual: true }),
    packedCase({ dtype: 'q4_1', t: 9, k: 96, n: 18 }),
    packedCase({ dtype: 'q5_0', t: 18, k: 32, n: 33 }),
    packedCase({ dtype: 'q5_1', t: 20, k: 96, n: 16, bias: true, residual: true }),
    packedCase({ dtype: 'q4_k', t: 17, k: 512, n: 20 }),
    packedCase({ dtype: 'q5_k', t: 10, k: 256, n: 35, residual: true }),
    packedCase({ dtype: 'q6_k', t: 33, k: 512, n: 17, bias: true }),
  ];

  it(`agree with the reference for every block type in ${shareName}`, async () => {
    expect(test.capabilities.packedDot).toBe(true);
    expect(await failures(test, (capabilities) => linearRule(capabilities, { activations: 'int8' }), dealt(cases), { mask })).toEqual([]);
  });

  it('read activations that were made once, and a shard of the weight at a time', async () => {
    const opCase = packedCase({ dtype: 'q8_0', t: 17, k: 96, n: 40, bias: true });
    const rule = (capabilities: TestDevice['capabilities']) => linearRule(capabilities, { activations: 'int8' });
    const options = { mask: { ...mask, limits: { maxStorageBufferBindingSize: 2560 } } };
    expect(await failures(test, rule, [opCase], options)).toEqual([]);
    const { steps } = await runCase(test, rule, opCase, options);
    expect(steps.map(({ kernel }) => kernel.family)).toEqual(['to_int8', 'gemm_int8', 'gemm_int8']);
  });

  // Relatives of the tiles for GPUs, with fewer results to compile.
  const tiles: readonly (readonly [string, PackedTile, number])[] = [
    ['two blocks loaded ahead', { threads: [4, 8], results: [2, 2], blocks: 2, ahead: true }, 1],
    ['two blocks loaded ahead, the depth in two parts', { threads: [8, 16], results: [1, 2], blocks: 2, ahead: true }, 2],
    ['one block, the depth in three parts', { threads: [4, 8], results: [2, 1], blocks: 1, ahead: false }, 3],
  ];
  it.each(dealt(tiles))('agree in tiles of %s', async (_name, tile, splits) => {
    const rule = () => (node: Parameters<typeof packedSteps>[0], context: Parameters<typeof packedSteps>[1]) =>
      packedSteps(node, context, { tile, splits, reason: '' });
    const some = [packedCase({ dtype: 'q8_0', t: 19, k: 7 * 32, n: 37, bias: true, residual: true }), packedCase({ dtype: 'q6_k', t: 9, k: 256, n: 17 })];
    expect(await failures(test, rule, some, { mask })).toEqual([]);
  });
});
