import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { evaluate } from '../../src/graph/evaluate.js';
import type { NodeId } from '../../src/graph/graph.js';
import { type RewriteResult, rewrite } from '../../src/graph/rewrite.js';
import type { OpName } from '../../src/ops/params.js';
import { f32, randomGraphs, u32 } from './support.js';

interface Parts {
  readonly g: GraphBuilder;
  readonly x: NodeId;
  readonly y: NodeId;
  readonly w: NodeId;
}

/** Rewrites what `build` makes of x and y, both f32 [2, 4], and w, f32 [4, 4]; its result is the output "out". */
function rewritten(build: (parts: Parts) => NodeId): RewriteResult {
  const g = new GraphBuilder();
  const node = build({ g, x: g.input('x', f32(2, 4)), y: g.input('y', f32(2, 4)), w: g.param('w', f32(4, 4)) });
  g.output('out', node);
  return rewrite(g.build());
}

const opsOf = ({ graph }: RewriteResult): readonly OpName[] => graph.nodes.filter((node) => node.inputs.length > 0).map((node) => node.op);
const reasons = ({ report }: RewriteResult): readonly string[] => report.filter(({ applied }) => !applied).map(({ reason }) => reason);

describe('swiglu', () => {
  test.each([
    ['silu first', ({ g, x, y }: Parts) => g.binary('mul', g.unary('silu', x), y)],
    ['silu second', ({ g, x, y }: Parts) => g.binary('mul', y, g.unary('silu', x))],
  ])('fuses with %s, gate first', (_, build) => {
    const result = rewritten(build);
    expect(opsOf(result)).toEqual(['swiglu']);
    expect(result.graph.nodes.at(-1)?.inputs).toEqual([0, 1]);
    expect(result.report).toEqual([{ rule: 'swiglu', at: 'mul', applied: true, reason: 'fused' }]);
  });

  test('stays where the gate has another reader, is an output, or broadcasts, and says so', () => {
    const several = rewritten(({ g, x, y }) => {
      const gate = g.unary('silu', x);
      return g.binary('add', g.binary('mul', gate, y), gate);
    });
    expect(reasons(several)).toEqual(['the intermediate has several readers']);
    expect(opsOf(several)).toEqual(['unary', 'binary', 'binary']);
    const output = rewritten(({ g, x, y }) => {
      const gate = g.unary('silu', x);
      g.output('gate', gate);
      return g.binary('mul', gate, y);
    });
    expect(reasons(output)).toEqual(['the intermediate is an output of the graph']);
    const shapes = rewritten(({ g, y }) => g.binary('mul', g.unary('silu', g.input('row', f32(1, 4))), y));
    expect(reasons(shapes)).toEqual(['gate and up have different shapes']);
  });

  test('takes the other operand where the first cannot vanish', () => {
    const result = rewritten(({ g, x, y }) => {
      const kept = g.unary('silu', x);
      g.output('kept', kept);
      return g.binary('mul', kept, g.unary('silu', y));
    });
    expect(opsOf(result)).toEqual(['unary', 'swiglu']);
  });

  test('leaves other gates and other products alone, without a word', () => {
    const result = rewritten(({ g, x, y }) => g.binary('add', g.binary('mul', g.unary('gelu', x), y), g.binary('add', g.unary('silu', x), y)));
    expect(result.report).toEqual([]);
  });
});

describe('linear bias', () => {
  test.each([
    ['product first', (g: GraphBuilder, product: NodeId, bias: NodeId) => g.binary('add', product, bias)],
    ['bias first', (g: GraphBuilder, product: NodeId, bias: NodeId) => g.binary('add', bias, product)],
  ])('fuses with the %s, and where the bias is declared late', (_, add) => {
    const result = rewritten(({ g, x, w }) => {
      const product = g.linear(x, w);
      return add(g, product, g.param('late', f32(4)));
    });
    const node = result.graph.nodes.at(-1);
    expect(node).toMatchObject({ op: 'linear', params: { bias: true, residual: false } });
    expect(node?.inputs.map((id) => result.graph.nodes[id]?.name)).toEqual(['x', 'w', 'late']);
  });

  test('does not fuse a product that is an output or has other readers', () => {
    const output = rewritten(({ g, x, w }) => {
      const product = g.linear(x, w);
      g.output('product', product);
      return g.binary('add', product, g.param('b', f32(4)));
    });
    expect(reasons(output)).toContain('the intermediate is an output of the graph');
    const twice = rewritten(({ g, x, w }) => {
      const product = g.linear(x, w);
      return g.binary('mul', g.binary('add', product, g.param('b', f32(4))), product);
    });
    expect(reasons(twice)).toContain('the intermediate has several readers');
  });

  test.each(['gelu', 'geluErf', 'tanh', 'relu', 'silu', 'sigmoid'] as const)('leaves %s after a product an operation of its own', (fn) => {
    const result = rewritten(({ g, x, w }) => g.unary(fn, g.binary('add', g.linear(x, w), g.param('b', f32(4)))));
    expect(opsOf(result)).toEqual(['linear', 'unary']);
    expect(result.graph.nodes.at(-1)?.params).toEqual({ fn });
  });

  test('does not take a subtraction, a column or a second bias for a bias', () => {
    const sub = rewritten(({ g, x, w }) => g.binary('sub', g.linear(x, w), g.param('b', f32(4))));
    expect(opsOf(sub)).toEqual(['linear', 'binary']);
    const column = rewritten(({ g, x, w }) => g.binary('add', g.linear(x, w), g.param('b', f32(2, 1))));
    expect(opsOf(column)).toEqual(['linear', 'binary']);
    const second = rewritten(({ g, x, w }) => g.binary('add', g.linear(x, w, { bias: g.param('a', f32(4)) }), g.param('b', f32(4))));
    expect(reasons(second)).toEqual(['the product has a bias or a residual already']);
  });
});

describe('linear residual', () => {
  test('fuses in both orders, with a bias too, and reports each place once', () => {
    for (const swap of [false, true]) {
      const result = rewritten(({ g, x, y, w }) => {
        const biased = g.binary('add', g.linear(x, w), g.param('b', f32(4)));
        return g.binary('add', ...((swap ? [y, biased] : [biased, y]) as [NodeId, NodeId]));
      });
      expect(opsOf(result)).toEqual(['linear']);
      expect(result.graph.nodes.at(-1)?.params).toEqual({ bias: true, residual: true });
      expect(result.report.map(({ rule, applied }) => [rule, applied])).toEqual([
        ['linear bias', true],
        ['linear residual', true],
      ]);
    }
  });

  test('takes the second product where the first has other readers', () => {
    const result = rewritten(({ g, x, y, w }) => {
      const [a, b] = [g.linear(x, w), g.linear(y, w)];
      g.output('a', a);
      return g.binary('add', a, b);
    });
    expect(opsOf(result)).toEqual(['linear', 'linear']);
    expect(result.graph.nodes.at(-1)?.params).toMatchObject({ residual: true });
  });

  test('does not add a product to itself', () => {
    const result = rewritten(({ g, x, w }) => {
      const product = g.linear(x, w);
      return g.binary('add', product, product);
    });
    expect(opsOf(result)).toEqual(['linear', 'binary']);
    expect(reasons(result)).toEqual(['the intermediate has several readers']);
  });
});

describe('equal and dead nodes', () => {
  test('equal nodes are computed once, outputs follow', () => {
    const result = rewritten(({ g, x }) => {
      g.output('again', g.unary('exp', x));
      return g.unary('exp', x);
    });
    expect(opsOf(result)).toEqual(['unary']);
    expect(new Set(result.graph.outputs.map(({ node }) => node)).size).toBe(1);
    expect(result.graph.outputs.map(({ name }) => name)).toEqual(['again', 'out']);
  });

  test.each([
    ['NaN and infinity', Number.NaN, Number.POSITIVE_INFINITY],
    ['the infinities', Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
    ['the zeros', 0, -0],
  ])('parameters that differ only as %s do are not equal', (_, a, b) => {
    const result = rewritten(({ g, x }) => g.binary('add', g.unary('scale', x, { a }), g.unary('scale', x, { a: b })));
    expect(opsOf(result)).toEqual(['unary', 'unary', 'binary']);
  });

  test('leaves of one content stay apart', () => {
    const result = rewritten(({ g, x }) => g.binary('mul', g.binary('add', x, g.param('a', f32(4))), g.binary('add', x, g.param('b', f32(4)))));
    expect(opsOf(result)).toHaveLength(3);
  });

  test('what nobody reads goes, updates of states stay and are not merged', () => {
    const g = new GraphBuilder();
    const session = g.state('session', u32(65));
    const x = g.input('x', f32(1, 1, 2));
    g.unary('exp', g.input('unused', f32(3)));
    const first = g.cacheWrite(g.state('cache', f32(1, 4, 2)), x, session);
    g.cacheWrite(first, x, session);
    const { graph } = rewrite(g.build());
    expect(graph.nodes.map((node) => node.name)).toEqual(['session', 'x', 'cache', 'cacheWrite', 'cacheWrite']);
  });

  test('reads of a state before and after its update stay apart', () => {
    const g = new GraphBuilder();
    const session = g.state('session', u32(65));
    const cache = g.state('cache', f32(1, 4, 2));
    g.output('before', g.unary('exp', cache));
    g.output('after', g.unary('exp', g.cacheWrite(cache, g.input('x', f32(1, 1, 2)), session)));
    const { graph } = rewrite(g.build());
    expect(graph.nodes.filter((node) => node.op === 'unary')).toHaveLength(2);
  });

  test('a fusion does not carry a read of a state past its update', () => {
    const g = new GraphBuilder();
    const session = g.state('session', u32(65));
    const cache = g.state('cache', f32(1, 4, 2));
    const gate = g.unary('silu', cache);
    const updated = g.cacheWrite(cache, g.input('x', f32(1, 1, 2)), session);
    g.output('y', g.binary('mul', gate, updated));
    const result = rewrite(g.build());
    expect(reasons(result)).toEqual(['a state that it reads is updated before']);
    expect(result.graph.nodes.at(-1)?.op).toBe('binary');
  });
});

test('any graph computes the same before and after', () => {
  fc.assert(
    fc.property(randomGraphs, ({ graph, leaves }) => {
      const [before, after] = [evaluate(graph, leaves), evaluate(rewrite(graph).graph, leaves)];
      expect([...after.outputs.keys()]).toEqual([...before.outputs.keys()]);
      for (const [name, { data }] of before.outputs) close(after.outputs.get(name)?.data, data);
      for (const [name, data] of after.states) close(data, before.states.get(name));
    }),
    { numRuns: 300 },
  );
});

/** Equal but for the order of additions, which a fused bias or residual changes. */
function close(got: Float64Array | undefined, wanted: Float64Array | undefined): void {
  expect(got?.length).toBe(wanted?.length);
  got?.forEach((value, i) => {
    const want = wanted?.[i] ?? Number.NaN;
    if (!Object.is(value, want)) expect(Math.abs(value - want)).toBeLessThanOrEqual(1e-9 * Math.max(1, Math.abs(want)));
  });
}
