import { describe, expect, test } from 'vitest';
import { elementCount } from '../../src/core/tensor.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { type Evaluation, evaluate, type LeafValues } from '../../src/graph/evaluate.js';
import type { Graph, NodeId } from '../../src/graph/graph.js';
import { type RewriteResult, rewrite } from '../../src/graph/rewrite.js';
import { type Refusal, rewriteDecode } from '../../src/graph/rewrite-decode.js';
import { architectures, type DecoderConfig } from '../../src/model/decoder-config.js';
import { decoderGraph } from '../../src/model/decoder-graph.js';
import { ropeTable } from '../../src/model/rope-table.js';
import { decoderTensors } from '../../src/model/tensors.js';
import type { OpName, OpParams } from '../../src/ops/params.js';
import { stateWord } from '../../src/ops/state.js';
import { syntheticModel } from '../support/synthetic.js';
import { f32, u32 } from './support.js';

const accepts: Refusal = () => undefined;
const contextLength = 8;
const position = 3;

const opsOf = (graph: Graph): readonly OpName[] => graph.nodes.filter((node) => node.inputs.length > 0).map((node) => node.op);
const countOf = (graph: Graph, op: OpName): number => opsOf(graph).filter((name) => name === op).length;

/** Small numbers for every leaf; the session stands at `position` with one live row. */
function leavesOf(graph: Graph): LeafValues {
  const [inputs, params, states] = [new Map<string, Float64Array>(), new Map<string, Float64Array>(), new Map<string, Float64Array>()];
  let at = 0;
  for (const node of graph.nodes) {
    if (node.op !== 'input' && node.op !== 'param' && node.op !== 'state') continue;
    const values = Float64Array.from({ length: elementCount(node.type.shape) }, () => ((at++ * 7919) % 33) / 32 - 0.5);
    const table = node.type.shape.length === 3 && node.op === 'param';
    const turns = (): Float64Array =>
      Float64Array.from(ropeTable({ positions: node.type.shape[0] ?? 0, rotated: (node.type.shape[1] ?? 0) * 2, base: 100, positionScale: 1 }));
    (node.op === 'input' ? inputs : node.op === 'param' ? params : states).set(node.params.name, table ? turns() : values);
  }
  const session = states.get('session')?.fill(0);
  session?.set([position, 1], 0);
  session?.set([5], stateWord.ids);
  return { inputs, params, states };
}

function expectSame(before: Evaluation, after: Evaluation): void {
  const pairs = [
    ...[...before.outputs].map(([name, { data }]) => [name, data, after.outputs.get(name)?.data] as const),
    ...[...before.states].map(([name, data]) => [name, data, after.states.get(name)] as const),
  ];
  for (const [name, wanted, got] of pairs) {
    expect(got?.length, name).toBe(wanted.length);
    const worst = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - (got?.[i] ?? Number.NaN))), 0);
    expect(worst, name).toBeLessThan(1e-12);
  }
}

/** The graph after both rewrites, which must compute the same as before. */
function fused(graph: Graph, refuses: Refusal = accepts, window = contextLength): RewriteResult {
  const result = rewriteDecode(rewrite(graph).graph, refuses, window);
  const leaves = leavesOf(graph);
  expectSame(evaluate(graph, leaves), evaluate(result.graph, leaves));
  return result;
}

/** A decoder of two layers, of an architecture's own kind. */
function decoder(architecture: string, rows = 1, changes: Partial<DecoderConfig> = {}): Graph {
  const { config: llama } = syntheticModel({ layers: 2, width: 16, feedForward: 24, heads: 4, kvHeads: 2, vocabulary: 12 });
  const config: DecoderConfig = { ...llama, ...architectures.get(architecture), architecture, ...changes };
  const { width, feedForward, heads, kvHeads, headWidth, vocabulary, layers } = config;
  const shapes: Readonly<Record<string, readonly number[]>> = {
    'attn_norm.weight': [width],
    'attn_q.weight': [heads * headWidth, width],
    'attn_k.weight': [kvHeads * headWidth, width],
    'attn_v.weight': [kvHeads * headWidth, width],
    'attn_q.bias': [heads * headWidth],
    'attn_k.bias': [kvHeads * headWidth],
    'attn_v.bias': [kvHeads * headWidth],
    'attn_q_norm.weight': [headWidth],
    'attn_k_norm.weight': [headWidth],
    'attn_output.weight': [width, heads * headWidth],
    'ffn_norm.weight': [width],
    'ffn_gate.weight': [feedForward, width],
    'ffn_up.weight': [feedForward, width],
    'ffn_down.weight': [width, feedForward],
  };
  const types = new Map([
    ['token_embd.weight', f32(vocabulary, width)],
    ['output_norm.weight', f32(width)],
    ...Array.from({ length: layers }, (_, i) => Object.entries(shapes).map(([part, shape]) => [`blk.${i}.${part}`, f32(...shape)] as const)).flat(),
  ]);
  return decoderGraph(config, decoderTensors(config, types), { rows, maxRows: rows, contextLength, cacheType: 'f32', logits: 'next' });
}

describe('the step of one token', () => {
  test.each(['llama', 'qwen2', 'qwen3'])('of %s computes the same in five operations a layer', (architecture) => {
    const { graph } = fused(decoder(architecture));
    expect(
      Object.fromEntries(['qkv', 'attendToken', 'tokenLinear', 'gatedProduct', 'chooseNext', 'gatherRows'].map((op) => [op, countOf(graph, op as OpName)])),
    ).toEqual({
      qkv: 2,
      attendToken: 2,
      // Of a layer the output and the down projection; the head.
      tokenLinear: 5,
      gatedProduct: 2,
      chooseNext: 1,
      // Of the embedding, and the angles of the position for all layers.
      gatherRows: 2,
    });
    for (const op of ['rmsNorm', 'linear', 'rope', 'cacheWrite', 'attention', 'argmax', 'advance'] as const) expect(countOf(graph, op)).toBe(0);
  });

  test('keeps biases, norms of heads, pairing and base with the operation that they belong to', () => {
    const { graph } = fused(decoder('qwen3'));
    const attends = graph.nodes.find((node) => node.op === 'attendToken');
    expect(attends?.params).toMatchObject({ pairing: 'halves', eps: 1e-5, window: contextLength });
    expect(attends?.inputs.slice(5).map((id) => graph.nodes[id]?.name)).toEqual(['blk.0.attn_q_norm.weight', 'blk.0.attn_k_norm.weight']);
    const biased = fused(decoder('qwen2')).graph.nodes.find((node) => node.op === 'qkv');
    expect(biased?.params).toMatchObject({ biases: true });
  });

  test('stays plain where the target refuses, and says why', () => {
    const only =
      (refused: OpName): Refusal =>
      ({ op }) =>
        op === refused ? `no ${refused} here` : undefined;
    for (const refused of ['qkv', 'attendToken'] as const) {
      const { graph, report } = fused(decoder('llama'), only(refused));
      expect([countOf(graph, 'qkv'), countOf(graph, 'attendToken'), countOf(graph, 'attention'), countOf(graph, 'cacheWrite')]).toEqual([0, 0, 2, 4]);
      expect(report).toContainEqual({ rule: refused, at: 'blk.0.attention', applied: false, reason: `no ${refused} here` });
      expect(report.filter(({ rule, applied }) => applied && (rule === 'qkv' || rule === 'attendToken'))).toEqual([]);
    }
    expect(countOf(fused(decoder('llama'), only('gatedProduct')).graph, 'swiglu')).toBe(2);
    const nothing = fused(decoder('llama'), () => 'nothing is wanted');
    expect(nothing.report.some((entry) => entry.applied)).toBe(false);
  });

  test('is left alone for several rows, but for what one row alone goes through', () => {
    const { graph } = rewriteDecode(rewrite(decoder('llama', 3)).graph, accepts, contextLength);
    expect([countOf(graph, 'qkv'), countOf(graph, 'attendToken'), countOf(graph, 'gatedProduct')]).toEqual([0, 0, 0]);
  });

  test('turns a part of each head where the model does', () => {
    expect(countOf(fused(decoder('llama', 1, { rotated: 2 })).graph, 'attendToken')).toBe(2);
  });
});

interface Parts {
  readonly g: GraphBuilder;
  readonly x: NodeId;
  readonly normed: NodeId;
  readonly gate: NodeId;
  readonly up: NodeId;
}

function gates(build: (parts: Parts) => NodeId): RewriteResult {
  const g = new GraphBuilder();
  const x = g.input('x', f32(1, 8));
  const normed = g.rmsNorm(x, g.param('gain', f32(8)), 1e-5);
  const [gate, up] = [g.linear(normed, g.param('gate', f32(6, 8))), g.linear(normed, g.param('up', f32(6, 8)))];
  g.output('y', build({ g, x, normed, gate, up }));
  return fused(g.build());
}

describe('gated products', () => {
  const gated = ({ g, gate, up }: Parts): NodeId => g.binary('mul', g.unary('silu', gate), up);

  test('have the gate first, whichever operand it was', () => {
    for (const build of [gated, ({ g, gate, up }: Parts) => g.binary('mul', up, g.unary('silu', gate))]) {
      const { graph } = gates(build);
      const node = graph.nodes.find(({ op }) => op === 'gatedProduct');
      expect(node?.inputs.map((id) => graph.nodes[id]?.name)).toEqual(['x', 'gain', 'gate', 'up']);
    }
  });

  test.each(['gelu', 'geluErf', 'relu', 'sigmoid', 'tanh'] as const)('with the gate %s stay what they are', (fn) => {
    expect(countOf(gates(({ g, gate, up }) => g.binary('mul', g.unary(fn, gate), up)).graph, 'gatedProduct')).toBe(0);
  });

  test('stay apart where a product is an output or has other readers', () => {
    const output = gates((parts) => {
      parts.g.output('up', parts.up);
      return gated(parts);
    });
    const read = gates((parts) => parts.g.binary('add', gated(parts), parts.gate));
    for (const { graph } of [output, read]) expect(countOf(graph, 'gatedProduct')).toBe(0);
  });

  test('stay apart where a product has a bias, or another input', () => {
    const bias = gates(({ g, gate, up }) => g.binary('mul', g.unary('silu', gate), g.binary('add', up, g.param('b', f32(6)))));
    const other = gates(({ g, x, gate }) => g.binary('mul', g.unary('silu', gate), g.linear(x, g.param('raw', f32(6, 8)))));
    for (const { graph } of [bias, other]) expect(countOf(graph, 'gatedProduct')).toBe(0);
  });

  test('keep a norm that is read elsewhere too', () => {
    const { graph } = gates((parts) => {
      parts.g.output('normed', parts.normed);
      return gated(parts);
    });
    expect([countOf(graph, 'gatedProduct'), countOf(graph, 'rmsNorm')]).toEqual([1, 1]);
  });
});

type Change = 'nothing' | 'keys are an output' | 'two tables' | 'two inputs' | 'a bias on one' | 'a residual' | 'a norm on one' | 'a sink';

/** Attention of one token with everything that it needs, `change` altering one part. */
function attends(change: Change, more: Omit<OpParams['attention'], 'scale'> = {}): Graph {
  const [heads, width] = [2, 4];
  const g = new GraphBuilder();
  const session = g.state('session', u32(72));
  const table = (name: string): NodeId => g.param(name, f32(contextLength, width / 2, 2));
  const turns = table('turns');
  const x = g.input('x', f32(1, 8));
  const normed = g.rmsNorm(x, g.param('gain', f32(8)), 1e-5);
  const product = (name: string, from: NodeId): NodeId => {
    const residual = change === 'a residual' ? x : undefined;
    const y = g.linear(from, g.param(name, f32(heads * width, 8)), residual === undefined ? {} : { residual });
    return g.reshape(change === 'a bias on one' && name === 'wk' ? g.binary('add', y, g.param('bk', f32(heads * width))) : y, [1, heads, width]);
  };
  const q = g.rope(product('wq', normed), turns, session, 'halves');
  const rawK = product('wk', normed);
  const k = g.rope(
    change === 'a norm on one' ? g.rmsNorm(rawK, g.param('k_gain', f32(width)), 1e-5) : rawK,
    change === 'two tables' ? table('others') : turns,
    session,
    'halves',
  );
  const v = product('wv', change === 'two inputs' ? x : normed);
  const keys = g.cacheWrite(g.state('keys', f32(heads, contextLength, width)), k, session);
  const values = g.cacheWrite(g.state('values', f32(heads, contextLength, width)), v, session);
  const sinks = change === 'a sink' ? g.param('sinks', f32(heads)) : undefined;
  g.output('y', g.attention(q, keys, values, session, { scale: 0.5, ...more, sinks }));
  if (change === 'keys are an output') g.output('keys', keys);
  return g.build();
}

describe('attention of one token', () => {
  test('takes in its products, RoPE and cache writes, and keeps its scale', () => {
    const { graph } = fused(attends('nothing'));
    expect(opsOf(graph).filter((op) => op !== 'reshape' && op !== 'narrow')).toEqual(['gatherRows', 'qkv', 'attendToken']);
    expect(graph.nodes.find(({ op }) => op === 'attendToken')?.params).toMatchObject({ scale: 0.5 });
  });

  test.each(['keys are an output', 'two tables', 'two inputs', 'a bias on one', 'a residual', 'a norm on one'] as const)(
    'stays plain where there is %s',
    (change) => {
      const { graph } = fused(attends(change));
      expect([countOf(graph, 'attendToken'), countOf(graph, 'attention')]).toEqual([0, 1]);
    },
  );

  test.each([
    [{ window: 8 }, 'nothing', 'sliding windows'],
    [{ softcap: 30 }, 'nothing', 'softcaps'],
    [{}, 'a sink', 'sinks'],
    [{ window: 8, softcap: 30 }, 'a sink', 'sliding windows and softcaps and sinks'],
  ] as const)('stays plain with %o and %s, and says so', (more, change, what) => {
    const { graph, report } = fused(attends(change, more));
    expect(countOf(graph, 'attendToken')).toBe(0);
    expect(graph.nodes.find(({ op }) => op === 'attention')?.params).toEqual({ scale: 0.5, ...more });
    expect(report).toContainEqual({ rule: 'attendToken', at: 'attention', applied: false, reason: `${what} attend in steps of their own` });
  });
});
