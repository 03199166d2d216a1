import { describe, expect, test } from 'vitest';
import { shaders } from '../../src/compute/shaders.js';
import { baseCapabilities } from '../../src/core/capabilities.js';
import { ArgumentError } from '../../src/core/errors.js';
import { GraphBuilder } from '../../src/graph/builder.js';

describe('shaders', () => {
  const families = Object.keys(shaders.families);

  test('give the WGSL of every kernel family by its name', () => {
    const without = families.filter((family) => {
      try {
        return !shaders.source(family).includes('fn main(');
      } catch {
        return true;
      }
    });
    expect(without).toEqual([]);
  });

  test('are those of the floor by themselves, and of a device where its capabilities are given', () => {
    expect(shaders.source('softmax_rows')).not.toContain('enable subgroups');
    expect(shaders.source('softmax_rows', { ...baseCapabilities, subgroups: true, subgroupMinSize: 32, subgroupMaxSize: 32 })).toContain('enable subgroups');
    expect(() => shaders.source('gemm_f16', { ...baseCapabilities })).toThrow(/leave them out/);
    for (const family of ['toString', 'softmax', '']) expect(() => shaders.source(family)).toThrow(ArgumentError);
  });

  test('of a graph are listed once each, as kernels to warm and as text', () => {
    const g = new GraphBuilder();
    const x = g.input('x', { dtype: 'f32', shape: [4] });
    const negative = [g.unary('neg', x), g.unary('neg', g.input('z', { dtype: 'f32', shape: [4] }))];
    for (const [i, id] of negative.entries()) g.output(`y${i}`, id);
    // In place, which is another kernel.
    g.output('last', g.unary('neg', g.binary('mul', x, x)));
    const graph = g.build();
    const kernels = shaders.kernelsOf(graph);
    expect(kernels.map(({ family }) => family)).toEqual(['unary', 'binary', 'unary']);
    expect(new Set(kernels.map(({ key }) => key)).size).toBe(3);
    expect(shaders.ofGraph(graph).match(/fn main\(/g)).toHaveLength(3);
  });
});
