/**
 * How far each path of the kernels is from f64 over the same weights: KL(f64 || path) of the next token's probabilities at every position of a text, token by token as decoding computes them, or in
 * runs of many rows as a prompt is.
 * Arguments: GGUF files, --synthetic=NAME:MIX; --text=FILE (default: what the model itself writes at temperature 1), --tokens=N a passage (default 256), --passages=N spread over the text
 * (default 2), --only=TEXT (paths whose name has it).
 */

import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { dtypes } from '../../src/core/dtype.js';
import { loadModel } from '../../src/engine/load.js';
import { openGguf } from '../../src/formats/gguf/index.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { packsActivations } from '../../src/kernels/decode/activations.js';
import { hasMatrices } from '../../src/kernels/matrix/linear.js';
import type { CacheType } from '../../src/model/decoder-graph.js';
import type { Backend } from '../../src/runtime/backend.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { loadTokenizer } from '../../src/text/index.js';
import { BenchArgs } from '../support/args.js';
import { modelOptions, modelsOf } from '../support/models.js';
import type { BenchResult, Figure } from '../support/result.js';
import { divergence, type LoadedFile, logSoftmax, makeDecoder, readModel, referenceLogits } from './model.js';

export const summary = 'KL of every kernel path against f64 over the same weights';

interface Path {
  readonly name: string;
  readonly backend: Backend;
  /** Token by token, or all rows of a passage in runs. */
  readonly steps: 'token' | 'prompt';
  readonly cacheType: CacheType;
}

/** Over all positions of the passages. */
interface Accuracy {
  readonly positions: number;
  readonly meanKl: number;
  /** Standard error of the mean. */
  readonly standardError: number;
  readonly p99Kl: number;
  readonly maxKl: number;
  /** Positions at which the most likely token is the same. */
  readonly sameArgmax: number;
  /** Perplexity of the text by the path over that by f64. */
  readonly perplexityRatio: number;
}

interface Passage {
  readonly ids: readonly number[];
  /** ln of the probabilities after each id, by f64. */
  readonly wanted: readonly Float64Array[];
}

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { values: [...modelOptions, 'text', 'tokens', 'passages', 'only'] });
  const [tokens, passages, only, text] = [known.count('tokens', 256), known.count('passages', 2), known.text('only') ?? '', known.text('text')];
  const { adapter, paths } = await pathsHere();
  const figures: Figure[] = [];
  for (const { name, path: file } of await modelsOf(known)) {
    const model = await readModel(file);
    const texts = await passagesOf(file, text, tokens, passages);
    console.error(`${name}: ${texts.length} passages of ${tokens} tokens, f64 references`);
    const wanted = texts.map((ids): Passage => ({ ids, wanted: rowsOf(referenceLogits(model, ids), model.config.vocabulary).map(logSoftmax) }));
    const wholeBlocks = model.config.headWidth % dtypes.q8_planes.block === 0;
    for (const path of paths.filter((one) => one.name.includes(only) && (one.cacheType !== 'q8_0' || wholeBlocks))) {
      const { meanKl: value, ...details } = await measure(path, model, wanted);
      console.error(line(path.name, { meanKl: value, ...details }));
      const { checks } = path.backend;
      figures.push({
        name: `${name}, ${path.name}`,
        value,
        unit: 'nats',
        checks,
        details: { ...details, text: text === undefined ? 'its own' : basename(text) },
      });
    }
  }
  return { adapter, figures };
}

/** Every path that this machine has; what it lacks is said. */
async function pathsHere(): Promise<{ readonly adapter: string; readonly paths: readonly Path[] }> {
  const cpu = new CpuBackend();
  const paths: Path[] = [
    { name: 'CPU, prompt', backend: cpu, steps: 'prompt', cacheType: 'f32' },
    { name: 'CPU, token by token', backend: cpu, steps: 'token', cacheType: 'f32' },
    { name: 'CPU, prompt, q8_0 cache', backend: cpu, steps: 'prompt', cacheType: 'q8_0' },
  ];
  if (!(await GpuDevice.isAvailable())) {
    console.error('there is no WebGPU adapter: the CPU alone is measured');
    return { adapter: cpu.name, paths };
  }
  const gpu = await GpuDevice.request();
  console.error(`WebGPU: ${gpu.adapterInfo.name}`);
  const [plain, rounded, matrices] = [
    new WebGpuBackend(gpu, { owned: false, kernels: { activations: 'f32', leastMatrixRows: Number.POSITIVE_INFINITY } }),
    new WebGpuBackend(gpu, { owned: false, kernels: { activations: 'int8', leastMatrixRows: Number.POSITIVE_INFINITY } }),
    new WebGpuBackend(gpu, { owned: false, kernels: { activations: 'f32', leastMatrixRows: 1 } }),
  ];
  paths.push({ name: 'WebGPU f32, prompt, f32 cache', backend: plain, steps: 'prompt', cacheType: 'f32' });
  paths.push({ name: 'WebGPU f32, prompt, f16 cache', backend: plain, steps: 'prompt', cacheType: 'f16' });
  if (hasMatrices(gpu.capabilities)) paths.push({ name: 'WebGPU f16 matrices, prompt, f16 cache', backend: matrices, steps: 'prompt', cacheType: 'f16' });
  else console.error('no f16 matrices: the device has none that the kernels use');
  paths.push({ name: 'WebGPU f32, token by token, f32 cache', backend: plain, steps: 'token', cacheType: 'f32' });
  paths.push({ name: 'WebGPU f32, token by token, f16 cache', backend: plain, steps: 'token', cacheType: 'f16' });
  paths.push({ name: 'WebGPU f32, token by token, q8_0 cache', backend: plain, steps: 'token', cacheType: 'q8_0' });
  if (gpu.capabilities.packedDot) paths.push({ name: 'WebGPU 8-bit activations, prompt, f16 cache', backend: rounded, steps: 'prompt', cacheType: 'f16' });
  else console.error('no 8-bit activations in prompts: the device has no dot products of packed bytes');
  const unable = packsActivations(gpu.capabilities);
  if (unable === undefined) paths.push({ name: 'WebGPU 8-bit activations, token by token, f16 cache', backend: rounded, steps: 'token', cacheType: 'f16' });
  else console.error(`no 8-bit activations: ${unable}`);
  return { adapter: gpu.adapterInfo.name, paths };
}

/** Ids of each passage, BOS first where the model wants it. */
async function passagesOf(path: string, textFile: string | undefined, tokens: number, count: number): Promise<readonly (readonly number[])[]> {
  if (textFile === undefined) return Promise.all(Array.from({ length: count }, (_, seed) => written(path, tokens, seed)));
  const file = await openGguf(path);
  const tokenizer = loadTokenizer(file);
  await file.close();
  const text = await readFile(textFile, 'utf8');
  return Array.from({ length: count }, (_, i) => {
    const at = Math.floor((text.length / count) * i);
    // A token has far fewer than 16 characters on average.
    return tokenizer.encode(text.slice(at, at + tokens * 16), { bos: 'auto' }).slice(0, tokens);
  });
}

/** What the model writes by itself, drawn from its full distribution. */
async function written(path: string, tokens: number, seed: number): Promise<readonly number[]> {
  using model = await loadModel(path, { device: 'cpu', contextLength: tokens });
  const start = model.encodePrompt('');
  const { tokens: ids } = await model.generate(start, { maxTokens: tokens - start.length, temperature: 1, topK: 0, topP: 1, minP: 0, seed }).result;
  return [...start, ...ids];
}

async function measure({ backend, steps, cacheType }: Path, model: LoadedFile, passages: readonly Passage[]): Promise<Accuracy> {
  const { vocabulary } = model.config;
  const contextLength = Math.max(...passages.map(({ ids }) => ids.length));
  const decoder = await makeDecoder(backend, model, { contextLength, cacheType, prefillChunk: steps === 'token' ? 1 : contextLength });
  const divergences: number[] = [];
  let [same, surprise, next] = [0, 0, 0];
  try {
    for (const { ids, wanted } of passages) {
      decoder.rewind(0);
      const all = steps === 'prompt' ? rowsOf(await decoder.evaluate(ids), vocabulary) : [];
      for (const [i, id] of ids.entries()) {
        const logQ = logSoftmax(all[i] ?? (await decoder.nextLogits([id])));
        const logP = wanted[i] ?? new Float64Array();
        divergences.push(divergence(logP, logQ));
        same += Number(largest(logP) === largest(logQ));
        const following = ids[i + 1];
        if (following === undefined) continue;
        surprise += (logP[following] ?? 0) - (logQ[following] ?? 0);
        next++;
      }
    }
  } finally {
    decoder.dispose();
  }
  return { ...summaryOf(divergences), sameArgmax: same, perplexityRatio: Math.exp(surprise / next) };
}

function summaryOf(divergences: readonly number[]): Pick<Accuracy, 'positions' | 'meanKl' | 'standardError' | 'p99Kl' | 'maxKl'> {
  const positions = divergences.length;
  const meanKl = divergences.reduce((sum, value) => sum + value, 0) / positions;
  const variance = divergences.reduce((sum, value) => sum + (value - meanKl) ** 2, 0) / (positions - 1);
  const sorted = divergences.toSorted((a, b) => a - b);
  const [p99Kl = Number.NaN, maxKl = Number.NaN] = [sorted[Math.floor(0.99 * (positions - 1))], sorted.at(-1)];
  return { positions, meanKl, standardError: Math.sqrt(variance / positions), p99Kl, maxKl };
}

function line(path: string, { positions, meanKl, standardError, p99Kl, maxKl, sameArgmax, perplexityRatio }: Accuracy): string {
  const kl = `mean KL ${meanKl.toExponential(2)} (+- ${standardError.toExponential(1)}), 99% ${p99Kl.toExponential(1)}, most ${maxKl.toExponential(1)}`;
  return `  ${path.padEnd(52)} ${kl}, same argmax ${sameArgmax} of ${positions}, perplexity x ${perplexityRatio.toFixed(6)}`;
}

function rowsOf<T extends Float32Array | Float64Array>(values: T, width: number): readonly (Float32Array | Float64Array)[] {
  return Array.from({ length: values.length / width }, (_, row) => values.subarray(row * width, (row + 1) * width));
}

function largest(row: Float64Array): number {
  return row.reduce((best, value, i) => (value > (row[best] ?? Number.NEGATIVE_INFINITY) ? i : best), 0);
}
