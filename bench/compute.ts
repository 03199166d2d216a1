/**
 * The tensor API on the best device here. Device-resident times by timestamps (median, 10th and 90th percentile of the runs), beside a copy of the same bytes; then host to host, beside the
 * CPU backend, to find the size from which the GPU wins.
 * Arguments: --json prints one JSON object; --runs=N (default 30); --device=webgpu or cpu; --checked; --peers also runs the TypeScript libraries found in COMPUTE_PEERS.
 */

import { GraphBuilder } from '../src/graph/builder.js';
import type { NodeId } from '../src/graph/graph.js';
import type { Backend } from '../src/runtime/backend.js';
import { CompiledGraph } from '../src/runtime/compiled-graph.js';
import { CpuBackend } from '../src/runtime/cpu-backend.js';
import { openBackend } from '../src/runtime/select.js';
import { WebGpuBackend } from '../src/runtime/webgpu-backend.js';
import { runPeers } from './compute-peers.js';

export const summary = 'matmul, softmax and elementwise operations: resident by timestamps, and host to host beside the CPU';

interface Workload {
  readonly name: string;
  readonly shapes: readonly (readonly number[])[];
  /** Multiplications and additions of one run. */
  readonly flops: number;
  /** Bytes read and written at least once. */
  readonly bytes: number;
  build(g: GraphBuilder, inputs: readonly NodeId[]): NodeId;
}

interface Timing {
  readonly name: string;
  readonly medianUs: number;
  readonly p10Us: number;
  readonly p90Us: number;
  readonly tflops: number;
  readonly gbPerSecond: number;
}

const matmul = (n: number): Workload => ({
  name: `matmul f32 ${n}`,
  shapes: [
    [n, n],
    [n, n],
  ],
  flops: 2 * n ** 3,
  bytes: 12 * n * n,
  build: (g, inputs) => g.add('matmul', { transposeA: false, transposeB: false, alpha: 1 }, inputs),
});

const add = (n: number): Workload => ({
  name: `add f32 ${n}`,
  shapes: [[n], [n]],
  flops: n,
  bytes: 12 * n,
  build: (g, inputs) => g.add('binary', { fn: 'add' }, inputs),
});

const softmax = (rows: number, columns: number): Workload => ({
  name: `softmax f32 ${rows} x ${columns}`,
  shapes: [[rows, columns]],
  flops: 5 * rows * columns,
  bytes: 8 * rows * columns,
  build: (g, inputs) => g.add('softmax', { axis: 1 }, inputs),
});

const resident: readonly Workload[] = [
  matmul(512),
  matmul(1024),
  matmul(2048),
  matmul(4096),
  softmax(1, 1_000_000),
  softmax(1000, 1000),
  add(1_000_000),
  add(40_000_000),
];
const hosted: readonly Workload[] = [add(10_000), add(1_000_000), add(10_000_000), matmul(64), matmul(128), matmul(256), matmul(512), matmul(1024)];

export async function run(args: readonly string[]): Promise<void> {
  const option = (name: string): string | undefined => args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
  const runs = Number(option('runs') ?? 30);
  const backend = await openBackend({
    device: option('device') === 'cpu' ? 'cpu' : option('device') === 'webgpu' ? 'webgpu' : 'auto',
    checked: args.includes('--checked'),
  });
  console.error(`${backend.name} (${backend.checks}), ${runs} runs each`);
  const residentTimes: Timing[] = [];
  for (const workload of resident) {
    if (backend.kind === 'cpu' && workload.flops > 2e9) continue;
    residentTimes.push(report(await timeResident(backend, workload, runs)));
  }
  const copy = backend instanceof WebGpuBackend ? report(await timeCopy(backend, 40_000_000 * 4, runs)) : undefined;
  const cpu = new CpuBackend();
  const hostTimes: { name: string; ms: number; cpuMs: number }[] = [];
  for (const workload of hosted) {
    const [here, there] = [await timeHost(backend, workload, 10), await timeHost(cpu, workload, workload.flops > 5e8 ? 3 : 10)];
    hostTimes.push({ name: workload.name, ms: here, cpuMs: there });
    console.error(`${workload.name.padEnd(26)} host to host ${here.toFixed(3)} ms, CPU backend ${there.toFixed(3)} ms`);
  }
  const peers = args.includes('--peers') ? await runPeers(4096, 10) : [];
  for (const peer of peers) console.error(`${peer.library.padEnd(26)} matmul 4096: ${peer.tflops?.toFixed(1) ?? peer.error} TFLOP/s`);
  cpu.dispose();
  backend.dispose();
  if (args.includes('--json'))
    console.log(JSON.stringify({ adapter: backend.name, checks: backend.checks, runs, resident: residentTimes, copy, host: hostTimes, peers }));
}

function report(timing: Timing): Timing {
  const { name, medianUs, p10Us, p90Us, tflops, gbPerSecond } = timing;
  console.error(
    `${name.padEnd(26)} ${medianUs.toFixed(1).padStart(9)} us (${p10Us.toFixed(1)} to ${p90Us.toFixed(1)})  ${tflops.toFixed(2).padStart(7)} TFLOP/s  ${gbPerSecond.toFixed(0).padStart(6)} GB/s`,
  );
  return timing;
}

function summarize(name: string, samples: readonly number[], { flops, bytes }: { flops: number; bytes: number }): Timing {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (part: number): number => sorted[Math.floor(part * (sorted.length - 1))] ?? Number.NaN;
  const medianUs = at(0.5);
  return { name, medianUs, p10Us: at(0.1), p90Us: at(0.9), tflops: flops / medianUs / 1e6, gbPerSecond: bytes / medianUs / 1e3 };
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

async function timeResident(backend: Backend, workload: Workload, runs: number): Promise<Timing> {
  using graph = await compile(backend, workload);
  await graph.execute(inputsOf(workload));
  const samples: number[] = [];
  for (let i = 0; i < runs + 5; i++) {
    const timings = await graph.profile();
    if (i >= 5) samples.push(timings.reduce((sum, { ns }) => sum + ns, 0) / 1e3);
  }
  return summarize(workload.name, samples, workload);
}

/** Device memory to device memory, ten copies a submit, by the clock: the fixed cost of the submit is in it. */
async function timeCopy(backend: WebGpuBackend, bytes: number, runs: number): Promise<Timing> {
  const { device, queue } = backend.gpu;
  const [from, to] = await Promise.all([backend.allocate('copy source', bytes, 'arena'), backend.allocate('copy target', bytes, 'arena')]);
  const [source, target] = [backend.bufferOf(from), backend.bufferOf(to)];
  const samples: number[] = [];
  const copies = 50;
  for (let i = 0; i < runs; i++) {
    const encoder = device.createCommandEncoder();
    for (let c = 0; c < copies; c++) encoder.copyBufferToBuffer(source, 0, target, 0, bytes);
    await backend.idle();
    const start = performance.now();
    queue.submit([encoder.finish()]);
    await backend.idle();
    samples.push(((performance.now() - start) * 1e3) / copies);
  }
  from.free();
  to.free();
  return summarize(`copy ${bytes} bytes`, samples, { flops: 0, bytes: 2 * bytes });
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
