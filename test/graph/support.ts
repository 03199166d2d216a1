/** Random graphs over a few f32 values, states included: what rewriting and planning must not change. */

import fc from 'fast-check';
import { elementCount, type TensorType } from '../../src/core/tensor.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { LeafValues } from '../../src/graph/evaluate.js';
import type { Graph, NodeId } from '../../src/graph/graph.js';
import { stateWord, stateWords } from '../../src/ops/state.js';

export const f32 = (...shape: number[]): TensorType => ({ dtype: 'f32', shape });
export const u32 = (...shape: number[]): TensorType => ({ dtype: 'u32', shape });

interface Move {
  readonly kind: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

const rows = 2;
const width = 4;
const capacity = 3;

const moves = fc.array(fc.record({ kind: fc.nat(9), a: fc.nat(99), b: fc.nat(99), c: fc.nat(99) }), { minLength: 1, maxLength: 24 });

export interface RandomGraph {
  readonly graph: Graph;
  readonly leaves: LeafValues;
}

/** Every value is f32 [2, 4] but for the vectors [4] that serve as biases. Outputs are a random choice of them; the caches are updated at random places. */
export const randomGraphs: fc.Arbitrary<RandomGraph> = fc
  .record({ moves, outputs: fc.array(fc.nat(99), { minLength: 1, maxLength: 3 }), seed: fc.nat(1000) })
  .map(({ moves, outputs, seed }) => {
    const g = new GraphBuilder();
    const session = g.state('session', u32(stateWords(rows)));
    const table = g.param('table', f32(width, width));
    const values: NodeId[] = [g.input('x', f32(rows, width)), g.input('y', f32(rows, width)), g.gatherRows(table, g.narrow(session, stateWord.ids, rows))];
    const weights: NodeId[] = [table, g.param('w', f32(width, width))];
    const biases: NodeId[] = [g.param('bias', f32(width)), g.constant([1, -1, 0.5, 0], f32(width), 'offsets')];
    let cache = g.state('cache', f32(1, capacity, width));
    const pick = (from: readonly NodeId[], index: number): NodeId => from[index % from.length] ?? 0;
    for (const move of moves) {
      const [a, b] = [pick(values, move.a), pick(values, move.b)];
      const made = step(g, move, a, b, { weight: pick(weights, move.c), bias: pick(biases, move.c), session, cache });
      if (g.typeOf(made).shape.length === 3) cache = made;
      else values.push(made);
    }
    for (const node of new Set(outputs.map((index) => pick(values, index)))) g.output(`y${node}`, node);
    const graph = g.build();
    return { graph, leaves: leavesOf(graph, seed) };
  });

interface Leaves {
  readonly weight: NodeId;
  readonly bias: NodeId;
  readonly session: NodeId;
  readonly cache: NodeId;
}

/** Kinds lean towards what rewrites look for: gates, biases, residuals. */
function step(g: GraphBuilder, { kind, c }: Move, a: NodeId, b: NodeId, { weight, bias, session, cache }: Leaves): NodeId {
  switch (kind) {
    case 0:
      return g.unary('silu', a);
    case 1:
      return g.binary('mul', c % 2 === 0 ? g.unary('silu', a) : a, b);
    case 2:
      return g.linear(a, weight);
    case 3:
      return c % 2 === 0 ? g.binary('add', g.linear(a, weight), bias) : g.binary('add', bias, g.linear(a, weight));
    case 4:
      return c % 2 === 0 ? g.binary('add', b, g.linear(a, weight)) : g.binary('add', g.linear(a, weight), b);
    case 5:
      return g.binary('add', a, b);
    case 6:
      return g.rmsNorm(a, bias, 1e-3);
    case 7:
      return g.cacheWrite(cache, g.reshape(a, [rows, 1, width]), session);
    case 8:
      // Read at once: a later move may update the cache.
      return g.unary(c % 3 === 0 ? 'silu' : 'neg', g.narrow(g.reshape(cache, [capacity, width]), c % 2, rows));
    default:
      return g.reshape(g.narrow(g.reshape(a, [rows * width, 1]), 0, rows * width), [rows, width]);
  }
}

/** Small numbers, exact in f32; one live position after the first. */
function leavesOf(graph: Graph, seed: number): LeafValues {
  const [inputs, params, states] = [new Map<string, Float64Array>(), new Map<string, Float64Array>(), new Map<string, Float64Array>()];
  let at = seed;
  for (const node of graph.nodes) {
    if (node.op !== 'input' && node.op !== 'param' && node.op !== 'state') continue;
    const values = Float64Array.from({ length: elementCount(node.type.shape) }, () => ((at++ * 7919) % 33) / 16 - 1);
    (node.op === 'input' ? inputs : node.op === 'param' ? params : states).set(node.params.name, values);
  }
  const session = new Float64Array(stateWords(rows));
  session.set([1, rows], 0);
  session.set([3, 1], stateWord.ids);
  states.set('session', session);
  return { inputs, params, states };
}
