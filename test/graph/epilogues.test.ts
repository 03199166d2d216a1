import { afterAll, describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { evaluate } from '../../src/graph/evaluate.js';
import type { Graph, NodeId } from '../../src/graph/graph.js';
import { rewrite } from '../../src/graph/rewrite.js';
import { stateWords } from '../../src/ops/state.js';
import { CompiledGraph } from '../../src/runtime/compiled-graph.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { f32, u32 } from './support.js';

const backend = new CpuBackend();
afterAll(() => backend.dispose());

const ramp = (count: number): Float64Array => Float64Array.from({ length: count }, (_, i) => ((i * 7) % 13) / 4 - 1.5);
const values = { a: ramp(12), b: ramp(20), bias: ramp(5), residual: ramp(15) } as const;
const leaves = { inputs: new Map(Object.entries(values)) };

interface Leaves {
  readonly product: NodeId;
  readonly bias: NodeId;
  readonly residual: NodeId;
}

/** A product [3, 5] and what may follow it. */
function graphOf(build: (g: GraphBuilder, leaves: Leaves) => void): Graph {
  const g = new GraphBuilder();
  const [a, b] = [g.input('a', f32(3, 4)), g.input('b', f32(4, 5))];
  const added = { bias: g.input('bias', f32(5)), residual: g.input('residual', f32(3, 5)) };
  build(g, { product: g.matmul(a, b, { alpha: 0.5 }, 'product'), ...added });
  return g.build();
}

/** The rewritten graph, after a check that it computes what the original does, by the reference and on the CPU. */
async function fused(graph: Graph): Promise<ReturnType<typeof rewrite>> {
  const result = rewrite(graph, { regions: true });
  const [before, after] = [evaluate(graph, leaves).outputs, evaluate(result.graph, leaves).outputs];
  expect([...after].map(([name, { data, shape }]) => [name, shape, [...data]])).toEqual([...before].map(([name, { data, shape }]) => [name, shape, [...data]]));
  const compiled = await CompiledGraph.compile(graph, backend, { regions: true });
  try {
    const names = new Set(result.graph.nodes.flatMap((node) => (node.op === 'input' ? [node.params.name] : [])));
    const given = Object.entries(values).flatMap(([name, data]) => (names.has(name) ? [[name, Float32Array.from(data)] as const] : []));
    const outputs = await compiled.run(Object.fromEntries(given));
    for (const [name, { data }] of before) for (const [i, want] of data.entries()) expect(outputs.get(name)?.[i]).toBeCloseTo(want, 4);
  } finally {
    compiled.dispose();
  }
  return result;
}

const computed = ({ graph }: ReturnType<typeof rewrite>): readonly string[] =>
  graph.nodes.flatMap(({ op }) => (op === 'input' || op === 'constant' ? [] : [op]));
const reasons = ({ report }: ReturnType<typeof rewrite>): readonly string[] =>
  report.flatMap(({ rule, applied, reason }) => (rule === 'matmul epilogue' && !applied ? [reason] : []));

describe('a product takes in', () => {
  it('a bias and an activation', async () => {
    const graph = graphOf((g, { product, bias }) => g.output('y', g.unary('gelu', g.binary('add', product, bias))));
    const result = await fused(graph);
    expect(computed(result)).toEqual(['matmul']);
    expect(result.report.filter(({ rule, applied }) => rule === 'matmul epilogue' && applied).map(({ reason }) => reason)).toEqual([
      'product is finished as it is written',
    ]);
  });

  it('one operation alone, on either side of it', async () => {
    expect(computed(await fused(graphOf((g, { product }) => g.output('y', g.unary('relu', product)))))).toEqual(['matmul']);
    expect(computed(await fused(graphOf((g, { product, residual }) => g.output('y', g.binary('sub', residual, product)))))).toEqual(['matmul']);
  });

  it('what follows it in another shape', async () => {
    const graph = graphOf((g, { product, residual }) => {
      const flat = g.binary('mul', g.reshape(product, [15]), g.reshape(residual, [15]));
      g.output('y', g.unary('tanh', g.binary('add', flat, g.constant([0.5], f32(1)))));
    });
    expect(computed(await fused(graph)).filter((op) => op !== 'reshape')).toEqual(['matmul']);
  });

  it('tensors that are made after it', async () => {
    const graph = graphOf((g, { product, residual }) => {
      const later = g.reduce('sum', residual, { axes: [1], keepDims: true });
      g.output('y', g.binary('div', product, later));
    });
    expect(computed(await fused(graph))).toEqual(['reduce', 'matmul']);
  });
});

describe('a product stays as it is', () => {
  it('where it has other readers or is an output', async () => {
    const read = await fused(graphOf((g, { product }) => g.output('y', g.binary('add', g.unary('relu', product), g.softmax(product)))));
    expect(computed(read)).toContain('matmul');
    expect(reasons(read)).toEqual(['the product has other readers']);
    const kept = await fused(
      graphOf((g, { product }) => {
        g.output('z', product);
        g.output('y', g.unary('relu', product));
      }),
    );
    expect(reasons(kept)).toEqual(['the product has other readers']);
  });

  it('where it is broadcast, or its shape is lost', async () => {
    const wide = await fused(graphOf((g, { product }) => g.output('y', g.binary('add', g.reshape(product, [1, 3, 5]), g.constant([1, 2], f32(2, 1, 1))))));
    expect(reasons(wide)).toEqual(['the product is broadcast']);
    const turned = await fused(graphOf((g, { product, bias }) => g.output('y', g.binary('add', g.reshape(product, [5, 3]), g.reshape(bias, [5, 1])))));
    expect(reasons(turned)).toEqual(['it broadcasts over another shape than the product has']);
  });

  it('where a condition decides', async () => {
    const graph = graphOf((g, { product, bias, residual }) => {
      const condition = g.reshape(g.cast(g.unary('abs', residual), 'u32'), [3, 5]);
      g.output('y', g.unary('relu', g.where(condition, product, bias)));
    });
    expect(reasons(await fused(graph))).toEqual(['it reads a condition']);
  });

  it('where what it reads is overwritten before the end', () => {
    const g = new GraphBuilder();
    const [cache, state] = [g.state('cache', f32(1, 4, 3)), g.state('session', u32(stateWords(1)))];
    const product = g.matmul(g.reshape(cache, [4, 3]), g.input('b', f32(3, 2)), {}, 'product');
    g.cacheWrite(cache, g.input('x', f32(1, 1, 3)), state);
    g.output('y', g.unary('relu', product));
    expect(reasons(rewrite(g.build(), { regions: true }))).toEqual(['a state that the product reads is updated before']);
  });
});
