import { expect, test } from 'vitest';
import { compile } from '../../src/compute/compile.js';
import { ArgumentError, DisposedError, GraphError } from '../../src/core/errors.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { Graph } from '../../src/graph/graph.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';

function doubling(): Graph {
  const g = new GraphBuilder();
  g.output('y', g.unary('scale', g.input('x', { dtype: 'f32', shape: [2] }), { a: 2 }));
  return g.build();
}

const x = Float32Array.of(1, 2);

test('a graph compiled for a device by name owns that device', async () => {
  const graph = await compile(doubling(), { device: 'cpu', rewrite: false });
  expect(graph.rewrites).toEqual([]);
  expect((await graph.run({ x })).get('y')).toEqual(Float32Array.of(2, 4));
  graph.dispose();
  await expect(graph.run({ x })).rejects.toThrow(DisposedError);
  expect(graph.backend.ledger().bytes).toBe(0);
  await expect(graph.backend.allocate('late', 4, 'arena')).rejects.toThrow();
});

test('a backend of the caller outlives the graphs on it', async () => {
  const backend = new CpuBackend();
  const first = await compile(doubling(), { device: backend });
  first.dispose();
  const second = await compile(doubling(), { device: backend });
  await second.execute({ x });
  expect(await second.read('y')).toEqual(Float32Array.of(2, 4));
  second.dispose();
  expect(backend.ledger().bytes).toBe(0);
  backend.dispose();
});

test('what is no device, no operation and no type is a typed error', async () => {
  const wrong = (value: unknown): never => value as never;
  for (const device of ['gpu', null, 5, {}]) await expect(compile(doubling(), { device: wrong(device) })).rejects.toThrow(ArgumentError);
  const g = new GraphBuilder();
  expect(() => g.add(wrong('median'), wrong({}), [])).toThrow('there is no operation "median"');
  const typed = new GraphBuilder();
  typed.output('y', typed.input('y', { dtype: wrong('f8'), shape: [1] }));
  expect(() => typed.build()).toThrow(GraphError);
  expect(() => typed.build()).toThrow('"f8" is no type of a tensor');
});
