/**
 * From a file to the first token: how fast weights reach the device, how many kernels are compiled and when they are ready, and when the first token of a short prompt is there. Each
 * run is a process of its own, with the file in the system's cache: pipelines and devices of an earlier run help nobody.
 * Arguments: GGUF files, --synthetic=NAME:MIX; --prompt=N tokens (default 128), --runs=N (default 3), --device=webgpu or cpu, --checked, --once: one run in this process,
 * --paths: how fast each way from the file to the device is alone, with up to 2 GiB of the first file.
 */

import { spawnSync } from 'node:child_process';
import { open } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { loadModel } from '../src/engine/load.js';
import type { LoadTimings } from '../src/engine/model.js';
import { GpuDevice } from '../src/gpu/device.js';
import { BenchArgs } from './support/args.js';
import { type BenchModel, modelOptions, modelsOf, promptIds } from './support/models.js';
import { type BenchResult, type Figure, formatFigure, spread, type Unit } from './support/result.js';
import { uploadPaths } from './support/upload-paths.js';

export const summary = 'from a file to the first token: bandwidth, kernels compiled, time';

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['checked', 'once', 'paths'], values: [...modelOptions, 'prompt', 'runs', 'device'] });
  const figures: Figure[] = [];
  let adapter = '';
  const models = await modelsOf(known);
  for (const model of models) {
    const runs = known.flag('once') ? [await once(model, known)] : await inProcesses(model, known);
    adapter = runs[0]?.adapter ?? adapter;
    for (const figure of figuresOf(model, runs)) {
      figures.push(figure);
      console.error(`${figure.name}: ${formatFigure(figure)}`);
    }
  }
  const [first] = models;
  if (known.flag('paths') && first !== undefined) figures.push(...(await pathsAlone(first, known.flag('checked'))));
  return { adapter, figures };
}

async function pathsAlone({ path }: BenchModel, checked: boolean): Promise<Figure[]> {
  await readThrough(path);
  using gpu = await GpuDevice.request({ checked });
  return await uploadPaths(gpu, path, 2 ** 31);
}

/** Milliseconds count from the call of `loadModel`, before which there is neither a device nor an open file. */
interface Run {
  readonly adapter: string;
  readonly checks: string;
  readonly deviceMs: number;
  readonly parts: LoadTimings;
  readonly firstTokenMs: number;
  /** Kernels compiled until the first token, and how many of them had the text of another. */
  readonly kernels: number;
  readonly repeated: number;
  readonly firstKernelMs: number;
  readonly lastKernelMs: number;
  /** When each kernel was asked for and when it was there. */
  readonly kernelTimes: readonly KernelTime[];
  /** Most memory that the process had. */
  readonly peakMiB: number;
}

interface KernelTime {
  readonly kernel: string;
  readonly askedMs: number;
  readonly readyMs: number;
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
  await model.generate(prompt, { maxTokens: 1, temperature: 0 }).result;
  const firstTokenMs = performance.now() - began;
  const { name: adapter, checks } = model.backend;
  const { texts = [], times = [] } = kernels ?? {};
  return {
    ...{ adapter, checks, deviceMs, parts: model.loadTimings, firstTokenMs },
    kernels: texts.length,
    repeated: texts.length - new Set(texts).size,
    firstKernelMs: Math.min(...times.map(({ readyMs }) => readyMs), Number.POSITIVE_INFINITY),
    lastKernelMs: Math.max(...times.map(({ readyMs }) => readyMs), 0),
    kernelTimes: times,
    peakMiB: process.resourceUsage().maxRSS / 1024,
  };
}

/** Every shader text that the device is given, and when each pipeline was there. */
function watchKernels(device: GPUDevice, began: number): { readonly texts: string[]; readonly times: KernelTime[] } {
  const [texts, times]: [string[], KernelTime[]] = [[], []];
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
      const askedMs = performance.now() - began;
      const pipeline = await makePipeline(descriptor);
      times.push({ kernel: descriptor.label ?? '', askedMs, readyMs: performance.now() - began });
      return pipeline;
    },
  });
  return { texts, times };
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
    figure('weights from file to device', 'GB/s', ({ parts }) => parts.weightBytes / parts.weightsMs / 1e6),
    figure('header and tokenizer', 'ms', ({ parts }) => parts.headerMs + parts.tokenizerMs),
    figure('plans and allocations', 'ms', ({ parts }) => parts.planMs),
    figure('weights', 'ms', ({ parts }) => parts.weightsMs),
    figure('kernels after weights', 'ms', ({ parts }) => parts.kernelsMs),
    figure('loaded', 'ms', ({ parts }) => parts.totalMs),
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
