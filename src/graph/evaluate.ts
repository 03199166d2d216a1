import { GraphError } from '../core/errors.js';
import { elementCount } from '../core/tensor.js';
import type { HostTensor } from '../ops/definition.js';
import type { OpName, OpParams } from '../ops/params.js';
import { isLeaf, ops, updatedInput, updatedInputs } from '../ops/table.js';
import type { Graph, GraphNode } from './graph.js';
import { stateLeaf } from './verify.js';

/** Values of the leaves, by name; weights decoded to f64. */
export interface LeafValues {
  readonly inputs?: ReadonlyMap<string, Float64Array>;
  readonly params?: ReadonlyMap<string, Float64Array>;
  readonly states?: ReadonlyMap<string, Float64Array>;
}

/** What a graph gives by the f64 references. */
export interface Evaluation {
  readonly outputs: ReadonlyMap<string, HostTensor>;
  /** The states after the run, by name: pass them to the next evaluation. */
  readonly states: ReadonlyMap<string, Float64Array>;
}

/** Runs a graph by the f64 references of the op table: slow, plain, and what every backend is measured against. */
export function evaluate(graph: Graph, leaves: LeafValues): Evaluation {
  const values: HostTensor[] = [];
  const states = new Map<string, Float64Array>();
  for (const node of graph.nodes) {
    const data = evaluateNode(node, values, leaves);
    values.push({ shape: node.type.shape, data });
    const leaf = node.op === 'state' || updatedInput(node.op) !== undefined ? graph.nodes[stateLeaf(graph, node.id) ?? -1] : undefined;
    if (leaf?.op === 'state') states.set(leaf.params.name, data);
    else if (updatedInputs(node.op).length > 0) updateStates(graph, node, values, states);
  }
  const outputs = new Map(graph.outputs.map(({ name, node }) => [name, values[node] ?? { shape: [], data: new Float64Array() }]));
  return { outputs, states };
}

function evaluateNode(node: GraphNode, values: readonly HostTensor[], leaves: LeafValues): Float64Array {
  switch (node.op) {
    case 'constant':
      return Float64Array.from(node.params.values);
    case 'input':
      return leafValue(node, node.params.name, leaves.inputs);
    case 'param':
      return leafValue(node, node.params.name, leaves.params);
    case 'state':
      return leafValue(node, node.params.name, leaves.states);
    default:
      return compute(node.op, node, values);
  }
}

/** An operation with an output of its own leaves new contents in the states that it updates. */
function updateStates(graph: Graph, node: GraphNode, values: readonly HostTensor[], states: Map<string, Float64Array>): void {
  if (isLeaf(node.op)) return;
  const inputs = node.inputs.map((id) => values[id] ?? { shape: [], data: new Float64Array() });
  const updated = ops[node.op].updated as ((inputs: readonly HostTensor[], params: OpParams[OpName]) => readonly Float64Array[]) | undefined;
  const contents = updated?.(inputs, node.params) ?? [];
  updatedInputs(node.op).forEach((input, index) => {
    const leaf = graph.nodes[stateLeaf(graph, node.inputs[input] ?? -1) ?? -1];
    const data = contents[index];
    if (leaf?.op !== 'state' || data === undefined) throw new GraphError(`${node.name}: the new contents of input ${input} are missing`, node.id);
    states.set(leaf.params.name, data);
  });
}

function compute(op: OpName, node: GraphNode, values: readonly HostTensor[]): Float64Array {
  if (isLeaf(op)) throw new GraphError(`${node.name} is a leaf`, node.id);
  const inputs = node.inputs.map((id) => values[id] ?? { shape: [], data: new Float64Array() });
  const reference = ops[op].reference as (inputs: readonly HostTensor[], params: OpParams[OpName], type: GraphNode['type']) => Float64Array;
  return reference(inputs, node.params, node.type);
}

function leafValue(node: GraphNode, name: string, given: ReadonlyMap<string, Float64Array> | undefined): Float64Array {
  const value = given?.get(name);
  const size = elementCount(node.type.shape);
  if (value === undefined) throw new GraphError(`${node.op} "${name}" has no value: give one under that name`, node.id);
  if (value.length !== size) throw new GraphError(`${node.op} "${name}" needs ${size} values, got ${value.length}`, node.id);
  return value;
}
