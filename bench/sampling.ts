/**
 * Drawing a token on the device: both dispatches of `redraw`, by the device's clock, over vocabularies of released models and sets of options. Many draws in one pass, one after another as in
 * decoding. The logits are a bell of standard deviation 3, of which some thousand tokens hold the mass.
 * Arguments: --vocabulary=N,... (default 32000,128256,151936,262144), --threads=N of the workgroup that draws (default: as selected).
 */

import { resolveSampling } from '../src/engine/sampler.js';
import { GpuDevice } from '../src/gpu/device.js';
import { drawKernel } from '../src/kernels/sampling/draw.js';
import { drawThreads } from '../src/kernels/sampling/rule.js';
import { surveyKernel } from '../src/kernels/sampling/survey.js';
import { surveyLayout } from '../src/kernels/sampling/text.js';
import { subgroupRange } from '../src/kernels/template.js';
import { type SamplingParameters, samplingHeader, samplingWords } from '../src/ops/sampling-state.js';
import { stateWords } from '../src/ops/state.js';
import { jobOf, storageBuffer, timeJobs, timeSteady } from './gpu-timer.js';
import { BenchArgs } from './support/args.js';
import type { BenchResult, Figure } from './support/result.js';

export const summary = 'drawing a token on the device, by its clock';

const plain: SamplingParameters = resolveSampling({ seed: 1 });

const settings: readonly (readonly [name: string, parameters: SamplingParameters])[] = [
  ['defaults', plain],
  ['defaults and penalties', { ...plain, repetitionPenalty: 1.1, frequencyPenalty: 0.1 }],
  ['top-k 1000', { ...plain, topK: 1000 }],
  ['min-p alone', { ...plain, topK: 0, topP: 1 }],
  ['top-p alone', { ...plain, temperature: 1, topK: 0, topP: 0.9, minP: 0 }],
  ['no filter', { ...plain, temperature: 1, topK: 0, topP: 1, minP: 0 }],
  ['temperature 0, penalties', { ...plain, temperature: 0, repetitionPenalty: 1.1 }],
];

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { values: ['vocabulary', 'threads'] });
  const gpu = await GpuDevice.request();
  const threads = known.count('threads', drawThreads(gpu.capabilities));
  const figures: Figure[] = [];
  for (const vocabulary of known.counts('vocabulary', [32_000, 128_256, 151_936, 262_144])) figures.push(...(await measure(gpu, vocabulary, threads)));
  const adapter = gpu.adapterInfo.name;
  gpu.dispose();
  return { adapter, figures };
}

async function measure(gpu: GpuDevice, vocabulary: number, threads: number): Promise<Figure[]> {
  const subgroups = subgroupRange(gpu.capabilities);
  const buffer = (words: number): GPUBuffer => storageBuffer(gpu, words * 4);
  const [session, sampling, logits, y] = [buffer(stateWords(1)), buffer(samplingWords(vocabulary)), buffer(vocabulary), buffer(1)];
  const [survey, list] = [buffer(surveyLayout(vocabulary).words), buffer(2 * vocabulary)];
  gpu.queue.writeBuffer(logits, 0, bell(vocabulary, 3));
  const first = await jobOf(gpu, surveyKernel(vocabulary, subgroups), [logits, sampling, survey]);
  const second = await jobOf(gpu, drawKernel(vocabulary, { threads, subgroups }), [session, sampling, logits, survey, list, y]);
  const figures: Figure[] = [];
  for (const [name, parameters] of settings) {
    const words = new Uint32Array(samplingWords(vocabulary));
    words.set(samplingHeader(parameters));
    gpu.queue.writeBuffer(sampling, 0, words);
    const [both, alone] = [await timeSteady(gpu, [first, second]), await timeJobs(gpu, [first], 50)];
    const [value = 0, least = 0, most = 0, surveyed = 0] = [both.median, both.least, both.most, alone.median].map((s) => Math.round(s * 1e8) / 100);
    figures.push({ name: `${vocabulary} tokens, ${name}`, value, unit: 'us', least, most, samples: 5, checks: gpu.checks, details: { threads, surveyed } });
    console.error(`${vocabulary} tokens, ${name}: ${value} us (${least} to ${most}), of which the survey ${surveyed}; ${threads} threads`);
  }
  for (const each of [session, sampling, logits, y, survey, list]) each.destroy();
  return figures;
}

/** Normal deviates, from a counter, the same on every machine. */
function bell(count: number, deviation: number): Float32Array<ArrayBuffer> {
  const uniform = (i: number): number => {
    const h = Math.imul(i ^ (i >>> 15), 0x2c1b3c6d);
    return ((Math.imul(h ^ (h >>> 12), 0x297a2d39) >>> 8) + 0.5) / 2 ** 24;
  };
  return Float32Array.from({ length: count }, (_, i) => deviation * Math.sqrt(-2 * Math.log(uniform(2 * i + 1))) * Math.cos(2 * Math.PI * uniform(2 * i + 2)));
}
