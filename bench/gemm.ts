/**
 * f16 matrix products with f32 sums on subgroup matrices, y [M, N] = a [M, K] w [N, K]^T: every tile, and what selection takes, in TFLOP/s. Each result is compared with f64 sums at
 * random places before it is timed. Arguments: sizes as M,N,K (default: 4096 cubed and the products of a prompt of 2048 tokens), --selected: not the other tiles, --checked.
 */

import { GpuDevice } from '../src/gpu/device.js';
import { type GemmProblem, type GemmTile, gemmKernel } from '../src/kernels/matrix/gemm.js';
import { gemmTileShapes, selectMatrix } from '../src/kernels/matrix/linear.js';
import { splitSumKernel } from '../src/kernels/matrix/split-sum.js';
import { halfToFloat } from '../src/quant/half.js';
import { type Job, jobOf, randomHalves, readBuffer, runJobs, storageBuffer, timeSteady } from './gpu-timer.js';
import { BenchArgs } from './support/args.js';
import type { BenchResult, Figure } from './support/result.js';

export const summary = 'f16 matrix products on subgroup matrices, by tile';

type Size = readonly [m: number, n: number, k: number];

const sizes: readonly Size[] = [
  [4096, 4096, 4096],
  [2048, 14336, 4096],
  [2048, 4096, 14336],
  [2048, 4096, 4096],
  [2048, 1024, 4096],
  [2048, 512, 2048],
  [2048, 2048, 2048],
  [2048, 1024, 1024],
  [2048, 1024, 2048],
  [2048, 1024, 3072],
  [512, 4096, 14336],
  [512, 4096, 4096],
  [512, 14336, 4096],
  [512, 1024, 3072],
  [128, 4096, 14336],
  [128, 14336, 4096],
  [128, 8192, 2048],
  [32, 14336, 4096],
  [32, 4096, 14336],
];

interface Operands {
  readonly size: Size;
  readonly a: GPUBuffer;
  readonly w: GPUBuffer;
  readonly y: GPUBuffer;
  readonly parts: GPUBuffer;
  readonly aBits: Uint16Array;
  readonly wBits: Uint16Array;
}

const mostSplits = 8;

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['selected', 'checked'] });
  const gpu = await GpuDevice.request({ checked: known.flag('checked') });
  console.error(`${gpu.adapterInfo.name}, ${gpu.checks}`);
  const figures: Figure[] = [];
  const asked = known.rest.map((text): Size => {
    const [m = 0, n = 0, k = 0] = text.split(',').map(Number);
    return [m, n, k];
  });
  for (const size of asked.length > 0 ? asked : sizes) {
    const figure = await measure(gpu, size, known.flag('selected'));
    if (figure !== undefined) figures.push(figure);
  }
  return { adapter: gpu.adapterInfo.name, figures };
}

async function measure(gpu: GpuDevice, size: Size, selectedOnly: boolean): Promise<Figure | undefined> {
  const [rows, outputs, depth] = size;
  const choice = selectMatrix({ rows, outputs, depth }, gpu.capabilities, 1);
  if (choice === undefined) {
    console.error('this device has no f16 matrices of 16 x 16 with f32 sums');
    return undefined;
  }
  const operands = prepare(gpu, size);
  const results: string[] = [];
  let selected: Figure | undefined;
  for (const tile of gemmTileShapes) {
    for (let splits = 1; splits <= mostSplits && depth % (splits * tile.depth) === 0; splits *= 2) {
      if (splits > 1 && (((rows / tile.rows) * outputs) / tile.columns) * splits > 1200) break;
      const chosen = tile === choice.tile && splits === choice.splits;
      if (selectedOnly && !chosen) continue;
      const jobs = await jobsOf(gpu, operands, tile, splits, choice.subgroupSize);
      await runJobs(gpu, jobs);
      const error = await worstError(gpu, operands);
      const { median, least, most } = await timeSteady(gpu, jobs);
      const rate = (seconds: number): number => (2 * rows * outputs * depth) / seconds / 1e12;
      if (!(error < 1e-4)) throw new Error(`the product of ${size.join(' x ')} by tiles of ${tile.rows} x ${tile.columns} is wrong by ${error}`);
      results.push(`${tile.rows}x${tile.columns}/${splits} ${rate(median).toFixed(0)}${chosen ? ' *' : ''}`);
      if (!chosen) continue;
      const details = { tile: `${tile.rows}x${tile.columns}`, splits, us: median * 1e6, error };
      const spreadOf = { value: rate(median), least: rate(most), most: rate(least), samples: 5 };
      selected = { name: `f16 ${size.join(' x ')}`, ...spreadOf, unit: 'TFLOP/s', checks: gpu.checks, details };
    }
  }
  console.error(`${size.join(' x ')} TFLOP/s: ${results.join('  ')}`);
  for (const buffer of [operands.a, operands.w, operands.y, operands.parts]) buffer.destroy();
  return selected;
}

function prepare(gpu: GpuDevice, size: Size): Operands {
  const [m, n, k] = size;
  const [aBits, wBits] = [randomHalves(m * k, 1), randomHalves(n * k, 2)];
  const [a, w] = [storageBuffer(gpu, m * k * 2), storageBuffer(gpu, n * k * 2)];
  gpu.queue.writeBuffer(a, 0, aBits);
  gpu.queue.writeBuffer(w, 0, wBits);
  return { size, a, w, y: storageBuffer(gpu, m * n * 4), parts: storageBuffer(gpu, m * n * 4 * mostSplits), aBits, wBits };
}

async function jobsOf(gpu: GpuDevice, operands: Operands, tile: GemmTile, splits: number, subgroupSize: number): Promise<Job[]> {
  const [rows, outputs, depth] = operands.size;
  const problem: GemmProblem = { rows, outputs, depth, columns: outputs, start: 0, bias: false, residual: 'none', splits };
  const product = await jobOf(gpu, gemmKernel(problem, tile, subgroupSize), [operands.a, operands.w, splits > 1 ? operands.parts : operands.y]);
  if (splits === 1) return [product];
  const sum = splitSumKernel({ splits, rows, outputs, columns: outputs, start: 0, bias: false, residual: 'none' });
  return [product, await jobOf(gpu, sum, [operands.parts, operands.y])];
}

/** Root mean square error of 64 elements of y, relative to theirs. */
async function worstError(gpu: GpuDevice, { size: [m, n, k], y, aBits, wBits }: Operands): Promise<number> {
  let [squares, errors] = [0, 0];
  for (let sample = 0; sample < 64; sample++) {
    const [row, column] = [(sample * 7919) % m, (sample * 104_729) % n];
    let sum = 0;
    for (let i = 0; i < k; i++) sum += halfToFloat(aBits[row * k + i] ?? 0) * halfToFloat(wBits[column * k + i] ?? 0);
    const [got = Number.NaN] = new Float32Array(await readBuffer(gpu, y, (row * n + column) * 4, 4));
    squares += sum ** 2;
    errors += (got - sum) ** 2;
  }
  return Math.sqrt(errors / squares);
}
