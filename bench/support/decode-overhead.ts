/** What a decode step costs beside its kernels: the clock of whole generations, the device's clock at both ends of every submit, and the garbage made. */

import { loadModel } from '../../src/engine/load.js';
import type { Model } from '../../src/engine/model.js';
import type { GpuDevice } from '../../src/gpu/device.js';
import { type BenchModel, promptIds } from './models.js';
import { busyAndIdle, watchPasses } from './pass-times.js';
import { type Figure, formatFigure, spread, type Unit } from './result.js';

interface Options {
  readonly tokens: number;
  readonly context: number;
}

interface Generated {
  readonly tokens: number;
  readonly clockMs: number;
  readonly busyMs: number;
  readonly idleMs: number;
  readonly longestMs: number;
  readonly submits: number;
  readonly heapBytes: number;
}

/** Three generations of each length after one to warm up: a long one, and one of 128 tokens, whose beginning weighs more. */
export async function decodeOverhead(gpu: GpuDevice, { name, path }: BenchModel, { tokens, context }: Options): Promise<Figure[]> {
  using model = await loadModel(path, { device: gpu, contextLength: context + tokens, tuning: 'none' });
  const prompt = promptIds(context);
  const figures: Figure[] = [];
  await generated(gpu, model, prompt, tokens);
  for (const count of new Set([tokens, Math.min(tokens, 128)])) {
    const runs: Generated[] = [];
    for (let i = 0; i < 3; i++) runs.push(await generated(gpu, model, prompt, count));
    const figure = (what: string, unit: Unit, value: (run: Generated) => number): Figure => ({
      name: `${name}, ${count} tokens after ${context}: ${what}`,
      ...spread(runs.map(value)),
      unit,
      checks: gpu.checks,
    });
    figures.push(
      figure('a token by the clock', 'us', ({ clockMs, tokens }) => (clockMs * 1e3) / tokens),
      figure('a token on the device', 'us', ({ busyMs, tokens }) => (busyMs * 1e3) / tokens),
      figure('a token between submits', 'us', ({ idleMs, tokens }) => (idleMs * 1e3) / tokens),
      figure('longest time between submits', 'ms', ({ longestMs }) => longestMs),
      figure('growth of the heap', 'MiB', ({ heapBytes }) => heapBytes / 2 ** 20),
      figure('submits', 'count', ({ submits }) => submits),
    );
  }
  for (const figure of figures) console.error(`  ${figure.name}: ${formatFigure(figure)}`);
  return figures;
}

/** The passes after the prompt's: those that follow the first token. */
async function generated(gpu: GpuDevice, model: Model, prompt: readonly number[], count: number): Promise<Generated> {
  const watch = watchPasses(gpu);
  const heapBefore = process.memoryUsage().heapUsed;
  // A random model may end early.
  const { timings } = await model.generate(prompt, { maxTokens: count, temperature: 0 }).result;
  const heapBytes = process.memoryUsage().heapUsed - heapBefore;
  const passes = (await watch.stop()).slice(1);
  return { tokens: Math.max(1, timings.generatedTokens - 1), clockMs: timings.generationMs, ...busyAndIdle(passes), submits: passes.length, heapBytes };
}
