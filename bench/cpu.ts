/**
 * The CPU backend, one thread, on random weights: the product with an output matrix in GB/s of packed weights, a prompt-sized product in GOP/s, and a whole
 * decoder of Qwen3-0.6B's shape with all its weights in one type: tokens per second of a prompt and of decoding after it.
 * Arguments: rounds (default 5), then weight types (default: q8_0 q4_0 q4_k q6_k).
 */

import type { DType } from '../src/core/dtype.js';
import type { TensorType } from '../src/core/tensor.js';
import { type CpuDevice, type CpuExecutable, CpuDevice as Device } from '../src/cpu/executor.js';
import type { CpuKernel } from '../src/cpu/kernel.js';
import { cpuTarget } from '../src/cpu/target.js';
import { GraphBuilder } from '../src/graph/builder.js';
import type { Graph } from '../src/graph/graph.js';
import { rewrite } from '../src/graph/rewrite.js';
import type { DecoderConfig } from '../src/model/decoder-config.js';
import { decoderGraph, decoderNames } from '../src/model/decoder-graph.js';
import { stateWord } from '../src/ops/state.js';
import type { ExecutionPlan, Location } from '../src/plan/execution-plan.js';
import { planGraph } from '../src/plan/plan.js';

export const summary = 'the CPU backend: products and a whole decoder, one thread';

const config: DecoderConfig = {
  architecture: 'qwen3',
  ropePairing: 'halves',
  qkvBias: false,
  qkNorm: true,
  layers: 28,
  width: 1024,
  feedForward: 3072,
  heads: 16,
  kvHeads: 8,
  headWidth: 128,
  vocabulary: 151_936,
  eps: 1e-6,
  rotated: 128,
  ropeBase: 1e6,
  ropePositionScale: 1,
  trainedContext: 40_960,
};
const promptTokens = 128;
const contextLength = 256;

/** Leaves and banks of plans on one device; leaves of one name are shared, as prefill and decode share them. */
class Machine {
  readonly device: CpuDevice = new Device();
  readonly #leaves = new Map<string, number>();

  async prepare(graph: Graph): Promise<{ readonly executable: CpuExecutable; readonly plan: ExecutionPlan<CpuKernel> }> {
    const plan = planGraph(graph, cpuTarget());
    const banks = plan.memory.banks.map((bytes) => this.device.allocate('bank', 'arena', bytes).offset);
    const offset = (location: Location): number => {
      const start = location.storage === 'arena' ? banks[location.bank] : this.leaf(plan, location.owner);
      if (start === undefined) throw new Error('nothing is allocated there');
      return start + location.offset;
    };
    const steps = plan.steps.map(({ kernel, args }) => ({
      kernel,
      args: args.map(({ location }) => ({ offset: offset(location), byteLength: location.byteLength })),
    }));
    return { executable: await this.device.prepare(steps), plan };
  }

  /** The address of a leaf; weights are random, vectors ones, states zeros. */
  leaf(plan: ExecutionPlan<CpuKernel>, owner: number): number {
    const value = plan.values.get(owner);
    if (value === undefined) throw new Error(`no value ${owner}`);
    const known = this.#leaves.get(value.name);
    if (known !== undefined) return known;
    const { offset, size } = this.device.allocate(value.name, value.storage === 'param' ? 'weights' : 'state', value.byteLength);
    if (value.storage === 'param') {
      const matrix = value.type.shape.length === 2;
      this.device.write(offset, matrix ? randomBytes(size) : new Uint8Array(new Float32Array(size / 4).fill(1).buffer));
    }
    this.#leaves.set(value.name, offset);
    return offset;
  }

  address(name: string): number {
    const offset = this.#leaves.get(name);
    if (offset === undefined) throw new Error(`no leaf ${name}`);
    return offset;
  }
}

/** Any two bytes are an f16 or bf16 of ordinary size: subnormal scales are slower. */
function randomBytes(count: number): Uint8Array {
  const words = new Uint32Array(count / 4);
  let state = 1;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[i] = (state & 0x97979797) | 0x10101010;
  }
  return new Uint8Array(words.buffer);
}

/** Milliseconds of `rounds` runs, shortest first, after enough runs for the engine's optimising compiler. */
async function time(run: () => void, rounds: number): Promise<readonly number[]> {
  const warm = performance.now();
  do run();
  while (performance.now() - warm < 300);
  await new Promise((resolve) => setTimeout(resolve, 50));
  const times = Array.from({ length: rounds }, () => {
    const start = performance.now();
    run();
    return performance.now() - start;
  });
  return times.sort((a, b) => a - b);
}

/** "7.1 ms (6.9 to 8.0)". */
function spread(times: readonly number[]): string {
  const [low, middle, high] = [times[0], times[times.length >> 1], times.at(-1)].map((ms) => (ms ?? Number.NaN).toFixed(1));
  return `${middle} ms (${low} to ${high})`;
}

async function measureProduct(dtype: DType, rows: number, columns: number, tokens: number, rounds: number): Promise<void> {
  const machine = new Machine();
  const g = new GraphBuilder();
  const weight: TensorType = { dtype, shape: [rows, columns] };
  g.output('y', g.linear(g.input('x', { dtype: 'f32', shape: [tokens, columns] }), g.param('w', weight), {}, 'y'));
  const { executable } = await machine.prepare(g.build());
  const times = await time(() => executable.run(), rounds);
  const median = times[times.length >> 1] ?? Number.NaN;
  const rate =
    tokens === 1
      ? `${(cpuTarget().weights.byteLength(weight) / median / 1e6).toFixed(1)} GB/s`
      : `${((2 * rows * columns * tokens) / median / 1e6).toFixed(1)} GOP/s`;
  console.log(`${dtype.padEnd(5)} ${rows} x ${columns}, ${tokens} token${tokens === 1 ? '' : 's'}: ${spread(times)}, ${rate}`);
  machine.device.dispose();
}

/** Types of all weights of the decoder: matrices in one type, vectors in f32. */
function decoderWeights(dtype: DType): ReadonlyMap<string, TensorType> {
  const { width, heads, kvHeads, headWidth, feedForward, vocabulary } = config;
  const matrix = (...shape: number[]): TensorType => ({ dtype, shape });
  const vector = (size: number): TensorType => ({ dtype: 'f32', shape: [size] });
  const layer = {
    'attn_norm.weight': vector(width),
    'attn_q.weight': matrix(heads * headWidth, width),
    'attn_k.weight': matrix(kvHeads * headWidth, width),
    'attn_v.weight': matrix(kvHeads * headWidth, width),
    'attn_q_norm.weight': vector(headWidth),
    'attn_k_norm.weight': vector(headWidth),
    'attn_output.weight': matrix(width, heads * headWidth),
    'ffn_norm.weight': vector(width),
    'ffn_gate.weight': matrix(feedForward, width),
    'ffn_up.weight': matrix(feedForward, width),
    'ffn_down.weight': matrix(width, feedForward),
  };
  const layers = Array.from({ length: config.layers }, (_, i) => Object.entries(layer).map(([part, type]) => [`blk.${i}.${part}`, type] as const)).flat();
  return new Map([['token_embd.weight', matrix(vocabulary, width)], ...layers, ['output_norm.weight', vector(width)]]);
}

async function measureDecoder(dtype: DType, rounds: number): Promise<void> {
  const machine = new Machine();
  const graph = (rows: number): Graph =>
    rewrite(decoderGraph(config, decoderWeights(dtype), { rows, contextLength, maxRows: promptTokens, cacheType: 'f32', logits: 'next' })).graph;
  const start = performance.now();
  const [decode, prefill] = [await machine.prepare(graph(1)), await machine.prepare(graph(promptTokens))];
  const prepared = performance.now() - start;
  const setState = (position: number, rows: number): void => {
    const words = new Uint32Array(2);
    words[stateWord.position] = position;
    words[stateWord.rows] = rows;
    machine.device.write(machine.address(decoderNames.session), new Uint8Array(words.buffer));
  };
  const prompt = await time(() => {
    setState(0, promptTokens);
    prefill.executable.run();
  }, rounds);
  const token = await time(() => {
    setState(promptTokens, 1);
    decode.executable.run();
  }, rounds * 4);
  const rate = (tokens: number, times: readonly number[]): string => ((1000 * tokens) / (times[times.length >> 1] ?? Number.NaN)).toFixed(1);
  console.log(
    `${dtype.padEnd(5)} decoder: prompt of ${promptTokens} ${spread(prompt)}, ${rate(promptTokens, prompt)} tokens/s; token ${spread(token)}, ${rate(1, token)} tokens/s`,
  );
  console.log(`      weights made, kernels compiled in ${prepared.toFixed(0)} ms; of a token, by kind: ${shares(decode)}; of the prompt: ${shares(prefill)}`);
  machine.device.dispose();
}

/** Percentages of one run by kernel family, largest first. */
function shares({ executable, plan }: { readonly executable: CpuExecutable; readonly plan: ExecutionPlan<CpuKernel> }): string {
  const byFamily = new Map<string, number>();
  const times = executable.profile();
  plan.steps.forEach(({ kernel }, i) => {
    byFamily.set(kernel.family, (byFamily.get(kernel.family) ?? 0) + (times[i] ?? 0));
  });
  const total = times.reduce((a, b) => a + b, 0);
  const sorted = [...byFamily].sort(([, a], [, b]) => b - a).slice(0, 6);
  return sorted.map(([family, ms]) => `${family} ${((100 * ms) / total).toFixed(1)}%`).join(', ');
}

export async function run(args: readonly string[]): Promise<void> {
  const rounds = Number(args[0] ?? 5);
  const types = args.slice(1);
  for (const dtype of (types.length > 0 ? types : ['q8_0', 'q4_0', 'q4_k', 'q6_k']) as readonly DType[]) {
    await measureProduct(dtype, config.vocabulary, config.width, 1, rounds * 3);
    await measureProduct(dtype, config.feedForward, config.width, promptTokens, rounds * 3);
    await measureDecoder(dtype, rounds);
  }
}
