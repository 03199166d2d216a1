/**
 * The tensor API from host arrays to host arrays on the best device here, beside the CPU backend, to find the size from which the GPU wins; with --peers also a chain of resident
 * products beside the TypeScript libraries found in COMPUTE_PEERS. Device-resident times by timestamps are in the benchmark `tensor`.
 * Arguments: --json prints one JSON object; --runs=N (default 10); --device=webgpu or cpu; --checked; --peers.
 */

import { GpuCommandBatch } from '../src/compute/batch.js';
import { GraphBuilder } from '../src/graph/builder.js';
import type { NodeId } from '../src/graph/graph.js';
import type { Backend } from '../src/runtime/backend.js';
import { CompiledGraph } from '../src/runtime/compiled-graph.js';
import { CpuBackend } from '../src/runtime/cpu-backend.js';
import { openBackend } from '../src/runtime/select.js';
import { runPeers } from './compute-peers.js';

export const summary = 'matmul and elementwise operations host to host beside the CPU; chained products beside other libraries';

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
  for (const workload of hosted) {
    const [ms, cpuMs] = [await timeHost(backend, workload, runs), await timeHost(cpu, workload, workload.flops > 5e8 ? 3 : runs)];
    host.push({ name: workload.name, ms, cpuMs });
    console.error(`${workload.name.padEnd(26)} ${ms.toFixed(3).padStart(9)} ms, CPU backend ${cpuMs.toFixed(3).padStart(9)} ms`);
  }
  const own = args.includes('--peers') ? await timeChain(backend, 4096, 10) : undefined;
  const peers = own === undefined ? [] : await runPeers(4096, 10);
  if (own !== undefined) console.error(`centella                   chained matmul 4096: ${own.toFixed(1)} TFLOP/s`);
  for (const peer of peers) console.error(`${peer.library.padEnd(26)} chained matmul 4096: ${peer.tflops?.toFixed(1) ?? peer.error} TFLOP/s`);
  cpu.dispose();
  backend.dispose();
  if (args.includes('--json')) console.log(JSON.stringify({ adapter: backend.name, checks: backend.checks, runs, host, chainedTflops: own, peers }));
}

/** TFLOP/s of `products` chained n x n x n products by the clock, one element read at the end: what the peers are measured by. Median of 5. */
async function timeChain(backend: Backend, n: number, products: number): Promise<number> {
  const batch = new GpuCommandBatch(backend);
  const b = batch.upload(Float32Array.from({ length: n * n }, (_, i) => Math.cos(i) / n));
  let x = batch.upload(Float32Array.from({ length: n * n }, (_, i) => Math.sin(i)));
  for (let i = 0; i < products; i++) x = batch.matmul(x, b, n, n, n);
  const end = batch.slice(x, 0, 1);
  await batch.execute();
  await batch.read(end);
  const samples: number[] = [];
  for (let round = 0; round < 5; round++) {
    const start = performance.now();
    await batch.execute();
    await batch.read(end);
    samples.push(performance.now() - start);
  }
  batch.dispose();
  return (2 * n ** 3 * products) / (samples.sort((p, q) => p - q)[2] ?? Number.NaN) / 1e9;
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
