import { beforeAll, describe, expect, it } from 'vitest';
import { baseCapabilities, type CapabilityMask } from '../../src/core/capabilities.js';
import { dtypes } from '../../src/core/dtype.js';
import { gatherRule } from '../../src/kernels/gather.js';
import { linearRule, matmulTiles, maxMatvecRows } from '../../src/kernels/linear.js';
import { linearSteps } from '../../src/kernels/linear-steps.js';
import { matmulKernel, tileSize } from '../../src/kernels/matmul.js';
import { type MatvecShape, matvecKernel } from '../../src/kernels/matvec.js';
import { gpuWeightStore } from '../../src/kernels/weights.js';
import { weightTypes } from '../../src/kernels/weights-layout.js';
import type { OpCase } from '../../src/ops/case.js';
import { gatherCases } from '../../src/ops/cases/gather.js';
import { linearCases } from '../../src/ops/cases/linear.js';
import { floatInput, randomWeight, seededRandom } from '../../src/ops/cases/weight-data.js';
import { caseError, failures, openTestDevice, runCase, type TestDevice } from '../support/run-steps.js';
import { dealt, shareName } from '../support/share.js';

const everyThird = <T>(list: readonly T[]): readonly T[] => list.filter((_, i) => i % 3 === 0);
const rowsOf = (opCase: OpCase): number => opCase.inputs[0]?.type.shape[0] ?? 0;

/** Several rows by a block type: the products of every row with every weight of a chunk are written out. */
const slow = (opCase: OpCase<'linear'>): boolean =>
  rowsOf(opCase) > 1 && rowsOf(opCase) <= maxMatvecRows && dtypes[opCase.inputs[1]?.type.dtype ?? 'f32'].block > 1;

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

describe('linear', () => {
  it.each(weightTypes)(`agrees with the reference for weights of type %s in ${shareName}`, async (dtype) => {
    const cases = linearCases().filter((opCase) => opCase.inputs[1]?.type.dtype === dtype);
    expect(cases.length).toBeGreaterThan(2);
    expect(await failures(test, linearRule, dealt(cases, { slow }))).toEqual([]);
  });

  it('loads several chunks and rows ahead', async () => {
    const random = seededRandom(3);
    const shape: MatvecShape = { team: 'tree', threads: 64, subgroupSize: 0, teamRows: 4, unroll: 2 };
    // Two rounds of two chunks a thread, one round more, and a part of a round.
    const cases = dealt([2, 1]).map((rows): OpCase<'linear'> => {
      const inputs = [floatInput('input', [rows, 5 * 64 * 32 + 320], random), randomWeight('q4_0', 6, 5 * 64 * 32 + 320, random)];
      return { name: `${rows} rows`, op: 'linear', params: { bias: false, residual: false }, inputs, tolerance: { relativeToMax: 3e-5 } };
    });
    expect(await failures(test, () => (node) => linearSteps(node, (problem) => matvecKernel(problem, shape)), cases)).toEqual([]);
  });

  it.each<[string, CapabilityMask, number]>([
    ['f16', { f16: false }, 0],
    ['subgroups', { subgroups: false }, 1],
    ['every feature and all but the guaranteed limits', { f16: false, subgroups: false, packedDot: false, limits: baseCapabilities.limits }, 2],
  ])(`agrees with the reference without %s in ${shareName}`, async (_name, mask, way) => {
    expect(await failures(test, linearRule, dealt(everyThird(linearCases()), { ways: 3, way, slow }), { mask })).toEqual([]);
  });

  it(`adds up subgroups whose size is known only at run time in ${shareName}`, async () => {
    const cases = dealt(
      everyThird(linearCases()).filter((opCase) => rowsOf(opCase) <= maxMatvecRows),
      { slow },
    );
    expect(test.capabilities.subgroups).toBe(true);
    expect(await failures(test, (capabilities) => linearRule({ ...capabilities, subgroupMinSize: 4, subgroupMaxSize: 128 }), cases)).toEqual([]);
  });

  it(`adds to a residual in place in ${shareName}`, async () => {
    const cases = everyThird(linearCases().filter((opCase) => opCase.params.residual));
    expect(cases.length).toBeGreaterThan(4);
    expect(await failures(test, linearRule, dealt(cases, { slow }), { inPlace: true })).toEqual([]);
  });

  it('multiplies shard by shard where a weight exceeds a binding', async () => {
    const mask = { limits: { maxStorageBufferBindingSize: 40_960 } };
    const store = gpuWeightStore({ ...baseCapabilities, limits: { ...baseCapabilities.limits, ...mask.limits } });
    // Every shard is a kernel to compile: a few cases with two or three.
    const count = (opCase: OpCase): number => (opCase.inputs[1] === undefined ? 0 : store.shards(opCase.inputs[1].type).length);
    const cases = linearCases()
      .filter((opCase) => [2, 3].includes(count(opCase)))
      .slice(0, 4);
    expect(cases.length).toBe(4);
    expect(await failures(test, linearRule, dealt(cases), { mask })).toEqual([]);
  });

  it('folds more outputs than a grid axis holds into two axes', async () => {
    const random = seededRandom(7);
    const inputs = [floatInput('input', [1, 1], random), randomWeight('f32', 1_100_001, 1, random)];
    const wide: OpCase<'linear'> = { name: 'wide', op: 'linear', params: { bias: false, residual: false }, inputs, tolerance: { relative: 1e-7 } };
    const { steps, got } = await runCase(test, linearRule, wide);
    expect(steps[0]?.kernel.workgroups).toEqual([34_376, 2, 1]);
    expect(caseError(wide, got).worst).toBeLessThanOrEqual(1);
  });

  it.each(dealt(matmulTiles, { slow: ({ schedule }) => schedule !== 'short' }).map((tile) => [`${tileSize(tile).join('x')} ${tile.schedule}`, tile] as const))(
    'multiplies in tiles of %s',
    async (_name, tile) => {
      const [x, w] = tileSize(tile);
      const random = seededRandom(x);
      // Beyond one tile along both axes, and of odd and even depth where tiles go in pairs.
      const cases = (tile.schedule === 'double' ? [4, 5] : [3]).map((tiles): OpCase<'linear'> => {
        const k = tiles * tile.depth;
        const inputs = [
          floatInput('input', [x + 3, k], random),
          randomWeight(tiles === 5 ? 'bf16' : 'f32', w + 8, k, random),
          floatInput('param', [w + 8], random),
        ];
        return { name: `K${k}`, op: 'linear', params: { bias: true, residual: false }, inputs, tolerance: { relativeToMax: 3e-6 } };
      });
      expect(await failures(test, () => (node) => linearSteps(node, (problem) => matmulKernel(problem, tile)), cases)).toEqual([]);
    },
  );
});

describe('gatherRows', () => {
  it(`agrees with the reference in ${shareName}`, async () => {
    expect(await failures(test, () => gatherRule, dealt(gatherCases()))).toEqual([]);
  });

  it('reads each row from the shard that holds it', async () => {
    const mask = { limits: { maxStorageBufferBindingSize: 4096 } };
    expect(await failures(test, () => gatherRule, dealt(everyThird(gatherCases())), { mask })).toEqual([]);
    const large = gatherCases().find((opCase) => opCase.name.startsWith('gatherRows f32 [65'));
    expect(large).toBeDefined();
    if (large !== undefined) expect((await runCase(test, () => gatherRule, large, { mask })).steps.length).toBeGreaterThan(1);
  });
});
