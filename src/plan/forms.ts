import type { ValueId } from '../core/step.js';
import type { Graph, GraphNode, NodeId } from '../graph/graph.js';
import type { ComputeOp } from '../ops/params.js';
import { isCompute } from '../ops/table.js';
import type { FormContext, NodeTypes, Target, TensorRef } from '../ops/target.js';
import { type PlanValue, refOf } from './plan-value.js';

/** Who wants which form of a value, and which forms have been made. A reshape is its input: a form passes through it. */
export class Forms<Kernel> {
  readonly #readers: ReadonlyMap<NodeId, readonly { readonly kind: string; readonly gain?: NodeId }[]>;
  readonly #plain: ReadonlySet<NodeId>;
  readonly #made = new Map<ValueId, TensorRef>();
  readonly #nodes: readonly GraphNode[];

  constructor(graph: Graph, target: Target<Kernel>) {
    this.#nodes = graph.nodes;
    const readers = new Map<NodeId, { kind: string; gain?: NodeId }[]>();
    const plain = new Set(graph.outputs.map((output) => this.#source(output.node)));
    for (const node of graph.nodes) {
      const taken = isCompute(node.op) ? target.takesForm?.(nodeTypes(graph, node, node.op)) : undefined;
      if (node.op === 'reshape') continue;
      node.inputs.forEach((read, index) => {
        const input = this.#source(read);
        if (index !== taken?.input) plain.add(input);
        else {
          const gain = taken.gain === undefined ? {} : { gain: node.inputs[taken.gain] ?? -1 };
          readers.set(input, [...(readers.get(input) ?? []), { kind: taken.kind, ...gain }]);
        }
      });
    }
    this.#readers = readers;
    this.#plain = plain;
  }

  of(node: GraphNode, values: ReadonlyMap<ValueId, PlanValue>): FormContext {
    const [first, ...others] = this.#readers.get(node.id) ?? [];
    // A form is made for one reader, or for several that want the same; else each makes its own from the plain values.
    const agreed = first !== undefined && others.every((other) => other.kind === first.kind && other.gain === first.gain);
    // The gain has to be there when the producer runs, which leaves and earlier nodes are.
    const known = first?.gain === undefined || values.has(first.gain);
    const gain = first?.gain === undefined || !known ? {} : { gain: refOf(values, first.gain) };
    const form = first !== undefined && agreed && known ? { form: { kind: first.kind, ...gain } } : {};
    return {
      wanted: { plain: this.#plain.has(node.id) || first === undefined || form.form === undefined, ...form },
      provide: (ref) => {
        this.#made.set(node.id, ref);
      },
      made: (input) => this.#made.get(this.#source(input.id)),
    };
  }

  #source(id: NodeId): NodeId {
    const node = this.#nodes[id];
    return node?.op === 'reshape' ? this.#source(node.inputs[0] ?? id) : id;
  }
}

function nodeTypes(graph: Graph, node: GraphNode, op: ComputeOp): NodeTypes {
  const inputs = node.inputs.map((id) => graph.nodes[id]?.type ?? { dtype: 'f32', shape: [] });
  return { op, params: node.params, inputs } as NodeTypes;
}
