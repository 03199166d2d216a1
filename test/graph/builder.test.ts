import { describe, expect, test } from 'vitest';
import { GraphError, ShapeError } from '../../src/core/errors.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { evaluate } from '../../src/graph/evaluate.js';
import type { Graph, GraphNode } from '../../src/graph/graph.js';
import { verify } from '../../src/graph/verify.js';
import { stateWord } from '../../src/ops/state.js';
import { f32, u32 } from './support.js';

describe('GraphBuilder', () => {
  test('infers types as it goes', () => {
    const g = new GraphBuilder();
    const x = g.input('x', f32(2, 8));
    const y = g.linear(x, g.param('w', { dtype: 'f16', shape: [3, 8] }), { bias: g.param('b', f32(3)) });
    g.output('y', g.reshape(g.narrow(y, 1, 1), [3]));
    const graph = g.build();
    expect(graph.nodes.at(-1)?.type).toEqual(f32(3));
    expect(g.typeOf(y)).toEqual(f32(2, 3));
    expect(graph.nodes.map((node) => node.id)).toEqual(graph.nodes.map((_, index) => index));
  });

  test('refuses at once what does not fit', () => {
    const g = new GraphBuilder();
    const x = g.input('x', f32(2));
    expect(() => g.binary('add', x, g.input('z', f32(3)))).toThrow(ShapeError);
    expect(() => g.add('binary', { fn: 'add' }, [x])).toThrow('takes 2 inputs, got 1');
    expect(() => g.add('linear', { bias: false, residual: false }, [x])).toThrow('2 to 4');
    expect(() => g.unary('exp', 99)).toThrow(GraphError);
    expect(() => g.constant([1, 2, 3], f32(2))).toThrow(GraphError);
    expect(() => g.output('y', 99)).toThrow(GraphError);
    g.output('y', x);
    expect(() => g.output('y', x)).toThrow('two outputs are called "y"');
  });

  test('a built graph does not follow what is added later', () => {
    const g = new GraphBuilder();
    g.output('y', g.input('x', f32(2)));
    const graph = g.build();
    g.output('z', g.input('x2', f32(2)));
    expect(graph.nodes).toHaveLength(1);
    expect(graph.outputs).toHaveLength(1);
  });
});

/** x [2, 3] and w [4, 3] into y = x wᵀ, with one node changed. */
function broken(id: number, change: Partial<GraphNode>): Graph {
  const g = new GraphBuilder();
  g.output('y', g.linear(g.input('x', f32(2, 3)), g.param('w', f32(4, 3))));
  const { nodes, outputs } = g.build();
  return { nodes: nodes.map((node) => (node.id === id ? ({ ...node, ...change } as GraphNode) : node)), outputs };
}

describe('the verifier refuses', () => {
  test.each([
    ['ids out of order', broken(1, { id: 2 }), 'calls itself'],
    ['an input after its reader', broken(2, { inputs: [0, 2] }), 'does not come before'],
    ['an input that is not there', broken(2, { inputs: [0, -1] }), 'does not come before'],
    ['too few inputs', broken(2, { inputs: [0] }), 'takes 2 to 4'],
    ['inputs of a leaf', broken(1, { inputs: [0] }), 'takes 0 to 0'],
    ['a shape that the table does not give', broken(2, { type: f32(2, 5) }), 'the op table says f32[2, 4]'],
    ['a type that the table does not give', broken(2, { type: u32(2, 4) }), 'the op table says f32[2, 4]'],
    ['two leaves of one name', broken(1, { params: { name: 'x' } }), 'two leaves are called "x"'],
    ['an empty size', broken(0, { type: f32(0, 3) }), 'whole numbers from 1'],
    ['half a row', broken(0, { type: f32(2.5, 3) }), 'whole numbers from 1'],
    ['a size that is no number', broken(0, { type: f32(Number.NaN, 3) }), 'whole numbers from 1'],
    ['more elements than numbers count', broken(0, { type: f32(2 ** 30, 2 ** 30) }), 'whole numbers from 1'],
    ['an input in blocks', broken(0, { type: { dtype: 'q8_0', shape: [2, 32] } }), 'only a param can be of the block type'],
    ['rows that are not whole blocks', broken(1, { type: { dtype: 'q8_0', shape: [4, 33] } }), 'not whole blocks of 32'],
  ])('%s', (_, graph, message) => {
    expect(() => verify(graph)).toThrow(GraphError);
    expect(() => verify(graph)).toThrow(message);
  });

  test('parameters that the table refuses, by its own error', () => {
    expect(() => verify(broken(2, { params: { bias: true, residual: false } }))).toThrow(ShapeError);
  });

  test('outputs that are not there, or of one name', () => {
    const { nodes } = broken(0, {});
    expect(() => verify({ nodes, outputs: [{ name: 'y', node: 3 }] })).toThrow('does not exist');
    const twice = [0, 2].map((node) => ({ name: 'y', node }));
    expect(() => verify({ nodes, outputs: twice })).toThrow('two outputs are called "y"');
  });
});

describe('states', () => {
  function cached(): { g: GraphBuilder; session: number; cache: number; x: number } {
    const g = new GraphBuilder();
    return { g, session: g.state('session', u32(65)), cache: g.state('cache', f32(1, 4, 2)), x: g.input('x', f32(1, 1, 2)) };
  }

  test('an old version may be read before the update, not after', () => {
    const { g, session, cache, x } = cached();
    const before = g.unary('exp', cache);
    const view = g.reshape(cache, [8]);
    const updated = g.cacheWrite(cache, x, session);
    g.output('before', before);
    g.output('after', g.unary('exp', updated));
    expect(g.build().outputs).toHaveLength(2);
    g.unary('exp', view);
    expect(() => g.build()).toThrow('has overwritten: read its result instead');
  });

  test('a second update takes the result of the first', () => {
    const { g, session, cache, x } = cached();
    g.cacheWrite(g.cacheWrite(cache, x, session), x, session);
    g.build();
    g.cacheWrite(cache, x, session);
    expect(() => g.build()).toThrow(GraphError);
  });

  test('only states are updated, and not through a view', () => {
    const { g, session, x } = cached();
    g.cacheWrite(g.input('no state', f32(1, 4, 2)), x, session);
    expect(() => g.build()).toThrow('which is not a state');
    const other = cached();
    other.g.cacheWrite(other.g.reshape(other.cache, [1, 4, 2]), other.x, other.session);
    expect(() => other.g.build()).toThrow('which is not a state');
  });

  test('an update does not read another part of what it updates', () => {
    const { g, session } = cached();
    g.add('advance', {}, [session, g.narrow(session, stateWord.ids, 1)]);
    expect(() => g.build()).toThrow('while it updates it');
  });

  test('an output may be the newest version only', () => {
    const { g, session, cache, x } = cached();
    g.output('old', g.reshape(cache, [8]));
    const updated = g.cacheWrite(cache, x, session);
    expect(() => g.build()).toThrow('output "old"');
    const good = cached();
    good.g.output('new', good.g.cacheWrite(good.cache, good.x, good.session));
    expect(good.g.build().outputs[0]?.node).toBe(updated - 1);
  });
});

describe('evaluate', () => {
  test('gives outputs and the states for the next run', () => {
    const g = new GraphBuilder();
    const session = g.state('session', u32(65));
    const cache = g.cacheWrite(g.state('cache', f32(1, 2, 1)), g.input('x', f32(1, 1, 1)), session);
    g.output('sum', g.binary('add', cache, g.constant([10], f32(1))));
    g.add('advance', {}, [session, g.constant([7], u32(1))]);
    const graph = g.build();
    const words = new Float64Array(65);
    words[stateWord.rows] = 1;
    const first = evaluate(graph, {
      inputs: new Map([['x', Float64Array.of(5)]]),
      states: new Map([
        ['session', words],
        ['cache', new Float64Array(2)],
      ]),
    });
    expect([...(first.outputs.get('sum')?.data ?? [])]).toEqual([15, 10]);
    const second = evaluate(graph, { inputs: new Map([['x', Float64Array.of(6)]]), states: first.states });
    expect([...(second.states.get('cache') ?? [])]).toEqual([5, 6]);
    expect(second.states.get('session')?.[stateWord.position]).toBe(2);
  });

  test('names a value that is missing or has another size', () => {
    const g = new GraphBuilder();
    g.output('y', g.input('x', f32(2)));
    const graph = g.build();
    expect(() => evaluate(graph, {})).toThrow('input "x" has no value');
    expect(() => evaluate(graph, { inputs: new Map([['x', new Float64Array(3)]]) })).toThrow('needs 2 values, got 3');
  });
});
