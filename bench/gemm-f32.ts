/**
 * Products of f32 matrices, C = A B: what selection takes, every tile by the parts of the depth, and for a few lines every way to deal them out. By timestamps, the sum of the parts included.
 * Arguments: sizes as M,K,N (default: square, long and thin ones), --turned for B as [N, K], --checked.
 */

import type { GpuKernel } from '../src/core/kernel.js';
import { GpuDevice } from '../src/gpu/device.js';
import { gemmKernelOf, gemmTiles, selectGemm } from '../src/kernels/gemm/rule.js';
import type { GemmShape } from '../src/kernels/gemm/shape.js';
import { maxSkinny, type SkinnyPlan } from '../src/kernels/gemm/skinny.js';
import { gemmTileSize } from '../src/kernels/gemm/tile.js';
import { splitSumKernel } from '../src/kernels/matrix/split-sum.js';
import { type Job, jobOf, storageBuffer, timeJobs, warmUp } from './gpu-timer.js';
import { BenchArgs } from './support/args.js';
import type { BenchResult, Figure } from './support/result.js';

export const summary = 'products of f32 matrices by tile and parts of the depth';

const sizes: readonly (readonly [m: number, k: number, n: number])[] = [
  [1, 4096, 4096],
  [4096, 4096, 1],
  [4, 4096, 4096],
  [256, 4096, 256],
  [64, 4096, 64],
  [16, 4096, 4096],
  [64, 4096, 4096],
  [512, 512, 512],
  [1024, 1024, 1024],
  [1024, 4096, 1024],
  [2048, 2048, 2048],
  [256, 256, 256],
];

interface Candidate {
  readonly name: string;
  readonly kernel: GpuKernel;
  readonly splits: number;
}

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['turned', 'checked'] });
  const gpu = await GpuDevice.request({ checked: known.flag('checked') });
  const asked = known.rest.map((text) => text.split(',').map(Number));
  const figures: Figure[] = [];
  for (const [m = 0, k = 0, n = 0] of asked.length > 0 ? asked : sizes) {
    figures.push(...(await measure(gpu, { m, n, k, transposeA: false, transposeB: known.flag('turned'), alpha: 1 })));
  }
  return { adapter: gpu.adapterInfo.name, figures };
}

async function measure(gpu: GpuDevice, shape: GemmShape): Promise<readonly Figure[]> {
  const { m, n, k } = shape;
  const candidates = candidatesOf(shape, gpu);
  const [a, b, y] = [storageBuffer(gpu, m * k * 4), storageBuffer(gpu, k * n * 4), storageBuffer(gpu, m * n * 4)];
  const parts = storageBuffer(gpu, m * n * 4 * Math.max(...candidates.map(({ splits }) => splits)));
  const jobs = await Promise.all(
    candidates.map(async ({ kernel, splits }): Promise<Job[]> => {
      const product = await jobOf(gpu, kernel, [a, b, splits === 1 ? y : parts]);
      if (splits === 1) return [product];
      const sum = splitSumKernel({ splits, rows: m, outputs: n, columns: n, start: 0, bias: false, residual: 'none' });
      return [product, await jobOf(gpu, sum, [parts, y])];
    }),
  );
  await warmUp(gpu, jobs[0] ?? [], 60);
  const work = 2 * m * n * k;
  const rounds = Math.max(10, Math.min(200, Math.ceil(1e11 / work)));
  const title = `${m} x ${k} x ${n}${shape.transposeB ? ', b turned' : ''}`;
  console.error(title);
  const figures: Figure[] = [];
  for (const [i, { name }] of candidates.entries()) {
    const { median, least, most } = await timeJobs(gpu, jobs[i] ?? [], rounds);
    const [value, low, high] = [median, most, least].map((seconds) => work / seconds / 1e12);
    const figure = { name: `${title}: ${name}`, value: value ?? 0, least: low ?? 0, most: high ?? 0, samples: 5, unit: 'TFLOP/s', checks: gpu.checks } as const;
    figures.push({ ...figure, details: { us: median * 1e6 } });
    console.error(`  ${name.padEnd(40)} ${(median * 1e6).toFixed(1).padStart(8)} us ${figure.value.toFixed(1).padStart(6)} TFLOP/s`);
  }
  for (const buffer of [a, b, y, parts]) buffer.destroy();
  return figures;
}

function candidatesOf(shape: GemmShape, gpu: GpuDevice): readonly Candidate[] {
  const choice = selectGemm(shape, gpu.capabilities);
  const chosen = { name: `chosen: ${choice.reason}`, kernel: gemmKernelOf(shape, choice), splits: choice.splits };
  const { m, n, k } = shape;
  if (Math.min(m, n) <= maxSkinny) {
    const plans = [256, 512].flatMap((threads) =>
      [4, 8, 16, 32, 256].flatMap((lanes) => [4, 8].flatMap((unroll) => [1, 2, 4, 8].map((splits): SkinnyPlan => ({ threads, lanes, unroll, splits })))),
    );
    return [
      chosen,
      ...plans.map((plan) => ({
        name: `${plan.threads} threads, ${plan.lanes} lanes, ${plan.unroll} loads, ${plan.splits} parts`,
        kernel: gemmKernelOf(shape, { kind: 'skinny', plan, splits: plan.splits, reason: '' }),
        splits: plan.splits,
      })),
    ];
  }
  const tiled = gemmTiles
    .filter(({ padded, schedule }) => padded && schedule === 'double')
    .flatMap((tile) => {
      const count = Math.ceil(m / gemmTileSize(tile)[0]) * Math.ceil(n / gemmTileSize(tile)[1]);
      const depthTiles = Math.ceil(k / tile.depth);
      return [1, 2, 3, 4, 6, 8, 16, 32]
        .filter((splits) => splits === 1 || (count * splits <= 2200 && k / splits >= 64))
        .map((splits) => ({
          name: `${gemmTileSize(tile).join('x')}, ${splits} parts`,
          kernel: gemmKernelOf(shape, { kind: 'tile', tile, tiles: Math.ceil(depthTiles / splits), splits, reason: '' }),
          splits,
        }));
    });
  return [chosen, ...tiled];
}
