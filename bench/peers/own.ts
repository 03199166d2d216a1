/** The workloads on a backend of ours. */

import { GraphBuilder } from '../../src/graph/builder.js';
import type { NodeId } from '../../src/graph/graph.js';
import type { Backend } from '../../src/runtime/backend.js';
import { CompiledGraph } from '../../src/runtime/compiled-graph.js';
import { inputsOf, type Prepared, shapesOf, type Workload } from './workloads.js';

export async function prepareOwn(backend: Backend, work: Workload): Promise<Prepared> {
  const g = new GraphBuilder();
  const y = build(
    g,
    work,
    shapesOf(work).map((shape, index) => g.input(`x${index}`, { dtype: 'f32', shape })),
  );
  g.output('y', y);
  const graph = await CompiledGraph.compile(g.build(), backend);
  await graph.execute(Object.fromEntries(inputsOf(work).map((data, index) => [`x${index}`, data])));
  const output = graph.plan.graph.outputs[0];
  if (output === undefined) throw new Error(`${work.name} has no output`);
  const { storage, offset } = graph.arena.region(output.node);
  return {
    repeat: async (repeats) => {
      await graph.execute({}, { times: repeats });
      const bytes = Uint8Array.from(await backend.read({ storage, offset, byteLength: 4 }));
      return new Float32Array(bytes.buffer)[0] ?? Number.NaN;
    },
    dispose: () => graph.dispose(),
  };
}

function build(g: GraphBuilder, work: Workload, [a = -1, b = -1]: readonly NodeId[]): NodeId {
  switch (work.op) {
    case 'matmul':
      return g.matmul(a, b);
    case 'add':
      return g.binary('add', a, b);
    case 'sum':
      return g.reduce('sum', a);
    case 'softmax':
      return g.add('softmax', { axis: 1 }, [a]);
    case 'conv2d':
      return g.add('conv2d', { stride: 1, padding: 'same' }, [a, b]);
  }
}
