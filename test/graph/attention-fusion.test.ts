import { describe, expect, test } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { NodeId } from '../../src/graph/graph.js';
import type { RewriteResult } from '../../src/graph/rewrite.js';
import { rewriteDecode } from '../../src/graph/rewrite-decode.js';
import type { OpParams } from '../../src/ops/params.js';
import { stateWords } from '../../src/ops/state.js';
import { f32 } from './support.js';

/** Attention of one token, two query heads of 4 on one KV head, for a target that takes every fused operation. */
function fused(params: Omit<OpParams['attention'], 'scale'>, sinks = false): RewriteResult {
  const g = new GraphBuilder();
  const state = g.state('session', { dtype: 'u32', shape: [stateWords(1)] });
  const table = g.param('table', f32(16, 2, 2));
  const normed = g.rmsNorm(g.input('x', f32(1, 8)), g.param('gain', f32(8)), 1e-5);
  const heads = (name: string, count: number): NodeId => g.reshape(g.linear(normed, g.param(name, f32(count * 4, 8))), [1, count, 4]);
  const turned = (name: string, count: number): NodeId => g.rope(heads(name, count), table, state, 'halves');
  const q = turned('q', 2);
  const keys = g.cacheWrite(g.state('keys', f32(1, 16, 4)), turned('k', 1), state);
  const values = g.cacheWrite(g.state('values', f32(1, 16, 4)), heads('v', 1), state);
  g.output('y', g.attention(q, keys, values, state, { scale: 0.5, ...params, sinks: sinks ? g.param('sinks', f32(2)) : undefined }));
  return rewriteDecode(g.build(), () => undefined, 16);
}

describe('the attention of a decode step', () => {
  test('is fused with its products, RoPE and cache writes', () => {
    const { graph, report } = fused({});
    expect(graph.nodes.filter(({ inputs }) => inputs.length > 0).map(({ op }) => op)).toEqual(['qkv', 'attendToken']);
    expect(report.every(({ applied }) => applied)).toBe(true);
  });

  test.each([
    [{ window: 8 }, false, 'sliding windows attend in steps of their own'],
    [{ softcap: 30 }, false, 'softcaps attend in steps of their own'],
    [{}, true, 'sinks attend in steps of their own'],
    [{ window: 8, softcap: 30 }, true, 'sliding windows and softcaps and sinks attend in steps of their own'],
  ] as const)('keeps %o, sinks %s', (params, sinks, reason) => {
    const { graph, report } = fused(params, sinks);
    const attention = graph.nodes.find(({ op }) => op === 'attention');
    expect(attention?.params).toEqual({ scale: 0.5, ...params });
    expect(graph.nodes.some(({ op }) => op === 'attendToken')).toBe(false);
    expect(report).toContainEqual({ rule: 'attendToken', at: 'attention', applied: false, reason });
  });
});
