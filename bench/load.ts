/**
 * From a file to the first token: how fast weights reach the device, how many kernels are compiled and when they are ready, and when the first token of a short prompt is there. Each
 * run is a process of its own, with the file in the system's cache: pipelines and devices of an earlier run help nobody.
 * Arguments: GGUF files, --synthetic=NAME:MIX; --prompt=N tokens (default 128), --runs=N (default 3), --device=webgpu or cpu, --checked, --once: one run in this process.
 */

import { spawnSync } from 'node:child_process';
import { open } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { loadModel } from '../src/engine/load.js';
import { GpuDevice } from '../src/gpu/device.js';
import { BenchArgs } from './support/args.js';
import { type BenchModel, modelOptions, modelsOf, promptIds } from './support/models.js';
import { type BenchResult, type Figure, formatFigure, spread, type Unit } from './support/result.js';

export const summary = 'from a file to the first token: bandwidth, kernels compiled, time';

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['checked', 'once'], values: [...modelOptions, 'prompt', 'runs', 'device'] });
  const figures: Figure[] = [];
  let adapter = '';
  for (const model of await modelsOf(known)) {
    const runs = known.flag('once') ? [await once(model, known)] : await inProcesses(model, known);
    adapter = runs[0]?.adapter ?? adapter;
    for (const figure of figuresOf(model, runs)) {
      figures.push(figure);
      console.error(`${figure.name}: ${formatFigure(figure)}`);
    }
  }
  return { adapter, figures };
}

/** Milliseconds count from the call of `loadModel`, before which there is neither a device nor an open file. */
interface Run {
  readonly adapter: string;
  readonly checks: string;
  readonly deviceMs: number;
  readonly loadMs: number;
  readonly weightsMs: number;
  readonly weightBytes: number;
  readonly firstTokenMs: number;
  /** Kernels compiled until the first token, and how many of them had the text of another. */
  readonly kernels: number;
  readonly repeated: number;
  readonly firstKernelMs: number;
  readonly lastKernelMs: number;
  /** Most memory that the process had. */
  readonly peakMiB: number;
}

async function inProcesses({ path, name }: BenchModel, known: BenchArgs): Promise<readonly Run[]> {
  await readThrough(path);
  const script = fileURLToPath(new URL('./load.js', import.meta.url));
  const options = ['prompt', 'device'].flatMap((option) => (known.text(option) === undefined ? [] : [`--${option}=${known.text(option)}`]));
  return Array.from({ length: known.count('runs', 3) }, () => {
    const child = spawnSync(process.execPath, [script, path, ...options, ...(known.flag('checked') ? ['--checked'] : [])], { encoding: 'utf8' });
    const line = child.stdout.trim().split('\n').at(-1) ?? '';
    if (!line.startsWith('{')) throw new Error(`loading ${name} in a process of its own failed: ${child.stderr.trim().split('\n').at(-1) ?? child.signal}`);
    return JSON.parse(line) as Run;
  });
}

async function once({ path }: BenchModel, known: BenchArgs): Promise<Run> {
  const start = performance.now();
  const gpu = known.device() === 'cpu' ? undefined : await GpuDevice.request({ checked: known.flag('checked') });
  const deviceMs = performance.now() - start;
  const began = performance.now();
  const kernels = gpu === undefined ? undefined : watchKernels(gpu.device, began);
  const prompt = promptIds(known.count('prompt', 128));
  const model = await loadModel(path, { device: gpu ?? 'cpu', promptTokens: prompt.length, tuning: 'none' });
  const loadMs = performance.now() - began;
  await model.generate(prompt, { maxTokens: 1, temperature: 0 }).result;
  const firstTokenMs = performance.now() - began;
  const { weightsMs, weightBytes } = model.loadTimings;
  const { name: adapter, checks } = model.backend;
  const { texts = [], readyMs = [] } = kernels ?? {};
  return {
    ...{ adapter, checks, deviceMs, loadMs, weightsMs, weightBytes, firstTokenMs },
    kernels: texts.length,
    repeated: texts.length - new Set(texts).size,
    firstKernelMs: Math.min(...readyMs, Number.POSITIVE_INFINITY),
    lastKernelMs: Math.max(...readyMs, 0),
    peakMiB: process.resourceUsage().maxRSS / 1024,
  };
}

/** Every shader text that the device is given, and when each pipeline was there. */
function watchKernels(device: GPUDevice, began: number): { readonly texts: string[]; readonly readyMs: number[] } {
  const [texts, readyMs]: [string[], number[]] = [[], []];
  const makeModule = device.createShaderModule.bind(device);
  const makePipeline = device.createComputePipelineAsync.bind(device);
  Object.defineProperty(device, 'createShaderModule', {
    value: (descriptor: GPUShaderModuleDescriptor) => {
      texts.push(descriptor.code);
      return makeModule(descriptor);
    },
  });
  Object.defineProperty(device, 'createComputePipelineAsync', {
    value: async (descriptor: GPUComputePipelineDescriptor) => {
      const pipeline = await makePipeline(descriptor);
      readyMs.push(performance.now() - began);
      return pipeline;
    },
  });
  return { texts, readyMs };
}

/** Brings a file into the system's cache. */
async function readThrough(path: string): Promise<void> {
  const file = await open(path);
  const buffer = new Uint8Array(16 << 20);
  while ((await file.read(buffer, 0, buffer.length)).bytesRead > 0);
  await file.close();
}

function figuresOf({ name }: BenchModel, runs: readonly Run[]): Figure[] {
  const [first] = runs;
  if (first === undefined) return [];
  const figure = (what: string, unit: Unit, value: (run: Run) => number): Figure => ({
    name: `${name} ${what}`,
    ...spread(runs.map(value)),
    unit,
    checks: first.checks,
  });
  return [
    figure('weights from file to device', 'GB/s', ({ weightBytes, weightsMs }) => weightBytes / weightsMs / 1e6),
    figure('loaded', 'ms', ({ loadMs }) => loadMs),
    figure('first token', 'ms', ({ firstTokenMs }) => firstTokenMs),
    figure('kernels compiled', 'count', ({ kernels }) => kernels),
    figure('kernels compiled twice', 'count', ({ repeated }) => repeated),
    figure('first kernel ready', 'ms', ({ firstKernelMs }) => firstKernelMs),
    figure('last kernel ready', 'ms', ({ lastKernelMs }) => lastKernelMs),
    figure('most memory of the process', 'MiB', ({ peakMiB }) => peakMiB),
  ];
}

const [path, ...options] = process.argv.slice(2);
if (process.argv[1] === fileURLToPath(import.meta.url) && path !== undefined) {
  const known = new BenchArgs(options, { flags: ['checked'], values: ['prompt', 'device'] });
  console.log(JSON.stringify(await once({ name: path, path }, known)));
  process.exit(0);
}
