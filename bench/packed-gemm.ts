/**
 * Products of many rows with packed weights, y [T, N] = x [T, K] w [N, K]^T, by the kind of their kernels: f16 matrices, 8-bit activations, f32. By timestamps, with everything that a product
 * needs (making x f16 or 8-bit, decoding weights); TFLOP/s count a multiplication and an addition for each weight and row. Sampled results are compared with f64 sums.
 * Arguments: sizes as T,N,K (default: those of a prompt of 512 and of 2048 tokens), --types=q4_k,q6_k, --checked, --sweep for every tile of 8-bit
 * activations.
 */

import { maskCapabilities } from '../src/core/capabilities.js';
import type { GpuKernel } from '../src/core/kernel.js';
import { GpuDevice } from '../src/gpu/device.js';
import { GraphBuilder } from '../src/graph/builder.js';
import { packRowsKernel, rowsType } from '../src/kernels/dp4a/activations.js';
import { selectPacked } from '../src/kernels/dp4a/linear.js';
import { type PackedTile, packedKernel, packedTileSize } from '../src/kernels/dp4a/product.js';
import { splitSumKernel } from '../src/kernels/matrix/split-sum.js';
import { type GpuTargetOptions, gpuTarget } from '../src/kernels/target.js';
import { gpuWeightStore } from '../src/kernels/weights.js';
import { weightLayout, weightTypes } from '../src/kernels/weights-layout.js';
import { decodeBytes } from '../src/ops/case.js';
import { randomFloats, randomWeight, seededRandom } from '../src/ops/cases/weight-data.js';
import { lower } from '../src/plan/lower.js';
import { type Job, jobOf, readBuffer, runJobs, storageBuffer, type Timing, timeJobs, timeSteady, warmUp } from './gpu-timer.js';
import { BenchArgs } from './support/args.js';
import type { BenchResult, Figure } from './support/result.js';

export const summary = 'products of many rows with packed weights: matrices, 8-bit activations, f32';

type Size = readonly [rows: number, outputs: number, depth: number];

const defaultSizes: readonly Size[] = [512, 2048].flatMap((rows): Size[] => [
  [rows, 4096, 4096],
  [rows, 14_336, 4096],
  [rows, 4096, 14_336],
  [rows, 1024, 4096],
]);

const sweptTiles: readonly PackedTile[] = [
  { threads: [8, 16], results: [8, 4], blocks: 2, ahead: false },
  { threads: [8, 16], results: [8, 4], blocks: 4, ahead: false },
  { threads: [8, 16], results: [8, 4], blocks: 2, ahead: true },
  { threads: [8, 16], results: [8, 4], blocks: 1, ahead: true },
  { threads: [16, 16], results: [8, 4], blocks: 2, ahead: true },
  { threads: [16, 16], results: [8, 4], blocks: 2, ahead: false },
  { threads: [16, 16], results: [8, 4], blocks: 4, ahead: false },
  { threads: [16, 16], results: [8, 4], blocks: 1, ahead: true },
  { threads: [8, 8], results: [8, 4], blocks: 2, ahead: false },
  { threads: [8, 16], results: [4, 4], blocks: 2, ahead: false },
  { threads: [4, 16], results: [8, 4], blocks: 2, ahead: false },
  { threads: [4, 16], results: [4, 4], blocks: 2, ahead: false },
  { threads: [8, 16], results: [8, 8], blocks: 2, ahead: false },
  { threads: [8, 16], results: [8, 8], blocks: 1, ahead: false },
  { threads: [16, 8], results: [4, 8], blocks: 2, ahead: false },
  { threads: [16, 16], results: [8, 8], blocks: 1, ahead: true },
];

type WeightType = (typeof weightTypes)[number];

interface Problem {
  readonly size: Size;
  readonly dtype: WeightType;
  readonly x: Float32Array<ArrayBuffer>;
  readonly weight: Uint8Array;
}

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['sweep', 'checked'], values: ['types'] });
  const gpu = await GpuDevice.request({ checked: known.flag('checked') });
  const asked = known.rest.map((text): Size => {
    const [rows = 0, outputs = 0, depth = 0] = text.split(',').map(Number);
    return [rows, outputs, depth];
  });
  const named = known.list('types');
  const figures: Figure[] = [];
  for (const dtype of weightTypes.filter((type) => (named.length === 0 ? type === 'q4_k' : named.includes(type)))) {
    for (const size of asked.length > 0 ? asked : defaultSizes) figures.push(...(await measure(gpu, size, dtype, known.flag('sweep'))));
  }
  return { adapter: gpu.adapterInfo.name, figures };
}

async function measure(gpu: GpuDevice, size: Size, dtype: WeightType, sweep: boolean): Promise<readonly Figure[]> {
  const [rows, outputs, depth] = size;
  const random = seededRandom(1);
  const problem: Problem = { size, dtype, x: new Float32Array(randomFloats(rows * depth, random)), weight: randomWeight(dtype, outputs, depth, random).bytes };
  const kinds: readonly (readonly [string, boolean, GpuTargetOptions])[] = [
    ['f16 matrices', true, {}],
    ['8-bit activations', false, { activations: 'int8' }],
    ['f32', false, { activations: 'f32' }],
  ];
  const figures: Figure[] = [];
  for (const [kind, matrices, options] of kinds) {
    const { error, ...time } = await byRule(gpu, problem, matrices, options);
    const work = (2 * rows * outputs * depth) / 1e12;
    const name = `${dtype} ${size.join(' x ')}, ${kind}`;
    const details = { us: time.median * 1e6, error };
    figures.push({
      name,
      value: work / time.median,
      least: work / time.most,
      most: work / time.least,
      samples: 5,
      unit: 'TFLOP/s',
      checks: gpu.checks,
      details,
    });
    console.error(`${name}: ${rateOf(size, time.median)} TFLOP/s (${(time.median * 1e6).toFixed(0)} us, error ${error.toExponential(1)})`);
  }
  if (sweep) console.error(`  ${(await byTile(gpu, problem)).join('\n  ')}`);
  return figures;
}

const rateOf = ([rows, outputs, depth]: Size, seconds: number): string => ((2 * rows * outputs * depth) / seconds / 1e12).toFixed(1);
const roundsOf = ([rows, outputs, depth]: Size): number => Math.max(4, Math.min(100, Math.ceil(4e11 / (2 * rows * outputs * depth))));

/** The steps that the target's own rule makes. */
async function byRule(gpu: GpuDevice, problem: Problem, matrices: boolean, options: GpuTargetOptions): Promise<Timing & { readonly error: number }> {
  const { size, dtype } = problem;
  const [rows, outputs, depth] = size;
  const capabilities = matrices ? gpu.capabilities : maskCapabilities(gpu.capabilities, { subgroupMatrices: false });
  const g = new GraphBuilder();
  const x = g.input('x', { dtype: 'f32', shape: [rows, depth] });
  const w = g.param('w', { dtype, shape: [outputs, depth] });
  const y = g.linear(x, w, { rounded: true });
  g.output('y', y);
  const { steps, values } = lower(g.build(), gpuTarget(capabilities, options));
  const buffers = new Map([...values.values()].map(({ id, byteLength }) => [id, storageBuffer(gpu, Math.ceil(byteLength / 4) * 4)]));
  const bufferOf = (id: number): GPUBuffer => {
    const found = buffers.get(id);
    if (found === undefined) throw new Error(`value ${id} has no buffer`);
    return found;
  };
  gpu.queue.writeBuffer(bufferOf(x), 0, problem.x);
  writeWeight(gpu, bufferOf(w), problem);
  const bound = steps.map(({ kernel, args }) =>
    jobOf(
      gpu,
      kernel,
      args.map(({ value }) => bufferOf(value)),
    ),
  );
  const jobs = await Promise.all(bound);
  await runJobs(gpu, jobs);
  const error = await sampledError(gpu, bufferOf(y), problem);
  const time = await timeSteady(gpu, jobs);
  for (const buffer of buffers.values()) buffer.destroy();
  return { ...time, error };
}

function writeWeight(gpu: GpuDevice, buffer: GPUBuffer, { size: [, outputs, depth], dtype, weight }: Problem): void {
  for (const { offset, bytes } of gpuWeightStore(gpu.capabilities).pack({ dtype, shape: [outputs, depth] }, 0, weight)) {
    gpu.queue.writeBuffer(buffer, offset, bytes as Uint8Array<ArrayBuffer>);
  }
}

async function byTile(gpu: GpuDevice, problem: Problem): Promise<string[]> {
  const { size, dtype } = problem;
  const [rows, outputs, depth] = size;
  const type = { dtype, shape: [outputs, depth] };
  const choice = selectPacked({ rows, outputs, depth, dtype }, gpu.capabilities, 'int8');
  const [x, packed, w] = [
    storageBuffer(gpu, rows * depth * 4),
    storageBuffer(gpu, (rowsType(rows, depth).shape[0] ?? 0) * 4),
    storageBuffer(gpu, gpuWeightStore(gpu.capabilities).byteLength(type)),
  ];
  const [parts, y] = [storageBuffer(gpu, rows * outputs * 4 * 8), storageBuffer(gpu, rows * outputs * 4)];
  gpu.queue.writeBuffer(x, 0, problem.x);
  writeWeight(gpu, w, problem);
  await runJobs(gpu, [await jobOf(gpu, packRowsKernel(rows, depth), [x, packed])]);
  const base = { layout: weightLayout(type), start: 0, outputs, rows, bias: false, residual: 'none' } as const;
  const plans = sweptTiles.flatMap((tile) => {
    const [tileX, tileW] = packedTileSize(tile);
    const count = Math.ceil(rows / tileX) * Math.ceil(outputs / tileW);
    return [1, 2, 4, 8].filter((splits) => splits === 1 || count * splits <= 640).map((splits) => ({ tile, splits }));
  });
  const sum = (splits: number): GpuKernel => splitSumKernel({ splits, rows, outputs, columns: outputs, start: 0, bias: false, residual: 'none' });
  const jobs = await Promise.all(
    plans.map(async ({ tile, splits }): Promise<Job[]> => {
      const product = await jobOf(gpu, packedKernel({ ...base, splits }, tile), [packed, w, splits === 1 ? y : parts]);
      return splits === 1 ? [product] : [product, await jobOf(gpu, sum(splits), [parts, y])];
    }),
  );
  const lines: string[] = [];
  for (const [i, { tile, splits }] of plans.entries()) {
    const own = jobs[i] ?? [];
    await runJobs(gpu, own);
    const error = await sampledError(gpu, y, problem);
    if (i === 0) await warmUp(gpu, own, 60);
    const { median } = await timeJobs(gpu, own, roundsOf(size));
    const chosen = typeof choice === 'object' && choice.splits === splits && JSON.stringify(choice.tile) === JSON.stringify(tile) ? ' *' : '';
    const name = `${packedTileSize(tile).join('x')} by ${tile.threads.join('x')}, ${tile.blocks} blocks${tile.ahead ? ' ahead' : ''}${splits === 1 ? '' : `, ${splits} parts`}`;
    lines.push(`${name.padEnd(44)} ${rateOf(size, median)} TFLOP/s (${(median * 1e6).toFixed(0)} us)${error > 0.05 ? ` WRONG ${error}` : ''}${chosen}`);
  }
  for (const buffer of [x, packed, w, parts, y]) buffer.destroy();
  return lines;
}

/** Root mean square error of 24 results, relative to theirs. */
async function sampledError(gpu: GpuDevice, y: GPUBuffer, { size: [rows, outputs, depth], dtype, x, weight }: Problem): Promise<number> {
  let [squares, errors] = [0, 0];
  const rowBytes = weight.byteLength / outputs;
  for (let sample = 0; sample < 24; sample++) {
    const [row, column] = [(sample * 7919) % rows, (sample * 104_729) % outputs];
    const values = decodeBytes({ dtype, shape: [depth] }, weight.subarray(column * rowBytes, (column + 1) * rowBytes));
    const sum = values.reduce((total, value, k) => total + value * (x[row * depth + k] ?? 0), 0);
    const [got = Number.NaN] = new Float32Array(await readBuffer(gpu, y, (row * outputs + column) * 4, 4));
    squares += sum ** 2;
    errors += (got - sum) ** 2;
  }
  return Math.sqrt(errors / squares);
}
