/**
 * Decoding of models by the clock, greedy unless a temperature is given: tokens a second of whole `generate` calls after a prompt, median and spread of the runs, the heap after
 * each of them (--expose-gc is not needed: what matters is that it does not grow), and the slowest steps of one decode run.
 * Arguments: model files, --synthetic=NAME:MIX; --context=N,... prompt tokens (default 512), --tokens=N (default 128), --runs=N (default 5), --device=webgpu or cpu, --checked,
 * --peers: the same files by the peers that are installed; --temperature=T, --top-k=K, --top-p=P, --min-p=P, --repetition-penalty=R: draw, as `generate` does; --host: draw on the host;
 * --unfilled: greedy steps over a cache of zeros, for contexts whose prompt would take minutes; --tuned: with the kernel shapes that `centella tune` measured on this adapter, which figures are told
 * apart by: without it the shipped shapes are measured, whatever file there is; --without=packed-dot,subgroups,...: as a device that lacks them (packed-dot: activations stay f32).
 */

import { byteLengthOfType } from '../src/core/tensor.js';
import type { GenerateOptions } from '../src/engine/generate-options.js';
import { loadModel } from '../src/engine/load.js';
import type { Model } from '../src/engine/model.js';
import type { SamplingOptions } from '../src/engine/sampler.js';
import type { Decoder } from '../src/model/decoder.js';
import { decoderNames } from '../src/model/decoder-graph.js';
import { profileRows } from '../src/runtime/profile.js';
import type { DeviceChoice } from '../src/runtime/select.js';
import type { TuningReport } from '../src/runtime/tuning-file.js';
import { WebGpuBackend } from '../src/runtime/webgpu-backend.js';
import { llamaFigures } from './peers/llama.js';
import { BenchArgs } from './support/args.js';
import { maskOf } from './support/mask.js';
import { type BenchModel, modelOptions, modelsOf, promptIds } from './support/models.js';
import { type BenchResult, type Figure, formatFigure, spread } from './support/result.js';

export const summary = 'decode tokens a second of GGUF models, by the clock';

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, {
    flags: ['checked', 'peers', 'host', 'unfilled', 'tuned'],
    values: [...modelOptions, 'context', 'tokens', 'runs', 'device', 'without', ...samplingNames.keys()],
  });
  const [tokens, runs] = [known.count('tokens', 128), known.count('runs', 5)];
  const figures: Figure[] = [];
  let adapter = '';
  for (const model of await modelsOf(known)) {
    for (const context of known.counts('context', [512])) {
      const options = {
        context,
        tokens,
        runs,
        device: known.device(),
        checked: known.flag('checked'),
        unfilled: known.flag('unfilled'),
        tuned: known.flag('tuned'),
        without: known.list('without'),
        sampling: samplingOf(known),
      };
      const measured = await measure(model, options);
      adapter = measured.adapter;
      figures.push(measured.figure);
      if (known.flag('peers')) figures.push(...(await llamaFigures(model, { prompt: context, tokens, runs, only: 'decode' })));
    }
  }
  return { adapter, figures };
}

interface Options {
  readonly context: number;
  readonly tokens: number;
  readonly runs: number;
  readonly device: DeviceChoice;
  readonly checked: boolean;
  readonly unfilled: boolean;
  readonly tuned: boolean;
  readonly without: readonly string[];
  readonly sampling: GenerateOptions;
}

const samplingNames: ReadonlyMap<string, keyof SamplingOptions> = new Map([
  ['temperature', 'temperature'],
  ['top-k', 'topK'],
  ['top-p', 'topP'],
  ['min-p', 'minP'],
  ['repetition-penalty', 'repetitionPenalty'],
]);

/** Greedy without a temperature; with one, what is not given has the default of `generate`. */
function samplingOf(args: BenchArgs): GenerateOptions {
  const given = [...samplingNames].flatMap(([name, option]) => (args.text(name) === undefined ? [] : [[option, Number(args.text(name))] as const]));
  return { temperature: 0, seed: 1, ...Object.fromEntries(given), ...(args.flag('host') ? { adjustLogits: () => undefined } : {}) };
}

async function measure(
  { name, path }: BenchModel,
  { context, tokens, runs, device, checked, unfilled, tuned, without, sampling }: Options,
): Promise<{ adapter: string; figure: Figure }> {
  const contextLength = Math.max(1024, context + tokens);
  using model = await loadModel(path, { device, checked, mask: maskOf(without), contextLength, tuning: tuned ? 'auto' : 'none' });
  const tuning = tuned ? tuningOf(model) : undefined;
  const prompt = promptIds(context);
  if (unfilled) await clearCache(model.decoder);
  const rates: number[] = [];
  const heapMiB: number[] = [];
  for (let i = 0; i < runs + 2; i++) {
    // A random model may end early: the rates count what was generated.
    const rate = unfilled
      ? await greedyRate(model.decoder, context, tokens)
      : (await model.generate(prompt, { maxTokens: tokens, ...sampling }).result).timings.generationTokensPerSecond;
    if (i < 2) continue;
    rates.push(rate);
    heapMiB.push(Math.round((process.memoryUsage().heapUsed / 2 ** 20) * 10) / 10);
  }
  const { name: adapter, checks } = model.backend;
  const drawn = sampling.temperature === 0 ? '' : sampling.adjustLogits === undefined ? ' drawn' : ' drawn on the host';
  const figure: Figure = {
    name: `${name} after ${context}${unfilled ? ' zeros' : drawn}${tuned ? ' tuned' : ''}${without.map((what) => ` without ${what}`).join('')}`,
    ...spread(rates),
    unit: 'tok/s',
    checks,
    details: { tokens, heapMiB, load: model.loadTimings, ...(drawn === '' ? {} : { sampling }), ...(tuning === undefined ? {} : { tuning }) },
  };
  console.error(`${figure.name}: ${formatFigure(figure)}, ${runs} runs of ${tokens} tokens, ${checks}, ${adapter}`);
  console.error(`  heap after each run: ${heapMiB.join(', ')} MiB`);
  const rows = profileRows(await model.profile(), (label) => label.replace(/^blk\.\d+\./, '')).slice(0, 6);
  console.error(`  ${rows.map(({ label, microseconds }) => `${label} ${microseconds.toFixed(0)} us`).join(', ')}`);
  return { adapter, figure };
}

/** @throws Error where no measured shape would be used: the figure would be called what it is not. */
function tuningOf({ decoder: { backend } }: Model): TuningReport {
  if (backend instanceof WebGpuBackend && backend.tuning.used.length > 0) return backend.tuning;
  throw new Error(`--tuned: no measured shapes for ${backend.name}: run \`centella tune MODEL\` first`);
}

/** Zeros in every key and value: what stands in fresh memory may be no numbers. */
async function clearCache({ config, tensors }: Decoder): Promise<void> {
  for (let layer = 0; layer < config.layers; layer++)
    for (const name of [decoderNames.keys(layer), decoderNames.values(layer)]) {
      const type = tensors.get(name)?.type;
      if (type !== undefined) await tensors.write(name, new Uint8Array(byteLengthOfType(type)));
    }
}

/** Tokens a second of greedy steps after `context` positions that were never fed. */
async function greedyRate(decoder: Decoder, context: number, tokens: number): Promise<number> {
  decoder.assume(context - 1);
  await decoder.nextToken([1]);
  const start = performance.now();
  for (let left = tokens; left > 0; left--) await decoder.continueGreedy(left);
  return (tokens * 1e3) / (performance.now() - start);
}
