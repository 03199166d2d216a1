/**
 * llama.cpp's Vulkan backend through node-llama-cpp, on the same file and with the same prompt: the fastest choice of a TypeScript user before. Its package folder is in the
 * environment variable NLC. It runs in a process of its own: two Vulkan users in one process disturb each other.
 */

import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type BenchModel, promptIds } from '../support/models.js';
import { type Figure, formatFigure, rates, spread } from '../support/result.js';

export interface LlamaOptions {
  /** Prompt tokens. */
  readonly prompt: number;
  /** Tokens to generate after it. */
  readonly tokens: number;
  readonly runs: number;
  readonly only?: 'prefill' | 'decode';
}

/** Tokens a second of single runs. */
interface LlamaRates {
  readonly version: string;
  readonly gpu: string;
  /** Seconds of the prompt, one a run. */
  readonly prefillSeconds: readonly number[];
  readonly decodeRates: readonly number[];
}

/** What llama.cpp does with the same model; none where the package is not there or fails, which is said. */
export async function llamaFigures({ name, path }: BenchModel, { prompt, tokens, runs, only }: LlamaOptions): Promise<readonly Figure[]> {
  const root = process.env['NLC'];
  if (root === undefined) {
    console.error('  llama.cpp is left out: NLC is to name the folder of the package node-llama-cpp');
    return [];
  }
  const script = fileURLToPath(import.meta.url);
  const child = spawnSync(process.execPath, [script, resolve(path), String(prompt), String(tokens), String(runs)], { encoding: 'utf8', timeout: 180_000 });
  const line = child.stdout.trim().split('\n').at(-1) ?? '';
  if (!line.startsWith('{')) {
    console.error(`  llama.cpp failed: ${child.stderr.trim().split('\n').at(-1) ?? child.signal ?? 'no answer'}`);
    return [];
  }
  const measured = JSON.parse(line) as LlamaRates;
  const by = `llama.cpp ${measured.gpu}, node-llama-cpp ${measured.version}`;
  const figures: Figure[] = [];
  if (only !== 'decode') figures.push({ name: `${name} of ${prompt} tokens`, ...rates(prompt, measured.prefillSeconds), unit: 'tok/s', by });
  if (only !== 'prefill') figures.push({ name: `${name} after ${prompt}`, ...spread(measured.decodeRates), unit: 'tok/s', by });
  for (const figure of figures) console.error(`${figure.name} by ${by}: ${formatFigure(figure)}`);
  return figures;
}

/** node-llama-cpp's calls as far as they are used: it is not installed with this project. */
interface Sequence {
  clearHistory(): Promise<void>;
  evaluateWithoutGeneratingNewTokens(tokens: readonly number[]): Promise<void>;
  evaluate(tokens: readonly number[], options: object): AsyncIterable<number>;
}

interface Llama {
  readonly gpu: string | false;
  loadModel(options: object): Promise<{ createContext(options: object): Promise<{ getSequence(): Sequence }> }>;
}

async function measure(path: string, prompt: number, tokens: number, runs: number): Promise<LlamaRates> {
  const root = resolve(process.env['NLC'] ?? '');
  const { getLlama } = (await import(pathToFileURL(join(root, 'dist/index.js')).href)) as { getLlama(options: object): Promise<Llama> };
  const { version } = createRequire(import.meta.url)(join(root, 'package.json')) as { version: string };
  const llama = await getLlama({ gpu: process.env['NLC_GPU'] === 'cpu' ? false : 'vulkan', build: 'never', skipDownload: true, logLevel: 'error' });
  const model = await llama.loadModel({ modelPath: path, gpuLayers: 'max' });
  const context = await model.createContext({ contextSize: Math.max(4096, prompt + tokens + 8), batchSize: 2048, flashAttention: true });
  const sequence = context.getSequence();
  const prefillSeconds: number[] = [];
  const decodeRates: number[] = [];
  // The first run compiles pipelines.
  for (let run = 0; run <= runs; run++) {
    await sequence.clearHistory();
    const started = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens(promptIds(prompt));
    const prefilled = performance.now();
    let [count, first] = [0, 0];
    for await (const _ of sequence.evaluate([5], { temperature: 0, yieldEogToken: true })) {
      if (count++ === 0) first = performance.now();
      if (count > tokens) break;
    }
    if (run === 0) continue;
    prefillSeconds.push((prefilled - started) / 1e3);
    decodeRates.push((count - 1) / ((performance.now() - first) / 1e3));
  }
  return { version, gpu: String(llama.gpu), prefillSeconds, decodeRates };
}

const [path, ...counts] = process.argv.slice(2);
if (process.argv[1] === fileURLToPath(import.meta.url) && path !== undefined) {
  const [prompt = 512, tokens = 128, runs = 3] = counts.map(Number);
  console.log(JSON.stringify(await measure(path, prompt, tokens, runs)));
  process.exit(0);
}
