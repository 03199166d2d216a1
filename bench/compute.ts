/**
 * The tensor API from host arrays to host arrays on the best device here, beside the CPU backend, to find the size from which the GPU wins; with --peers also
 * device-resident operations by the clock beside the TypeScript libraries found in COMPUTE_PEERS. Times of our kernels alone, by timestamps, are in the benchmark `tensor`.
 * Arguments: --runs=N (default 10); --device=webgpu or cpu; --checked; --peers, or --only-peers;
 * --small for a software adapter.
 */

import { GraphBuilder } from '../src/graph/builder.js';
import type { NodeId } from '../src/graph/graph.js';
import type { Backend } from '../src/runtime/backend.js';
import { CompiledGraph } from '../src/runtime/compiled-graph.js';
import { CpuBackend } from '../src/runtime/cpu-backend.js';
import { openBackend } from '../src/runtime/select.js';
import { prepareOwn } from './peers/own.js';
import { runPeers } from './peers/run.js';
import { type Measured, measure, type Workload as PeerWorkload, workloads } from './peers/workloads.js';
import { BenchArgs } from './support/args.js';
import { type BenchResult, type Figure, formatNumber, ownName, resultOf, spread } from './support/result.js';

export const summary = 'matmul and elementwise operations host to host beside the CPU; resident operations beside other libraries';

interface Workload {
  readonly name: string;
  readonly shapes: readonly (readonly number[])[];
  /** Multiplications and additions of one run. */
  readonly flops: number;
  build(g: GraphBuilder, inputs: readonly NodeId[]): NodeId;
}

const matmul = (n: number): Workload => ({
  name: `matmul f32 ${n}`,
  shapes: [
    [n, n],
    [n, n],
  ],
  flops: 2 * n ** 3,
  build: (g, inputs) => g.add('matmul', { transposeA: false, transposeB: false, alpha: 1 }, inputs),
});

const add = (n: number): Workload => ({
  name: `add f32 ${n}`,
  shapes: [[n], [n]],
  flops: n,
  build: (g, inputs) => g.add('binary', { fn: 'add' }, inputs),
});

const hosted: readonly Workload[] = [add(10_000), add(1_000_000), add(10_000_000), matmul(64), matmul(128), matmul(256), matmul(512), matmul(1024)];

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['checked', 'peers', 'only-peers', 'small'], values: ['runs', 'device'] });
  const backend = await openBackend({ device: known.device(), checked: known.flag('checked'), tuning: 'none' });
  console.error(`${backend.name} (${backend.checks})`);
  const figures: Figure[] = [];
  if (!known.flag('only-peers')) figures.push(...(await hostToHost(backend, known.count('runs', 10), known.flag('small'))));
  if (known.flag('peers') || known.flag('only-peers')) figures.push(...(await beside(backend, known.flag('small'))));
  const result = resultOf(backend, figures);
  backend.dispose();
  return result;
}

/** From host array to host array, on the device and on the CPU backend. */
async function hostToHost(backend: Backend, runs: number, small: boolean): Promise<readonly Figure[]> {
  const cpu = new CpuBackend();
  const figures: Figure[] = [];
  for (const workload of small ? hosted.slice(0, 1) : hosted) {
    const name = `${workload.name}, host to host`;
    const times = await timeHost(backend, workload, runs);
    const cpuTimes = await timeHost(cpu, workload, workload.flops > 5e8 ? 3 : runs);
    figures.push({ name, unit: 'ms', ...spread(times), checks: backend.checks }, { name, unit: 'ms', ...spread(cpuTimes), by: 'CPU backend' });
    const [own, other] = [times, cpuTimes].map((list) => formatNumber(spread(list).value).padStart(9));
    console.error(`${name.padEnd(36)} ${own} ms, CPU backend ${other} ms`);
  }
  cpu.dispose();
  return figures;
}

/** One operation in this library and in the others, one after the other on the same adapter. A library that fails is in our own figure, with what it said. */
async function beside(backend: Backend, small: boolean): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  for (const [index, work] of workloads(small).entries()) {
    const own = await measure(work, await prepareOwn(backend, work));
    const name = `${work.name}, resident, by the clock`;
    console.error(`${work.name.padEnd(34)} ${ownName} ${shown(work, own)}`);
    const failures: Record<string, string> = {};
    const peers = runPeers(index, small).flatMap(({ library, version, measured, error }): Figure[] => {
      const by = `${library} ${version}`.trim();
      const wrong = measured !== undefined && Math.abs(measured.first - own.first) > 1e-3 * Math.abs(own.first);
      console.error(
        `${' '.repeat(34)} ${by} ${measured === undefined ? `fails: ${error}` : shown(work, measured)}${wrong ? ', but its result is another' : ''}`,
      );
      if (measured === undefined) failures[by] = error ?? '';
      return measured === undefined ? [] : [{ ...figureOf(name, measured), by, details: { rightResult: !wrong } }];
    });
    figures.push({ ...figureOf(name, own), checks: backend.checks, ...(Object.keys(failures).length > 0 ? { details: { failures } } : {}) }, ...peers);
  }
  return figures;
}

function figureOf(name: string, { us, least, most }: Measured): Figure {
  return { name, value: us, unit: 'us', least, most, samples: 5 };
}

function shown({ flops, bytes = 0 }: PeerWorkload, { us, least, most }: Measured): string {
  const rate = flops === undefined ? `${(bytes / us / 1e3).toFixed(0)} GB/s` : `${(flops / us / 1e6).toFixed(1)} TFLOP/s`;
  return `${us.toFixed(1)} us (${least.toFixed(1)} to ${most.toFixed(1)}), ${rate}`;
}

async function compile(backend: Backend, workload: Workload): Promise<CompiledGraph> {
  const g = new GraphBuilder();
  const inputs = workload.shapes.map((shape, index) => g.input(`x${index}`, { dtype: 'f32', shape }));
  g.output('y', workload.build(g, inputs));
  return CompiledGraph.compile(g.build(), backend);
}

function inputsOf(workload: Workload): Record<string, Float32Array> {
  return Object.fromEntries(
    workload.shapes.map((shape, index) => [
      `x${index}`,
      Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => ((i * 7919) % 1009) / 1009 - 0.5),
    ]),
  );
}

/** Milliseconds of each run, after one to warm up. */
async function timeHost(backend: Backend, workload: Workload, runs: number): Promise<readonly number[]> {
  using graph = await compile(backend, workload);
  const inputs = inputsOf(workload);
  const samples: number[] = [];
  for (let i = 0; i < runs + 1; i++) {
    const start = performance.now();
    await graph.run(inputs);
    if (i > 0) samples.push(performance.now() - start);
  }
  return samples;
}
