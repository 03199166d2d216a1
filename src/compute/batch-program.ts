import { GraphBuilder } from '../graph/builder.js';
import type { Graph, NodeId } from '../graph/graph.js';
import type { LeafOp, OpName, OpParams } from '../ops/params.js';

type ComputedOp = Exclude<OpName, LeafOp>;

/** One recorded value of a batch, by its index: something given, or an operation on earlier values. */
export type BatchValue =
  | { readonly kind: 'upload' | 'import'; readonly shape: readonly number[] }
  | { readonly kind: 'indices'; readonly values: readonly number[]; readonly shape: readonly number[] }
  | {
      readonly kind: 'op';
      readonly op: ComputedOp;
      readonly params: OpParams[ComputedOp];
      readonly inputs: readonly BatchInput[];
      readonly shape: readonly number[];
    };

/** A value as an operation wants it shaped: batches hold flat buffers, operations have rows and axes. */
export interface BatchInput {
  readonly value: number;
  readonly shape: readonly number[];
}

export function leafName(index: number): string {
  return `buffer ${index}`;
}

/** The graph of everything recorded, with the values in `outputs` kept. Uploads become inputs; imported buffers states that nobody updates. */
export function batchGraph(values: readonly BatchValue[], outputs: readonly number[]): Graph {
  const g = new GraphBuilder();
  const nodes: NodeId[] = [];
  const as = ({ value, shape }: BatchInput): NodeId => {
    const node = nodes[value] ?? -1;
    const have = g.typeOf(node).shape;
    return have.length === shape.length && have.every((size, axis) => size === shape[axis]) ? node : g.reshape(node, shape);
  };
  values.forEach((value, index) => {
    const type = { dtype: 'f32', shape: value.shape } as const;
    if (value.kind === 'indices') nodes.push(g.constant(value.values, { dtype: 'u32', shape: value.shape }, `indices ${index}`));
    else if (value.kind === 'op') nodes.push(g.add(value.op, value.params, value.inputs.map(as), `${value.op} ${index}`));
    else nodes.push(value.kind === 'upload' ? g.input(leafName(index), type) : g.state(leafName(index), type));
  });
  for (const index of outputs) g.output(leafName(index), nodes[index] ?? -1);
  return g.build();
}
