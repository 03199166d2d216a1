/**
 * What WebGPU costs before any work is done: dispatches, passes and submits on the device, encoding and submitting on the CPU, and the way to the device and back.
 * With models (GGUF files, --synthetic=NAME:MIX) also what a decode step costs beside its kernels: how long the device had nothing to do between two submits of a long generation, and what the
 * first tokens lose. Arguments: --checked, --rounds=N (default 200), --tokens=N (default 1000), --context=N (default 128).
 */

import type { GpuKernel } from '../src/core/kernel.js';
import { GpuDevice } from '../src/gpu/device.js';
import { GraphBuilder } from '../src/graph/builder.js';
import { declareBindings, defineKernel } from '../src/kernels/template.js';
import { CompiledGraph } from '../src/runtime/compiled-graph.js';
import { WebGpuBackend } from '../src/runtime/webgpu-backend.js';
import { type Job, jobOf, storageBuffer, timeJobs, warmUp } from './gpu-timer.js';
import { BenchArgs } from './support/args.js';
import { decodeOverhead } from './support/decode-overhead.js';
import { modelOptions, modelsOf } from './support/models.js';
import { type BenchResult, type Figure, formatFigure, spread } from './support/result.js';

export const summary = 'what dispatches, passes, submits and round trips cost';

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['checked'], values: [...modelOptions, 'rounds', 'tokens', 'context'] });
  const rounds = known.count('rounds', 200);
  const gpu = await GpuDevice.request({ checked: known.flag('checked') });
  const figures = [...(await onDevice(gpu, rounds)), ...(await onHost(gpu, rounds)), ...(await roundTrips(gpu, rounds))].map(
    (figure): Figure => ({ ...figure, checks: gpu.checks }),
  );
  console.error(`${gpu.adapterInfo.name}, ${gpu.checks}`);
  for (const figure of figures) console.error(`  ${figure.name}: ${formatFigure(figure)}`);
  const hasModels = known.rest.length > 0 || known.list('synthetic').length > 0;
  for (const model of hasModels ? await modelsOf(known) : [])
    figures.push(...(await decodeOverhead(gpu, model, { tokens: known.count('tokens', 1000), context: known.count('context', 128) })));
  return { adapter: gpu.adapterInfo.name, figures };
}

/** y[0] += 1 by one thread. `kind` makes another pipeline. */
function tinyKernel(kind: number): GpuKernel {
  return defineKernel({
    family: 'bench_tiny',
    params: { kind },
    bindings: ['read_write'],
    workgroups: [1, 1, 1],
    workgroupSize: 1,
    wgsl: () => `${declareBindings([['y', 'u32', 'read_write']])}@compute @workgroup_size(1) fn main() { y[0] += ${kind}u; }\n`,
  });
}

async function onDevice(gpu: GpuDevice, rounds: number): Promise<Figure[]> {
  const buffers = Array.from({ length: 8 }, () => storageBuffer(gpu, 256));
  const jobs = await Promise.all(buffers.map((buffer) => jobOf(gpu, tinyKernel(1), [buffer])));
  const [first] = jobs;
  if (first === undefined) return [];
  await warmUp(gpu, jobs, 100);
  const chain = await timeJobs(gpu, [first], rounds);
  const apart = await timeJobs(gpu, jobs, Math.ceil(rounds / 8));
  const figure = (name: string, { median, least, most }: typeof chain, per: number): Figure => ({
    name,
    value: (median * 1e6) / per,
    least: (least * 1e6) / per,
    most: (most * 1e6) / per,
    samples: 5,
    unit: 'us',
  });
  const passes = await emptyPasses(gpu, first, 20);
  return [
    figure('dispatch after dispatch on one buffer, device time', chain, 1),
    figure('dispatches on eight buffers, device time', apart, 8),
    { name: 'a pass of one dispatch, device time', ...spread(passes), unit: 'us' },
  ];
}

/** Microseconds from the beginning of a pass of one dispatch to its end. */
async function emptyPasses(gpu: GpuDevice, job: Job, count: number): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) times.push((await timeJobs(gpu, [job], 1)).median * 1e6);
  return times;
}

/** CPU microseconds of the calls; what they ask for is awaited outside the clock. */
async function onHost(gpu: GpuDevice, rounds: number): Promise<Figure[]> {
  const { device, queue } = gpu;
  const [buffer, other] = [storageBuffer(gpu, 256), storageBuffer(gpu, 256)];
  const jobs = await Promise.all([jobOf(gpu, tinyKernel(1), [buffer]), jobOf(gpu, tinyKernel(2), [other])]);
  const dispatches: number[] = [];
  const submits: number[] = [];
  for (let repeat = 0; repeat < 8; repeat++) {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const started = performance.now();
    for (let i = 0; i < rounds; i++) for (const job of jobs) job(pass);
    dispatches.push(((performance.now() - started) * 1e3) / (2 * rounds));
    pass.end();
    queue.submit([encoder.finish()]);
    await gpu.idle();
    const empty = performance.now();
    for (let i = 0; i < 50; i++) {
      const single = device.createCommandEncoder();
      const none = single.beginComputePass();
      jobs[0]?.(none);
      none.end();
      queue.submit([single.finish()]);
    }
    submits.push(((performance.now() - empty) * 1e3) / 50);
    await gpu.idle();
  }
  return [
    { name: 'encoding a dispatch with its pipeline and bindings, CPU time', ...spread(dispatches.slice(1)), unit: 'us' },
    { name: 'encoding and submitting a pass of one dispatch, CPU time', ...spread(submits.slice(1)), unit: 'us' },
  ];
}

/** Numbers to the device, one dispatch, numbers back: by the clock. */
async function roundTrips(gpu: GpuDevice, rounds: number): Promise<Figure[]> {
  const backend = new WebGpuBackend(gpu, { owned: false });
  const figures: Figure[] = [];
  for (const length of [1, 4096, 1 << 20]) {
    const g = new GraphBuilder();
    g.output('y', g.unary('neg', g.input('x', { dtype: 'f32', shape: [length] })));
    using graph = await CompiledGraph.compile(g.build(), backend);
    const x = new Float32Array(length).fill(1);
    const times: number[] = [];
    for (let i = -10; i < Math.min(rounds, length > 1e5 ? 20 : rounds); i++) {
      const started = performance.now();
      await graph.run({ x });
      if (i >= 0) times.push(performance.now() - started);
    }
    figures.push({ name: `writing, negating and reading back ${length * 4} bytes`, ...spread(times), unit: 'ms' });
  }
  backend.dispose();
  return figures;
}
