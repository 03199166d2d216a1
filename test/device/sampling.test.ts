import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { resolveSampling, Sampler } from '../../src/engine/sampler.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { redrawCases } from '../../src/ops/cases/sampling.js';
import { type SamplingParameters, samplingHeader, samplingWord, samplingWords } from '../../src/ops/sampling-state.js';
import { stateWords } from '../../src/ops/state.js';
import { checkCase } from '../../src/runtime/check.js';
import { CompiledGraph } from '../../src/runtime/compiled-graph.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { dealt } from '../support/share.js';

const backends: WebGpuBackend[] = [];
/** Draws run unchecked, as they do for users: nothing is cleared before a kernel starts. */
const [checked, unchecked] = [0, 1];
const vocabulary = 600;

beforeAll(async () => {
  for (const isChecked of [true, false]) backends.push(new WebGpuBackend(await GpuDevice.request({ checked: isChecked })));
});
afterAll(() => {
  for (const backend of backends) backend.dispose();
});

function backendOf(index: number): WebGpuBackend {
  const backend = backends[index];
  if (backend === undefined) throw new Error('the device was not opened');
  return backend;
}

// Each vocabulary is two kernels to compile: the cases of three of them are dealt out, those of the fourth serve the draws below too.
const own = redrawCases().filter((opCase) => opCase.inputs[2]?.type.shape[1] === vocabulary);
const others = [7, 4099, 8200].map((size) => redrawCases().filter((opCase) => opCase.inputs[2]?.type.shape[1] === size));

test.each([...own, ...dealt(others).flat()].map((opCase) => [opCase.name, opCase] as const))('%s', async (_, opCase) => {
  expect(await checkCase(backendOf(checked), opCase)).toMatchObject({ ok: true });
});

describe('a stream of draws', () => {
  const plain: SamplingParameters = resolveSampling({ temperature: 0.9, seed: 0 });
  /** Six likely tokens, by their probabilities, and many that are not. */
  const likely = new Map([3, 77, 78, 300, 598, 599].map((token, i) => [token, [0.02, 0.08, 0.1, 0.2, 0.25, 0.35][i] ?? 0]));
  const logits = Float32Array.from({ length: vocabulary }, (_, token) => Math.log(likely.get(token) ?? 1e-5 * (1 + (token % 7))));

  /** Tokens drawn one after another from the same logits, nothing uploaded in between. */
  async function drawn(parameters: SamplingParameters, draws: number): Promise<number[]> {
    const g = new GraphBuilder();
    const states = [g.state('session', { dtype: 'u32', shape: [stateWords(1)] }), g.state('sampling', { dtype: 'u32', shape: [samplingWords(vocabulary)] })];
    g.output('y', g.add('redraw', {}, [...states, g.input('logits', { dtype: 'f32', shape: [1, vocabulary] })], 'redraw'));
    const graph = await CompiledGraph.compile(g.build(), backendOf(unchecked));
    try {
      const words = new Uint32Array(samplingWords(vocabulary));
      words.set(samplingHeader(parameters));
      words[samplingWord.counts + 599] = 0x8000_0000;
      await graph.setState('sampling', words);
      const tokens: number[] = [];
      for (let i = 0; i < draws; i++) tokens.push(Number((await graph.run(i === 0 ? { logits } : {})).get('y')?.[0]));
      return tokens;
    } finally {
      graph.dispose();
    }
  }

  test.each<[string, Partial<SamplingParameters>]>([
    ['the usual filters', { seed: 5 }],
    ['penalties', { seed: 2 ** 40 + 3, temperature: 1.2, repetitionPenalty: 1.2, frequencyPenalty: 0.05, presencePenalty: 0.3 }],
    ['top-p over everything', { seed: 8, topK: 0, topP: 0.8, minP: 0 }],
  ])('is the one of the host: %s', async (_, options) => {
    const parameters = { ...plain, ...options };
    const sampler = new Sampler(parameters, [599]);
    expect(await drawn(parameters, 150)).toEqual(Array.from({ length: 150 }, () => sampler.next(logits.slice())));
  });

  test('follows the distribution: chi-square under the 0.1% point', async () => {
    const draws = 600;
    const tokens = await drawn({ ...plain, temperature: 1, topK: 6, topP: 1, minP: 0, seed: 21 }, draws);
    const chiSquare = [...likely].reduce((sum, [token, probability]) => {
      const count = tokens.filter((entry) => entry === token).length;
      return sum + (count - draws * probability) ** 2 / (draws * probability);
    }, 0);
    // 5 degrees of freedom.
    expect(chiSquare).toBeLessThan(20.52);
    expect(new Set(tokens).size).toBe(6);
  });
});
