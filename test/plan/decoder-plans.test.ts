import { describe, expect, test } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import type { DType } from '../../src/core/dtype.js';
import type { GpuKernel } from '../../src/core/kernel.js';
import type { TensorType } from '../../src/core/tensor.js';
import type { Graph } from '../../src/graph/graph.js';
import { rewrite } from '../../src/graph/rewrite.js';
import { rewriteDecode } from '../../src/graph/rewrite-decode.js';
import { gpuTarget } from '../../src/kernels/target.js';
import { architectures, type DecoderConfig } from '../../src/model/decoder-config.js';
import { decoderGraph } from '../../src/model/decoder-graph.js';
import type { Target } from '../../src/ops/target.js';
import type { ExecutionPlan, Location } from '../../src/plan/execution-plan.js';
import { planGraph } from '../../src/plan/plan.js';
import { replan } from '../../src/plan/replan.js';
import { syntheticModel } from '../support/synthetic.js';

const contextLength = 2048;

const subgroups: GpuCapabilities = { ...baseCapabilities, f16: true, packedDot: true, subgroups: true, subgroupMinSize: 32, subgroupMaxSize: 32 };
const matrices: GpuCapabilities = {
  ...subgroups,
  limits: { ...baseCapabilities.limits, maxComputeWorkgroupStorageSize: 49_152, maxComputeInvocationsPerWorkgroup: 1024 },
  subgroupMatrices: [{ componentType: 'f16', resultComponentType: 'f32', m: 16, n: 16, k: 16 }],
};

/** A decoder of an architecture's own kind. */
function decoder(architecture: string, dtype: DType, rows: number): Graph {
  const widths = { layers: 2, width: 256, feedForward: 512, heads: 4, kvHeads: 2, headWidth: 64, rotated: 64, vocabulary: 64 };
  const config: DecoderConfig = { ...syntheticModel().config, ...widths, ...architectures.get(architecture), architecture };
  const { width, feedForward, heads, kvHeads, headWidth, vocabulary, layers } = config;
  const matrix = (n: number, k: number): TensorType => ({ dtype, shape: [n, k] });
  const vector = (n: number): TensorType => ({ dtype: 'f32', shape: [n] });
  const parts: readonly (readonly [string, TensorType])[] = [
    ...['attn_norm', 'ffn_norm'].map((name) => [`${name}.weight`, vector(width)] as const),
    ...['attn_q_norm', 'attn_k_norm'].map((name) => [`${name}.weight`, vector(headWidth)] as const),
    ['attn_q.weight', matrix(heads * headWidth, width)],
    ['attn_q.bias', vector(heads * headWidth)],
    ...['attn_k', 'attn_v'].flatMap((name) => [
      [`${name}.weight`, matrix(kvHeads * headWidth, width)] as const,
      [`${name}.bias`, vector(kvHeads * headWidth)] as const,
    ]),
    ['attn_output.weight', matrix(width, heads * headWidth)],
    ['ffn_gate.weight', matrix(feedForward, width)],
    ['ffn_up.weight', matrix(feedForward, width)],
    ['ffn_down.weight', matrix(width, feedForward)],
  ];
  const weights = new Map<string, TensorType>([
    ['token_embd.weight', matrix(vocabulary, width)],
    ['output_norm.weight', vector(width)],
    ...Array.from({ length: layers }, (_, layer) => parts.map(([part, type]) => [`blk.${layer}.${part}`, type] as const)).flat(),
  ]);
  return rewrite(decoderGraph(config, weights, { rows, maxRows: rows, contextLength, cacheType: 'f16', logits: 'next' })).graph;
}

/** Follows who wrote each slot of memory last: what a step reads must come from the last step that wrote that value. Gives the number of reads of the arena. */
function replay(plan: ExecutionPlan<GpuKernel>): number {
  const unit = plan.target.memory.alignment;
  const writers = new Map<string, number>();
  const made = new Map<number, number>();
  const slotsOf = ({ bank, offset, byteLength }: Location): string[] =>
    Array.from({ length: Math.ceil(byteLength / unit) }, (_, i) => `${bank} ${offset / unit + i}`);
  let reads = 0;
  plan.steps.forEach((step, index) => {
    const inArena = step.args.filter(({ location }) => location.storage === 'arena');
    for (const { value, access, location } of inArena) {
      const source = access === 'readwrite' ? step.consumes : value;
      if (access === 'write' || source === undefined) continue;
      const maker = made.get(plan.values.get(source)?.root ?? source);
      expect(maker, `the step before ${step.label} that made value ${value}`).toBeDefined();
      const strange = slotsOf(location).find((slot) => writers.get(slot) !== maker);
      expect(strange, `${step.label} reads value ${value} there`).toBeUndefined();
      reads++;
    }
    for (const { value, access, location } of inArena) {
      if (access === 'read') continue;
      made.set(plan.values.get(value)?.root ?? value, index);
      for (const slot of slotsOf(location)) writers.set(slot, index);
    }
  });
  return reads;
}

function fusedOps(graph: Graph, target: Target<GpuKernel>, window: number): Graph {
  return rewriteDecode(graph, (node) => target.refuses?.(node), window).graph;
}

describe.each(['llama', 'qwen2', 'qwen3'])('in the plans of a whole %s every step reads what was written for it', (architecture) => {
  test.each<[string, GpuCapabilities, DType, 1 | 48]>([
    ['one row on a poor device', baseCapabilities, 'f32', 1],
    ['one row, 8-bit activations handed on', subgroups, 'q4_k', 1],
    ['one row, half of the steps fused', subgroups, 'f16', 1],
    ['a prompt on a poor device', baseCapabilities, 'q8_0', 48],
    ['a prompt on matrices, f16 copies shared', matrices, 'q4_k', 48],
  ])('%s', (_name, capabilities, dtype, rows) => {
    const target = gpuTarget(capabilities, { activations: 'int8', leastMatrixRows: 1 });
    const graph = decoder(architecture, dtype, rows);
    for (const window of rows === 1 ? [512, contextLength] : [contextLength]) {
      const plan = planGraph(rows === 1 ? fusedOps(graph, target, window) : graph, target);
      expect(replay(plan)).toBeGreaterThanOrEqual(plan.graph.nodes.filter(({ op }) => op === 'linear' || op === 'tokenLinear').length);
    }
  });
});

describe('a plan made again for another window', () => {
  const target = gpuTarget(subgroups, { activations: 'int8', leastMatrixRows: 1 });
  const graph = fusedOps(decoder('qwen3', 'q4_k', 1), target, 512);
  const plan = planGraph(graph, target);
  const within = (window: number): Graph => ({
    ...graph,
    nodes: graph.nodes.map((node) => (node.op === 'attendToken' ? { ...node, params: { ...node.params, window } } : node)),
  });
  const stepsOf = (found: ExecutionPlan<GpuKernel> | undefined): unknown => found?.steps.map(({ kernel, ...step }) => ({ ...step, kernel: kernel.key }));

  test('is what planning gives, and places nothing anew', () => {
    for (const window of [640, 1024]) {
      const again = replan(plan, within(window));
      expect(stepsOf(again)).toEqual(stepsOf(planGraph(within(window), target)));
      expect(again?.memory).toBe(plan.memory);
      expect(stepsOf(again)).not.toEqual(stepsOf(plan));
    }
    expect(stepsOf(replan(plan, within(512)))).toEqual(stepsOf(plan));
  });

  test('is refused where attention takes other steps, or where more than parameters differ', () => {
    expect(replan(plan, within(contextLength))).toBeUndefined();
    expect(replan(plan, fusedOps(decoder('qwen3', 'q4_k', 1), target, 640))).toBeUndefined();
    expect(replan(plan, { ...graph, outputs: [...graph.outputs] })).toBeUndefined();
  });
});
