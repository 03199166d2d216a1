/**
 * The tensor API from host arrays to host arrays on the best device here, beside the CPU backend, to find the size from which the GPU wins; with --peers also
 * device-resident operations by the clock beside the TypeScript libraries found in COMPUTE_PEERS. Times of our kernels alone, by timestamps, are in the benchmark `tensor`.
 * Arguments: --json prints one JSON object; --runs=N (default 10); --device=webgpu or cpu; --checked; --peers;
 * --small for a software adapter.
 */

import { GraphBuilder } from '../src/graph/builder.js';
import type { NodeId } from '../src/graph/graph.js';
import type { Backend } from '../src/runtime/backend.js';
import { CompiledGraph } from '../src/runtime/compiled-graph.js';
import { CpuBackend } from '../src/runtime/cpu-backend.js';
import { openBackend } from '../src/runtime/select.js';
import { prepareOwn } from './peers/own.js';
import { type PeerResult, runPeers } from './peers/run.js';
import { type Measured, measure, type Workload as PeerWorkload, workloads } from './peers/workloads.js';

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

export async function run(args: readonly string[]): Promise<void> {
  const option = (name: string): string | undefined => args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
  const runs = Number(option('runs') ?? 10);
  const device = option('device') === 'cpu' ? 'cpu' : option('device') === 'webgpu' ? 'webgpu' : 'auto';
  const backend = await openBackend({ device, checked: args.includes('--checked') });
  const cpu = new CpuBackend();
  console.error(`${backend.name} (${backend.checks}), medians of ${runs} runs`);
  const host: { name: string; ms: number; cpuMs: number }[] = [];
  for (const workload of args.includes('--small') ? hosted.slice(0, 1) : hosted) {
    const [ms, cpuMs] = [await timeHost(backend, workload, runs), await timeHost(cpu, workload, workload.flops > 5e8 ? 3 : runs)];
    host.push({ name: workload.name, ms, cpuMs });
    console.error(`${workload.name.padEnd(26)} ${ms.toFixed(3).padStart(9)} ms, CPU backend ${cpuMs.toFixed(3).padStart(9)} ms`);
  }
  const peers = args.includes('--peers') ? await comparePeers(backend, args.includes('--small')) : [];
  cpu.dispose();
  backend.dispose();
  if (args.includes('--json')) console.log(JSON.stringify({ adapter: backend.name, checks: backend.checks, runs, host, peers }));
}

/** One operation in this library and in the others, one after the other on the same adapter. */
interface Comparison {
  readonly name: string;
  readonly own: Measured;
  readonly peers: readonly PeerResult[];
}

async function comparePeers(backend: Backend, small: boolean): Promise<readonly Comparison[]> {
  const compared: Comparison[] = [];
  for (const [index, work] of workloads(small).entries()) {
    const own = await measure(work, await prepareOwn(backend, work));
    const peers = runPeers(index, small);
    compared.push({ name: work.name, own, peers });
    console.error(`${work.name.padEnd(34)} centella ${shown(work, own)}`);
    for (const { library, version, measured, error } of peers) {
      const wrong =
        measured !== undefined && Math.abs(measured.first - own.first) > 1e-3 * Math.abs(own.first)
          ? `, but its first element is ${measured.first}, not ${own.first}`
          : '';
      console.error(`${' '.repeat(34)} ${library} ${version} ${measured === undefined ? `fails: ${error}` : shown(work, measured)}${wrong}`);
    }
  }
  return compared;
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

/** Median milliseconds from host arrays to a host array. */
async function timeHost(backend: Backend, workload: Workload, runs: number): Promise<number> {
  using graph = await compile(backend, workload);
  const inputs = inputsOf(workload);
  const samples: number[] = [];
  for (let i = 0; i < runs + 1; i++) {
    const start = performance.now();
    await graph.run(inputs);
    if (i > 0) samples.push(performance.now() - start);
  }
  return samples.sort((a, b) => a - b)[Math.floor(samples.length / 2)] ?? Number.NaN;
}
