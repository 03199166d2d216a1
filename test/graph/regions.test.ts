import { afterAll, describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { evaluate } from '../../src/graph/evaluate.js';
import type { Graph, NodeId } from '../../src/graph/graph.js';
import { rewrite } from '../../src/graph/rewrite.js';
import { samplingWord, samplingWords } from '../../src/ops/sampling-state.js';
import { stateWords } from '../../src/ops/state.js';
import { CompiledGraph } from '../../src/runtime/compiled-graph.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';

const backend = new CpuBackend();
afterAll(() => backend.dispose());

const opsOf = (graph: Graph): readonly string[] => graph.nodes.map((node) => node.op);
const ramp = (count: number): Float64Array => Float64Array.from({ length: count }, (_, i) => (i % 13) / 4 - 1.5);

function graphOf(build: (g: GraphBuilder, x: NodeId, row: NodeId) => void): Graph {
  const g = new GraphBuilder();
  build(g, g.input('x', { dtype: 'f32', shape: [3, 8] }), g.input('row', { dtype: 'f32', shape: [8] }));
  return g.build();
}

const leaves = {
  inputs: new Map([
    ['x', ramp(24)],
    ['row', ramp(8)],
  ]),
};

/** The rewritten graph, after a check that it computes what the original does, by the reference and on the CPU. */
async function fused(graph: Graph): Promise<ReturnType<typeof rewrite>> {
  const result = rewrite(graph, { regions: true });
  const [before, after] = [evaluate(graph, leaves).outputs, evaluate(result.graph, leaves).outputs];
  expect([...after].map(([name, { data }]) => [name, [...data]])).toEqual([...before].map(([name, { data }]) => [name, [...data]]));
  const compiled = await CompiledGraph.compile(graph, backend, { regions: true });
  try {
    const names = new Set(result.graph.nodes.flatMap((node) => (node.op === 'input' ? [node.params.name] : [])));
    const given = Object.entries({ x: Float32Array.from(ramp(24)), row: Float32Array.from(ramp(8)) }).filter(([name]) => names.has(name));
    const outputs = await compiled.run(Object.fromEntries(given));
    for (const [name, { data }] of before) {
      const got = outputs.get(name);
      expect(got?.length).toBe(data.length);
      for (const [i, want] of data.entries()) expect(got?.[i]).toBeCloseTo(want, 5);
    }
  } finally {
    compiled.dispose();
  }
  return result;
}

describe('regions', () => {
  it('leave graphs as they are unless they are asked for', () => {
    const graph = graphOf((g, x, row) => g.output('y', g.unary('relu', g.binary('add', x, row))));
    expect(opsOf(rewrite(graph).graph)).toEqual(['input', 'input', 'binary', 'unary']);
  });

  it('keep the axes of a number that has more of them than what it meets', async () => {
    const graph = graphOf((g, _, row) => {
      const two = g.constant([2], { dtype: 'f32', shape: [1, 1, 1] });
      g.output('y', g.unary('neg', g.binary('sub', two, row)));
    });
    const { graph: after } = await fused(graph);
    expect(after.nodes.at(-1)).toMatchObject({ op: 'region', type: { shape: [1, 1, 8] } });
  });

  it('stay before an operation that updates a state which they read, one of several or not', () => {
    const graph = graphOf((g, x, row) => {
      const session = g.state('session', { dtype: 'u32', shape: [stateWords(1)] });
      const sampling = g.state('sampling', { dtype: 'u32', shape: [samplingWords(8)] });
      const chosen = g.where(g.narrow(sampling, samplingWord.counts, 8), row, g.unary('neg', row));
      g.output('token', g.add('redraw', {}, [session, sampling, g.narrow(x, 0, 1)]));
      g.output('y', g.unary('relu', chosen));
    });
    const { graph: after, report } = rewrite(graph, { regions: true });
    expect(opsOf(after).slice(-4)).toEqual(['region', 'narrow', 'redraw', 'unary']);
    expect(report.map(({ reason }) => reason)).toContain('where: a state that it reads is updated before');
  });

  it('round between steps as separate operations do', async () => {
    const graph = graphOf((g, x) => {
      const big = g.constant([3e38], { dtype: 'f32', shape: [1] });
      // 3e38 x overflows where |x| > 1.13, and a sixteenth of it would be a number again.
      g.output('y', g.unary('scale', g.unary('scale', g.binary('mul', x, big), { a: 0.25 }), { a: 0.25 }));
      g.output('z', g.compare('eq', g.unary('square', x), g.binary('mul', g.unary('scale', x, { a: Math.fround(0.1) }), g.unary('scale', x, { a: 10 }))));
    });
    const x = Float32Array.from(ramp(24), (value) => value * 1.1);
    const run = async (regions: boolean) => {
      const compiled = await CompiledGraph.compile(graph, backend, { regions });
      return compiled.run({ x }).finally(() => compiled.dispose());
    };
    const chained = await run(true);
    expect(chained).toEqual(await run(false));
    expect(chained.get('y')?.includes(Number.POSITIVE_INFINITY)).toBe(true);
  });

  it('take in a chain with rows, numbers, conditions and a value that is read twice inside', async () => {
    const graph = graphOf((g, x, row) => {
      const half = g.constant([0.5], { dtype: 'f32', shape: [1] });
      const sum = g.binary('mul', g.binary('add', x, row), half);
      const gate = g.unary('sigmoid', sum);
      g.output('y', g.where(g.compare('gt', sum, half), g.binary('mul', sum, gate), g.unary('leakyRelu', x, { a: 0.1 })));
    });
    const { graph: result, report } = await fused(graph);
    expect(opsOf(result)).toEqual(['input', 'input', 'region']);
    expect(report.filter((entry) => entry.rule === 'region')).toEqual([{ rule: 'region', at: 'where', applied: true, reason: '7 operations in one kernel' }]);
  });

  it('are not made of one operation alone', async () => {
    const { graph } = await fused(graphOf((g, x, row) => g.output('y', g.reduce('sum', g.binary('add', x, row)))));
    expect(opsOf(graph)).not.toContain('region');
  });

  it('take in an absolute value made of a comparison and a choice', async () => {
    const graph = graphOf((g, x) => {
      const zero = g.constant([0], { dtype: 'f32', shape: [1] });
      g.output('y', g.where(g.compare('lt', x, zero), g.unary('neg', x), x));
    });
    expect(opsOf((await fused(graph)).graph)).toEqual(['input', 'region']);
  });

  it('take in swiglu', async () => {
    const graph = graphOf((g, x, row) => g.output('y', g.binary('add', g.binary('mul', g.unary('silu', x), g.unary('neg', x)), row)));
    expect(opsOf((await fused(graph)).graph)).toEqual(['input', 'input', 'region']);
  });

  it.each<[string, (g: GraphBuilder, x: NodeId, row: NodeId) => void, string]>([
    [
      'outputs',
      (g, x) => {
        const inner = g.unary('exp', x, {}, 'inner');
        g.output('inner', inner);
        g.output('y', g.unary('neg', inner));
      },
      'inner: it is an output of the graph',
    ],
    [
      'values with readers outside',
      (g, x) => {
        const inner = g.unary('exp', x, {}, 'inner');
        g.output('y', g.unary('neg', inner));
        g.output('sum', g.reduce('sum', inner));
      },
      'inner: it has other readers',
    ],
    [
      'values that are broadcast',
      (g, x, row) => g.output('y', g.binary('add', x, g.unary('exp', row, {}, 'inner'))),
      'inner: it is broadcast, and would be computed again and again',
    ],
  ])('leave out %s, and say so', async (_name, build, reason) => {
    const { graph, report } = await fused(graphOf(build));
    expect(opsOf(graph)).not.toContain('region');
    expect(report.filter((entry) => entry.rule === 'region' && !entry.applied).map((entry) => entry.reason)).toContain(reason);
  });

  it('end at thirty-two steps and at seven inputs', async () => {
    const long = graphOf((g, x) => {
      let y = x;
      for (let i = 0; i < 40; i++) y = g.unary('scale', y, { a: 0.9 });
      g.output('y', y);
    });
    const steps = (await fused(long)).graph.nodes.flatMap((node) => (node.op === 'region' ? [node.params.steps.length] : []));
    expect(steps).toEqual([8, 32]);
    const g = new GraphBuilder();
    const inputs = Array.from({ length: 9 }, (_, i) => g.input(`x${i}`, { dtype: 'f32', shape: [4] }));
    g.output(
      'y',
      inputs.reduce((sum, input) => g.binary('add', sum, input)),
    );
    const { graph, report } = rewrite(g.build(), { regions: true });
    expect(Math.max(...graph.nodes.map((node) => (node.op === 'region' ? node.inputs.length : 0)))).toBe(7);
    expect(report.some((entry) => entry.reason.endsWith('more than 7 inputs'))).toBe(true);
  });

  it('do not move a read of a state behind its update', () => {
    const g = new GraphBuilder();
    const [cache, x, session] = [
      g.state('cache', { dtype: 'f32', shape: [1, 4, 2] }),
      g.input('x', { dtype: 'f32', shape: [1, 1, 2] }),
      g.state('session', { dtype: 'u32', shape: [72] }),
    ];
    const before = g.unary('exp', cache, {}, 'before');
    g.cacheWrite(cache, x, session);
    g.output('y', g.unary('neg', before));
    const { graph, report } = rewrite(g.build(), { regions: true });
    expect(graph.nodes.some((node) => node.op === 'region')).toBe(false);
    expect(report.map((entry) => entry.reason)).toContain('before: a state that it reads is updated before');
  });
});
