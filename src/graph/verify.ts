import { dtypeNames, dtypes, isQuantized } from '../core/dtype.js';
import { GraphError } from '../core/errors.js';
import { elementCount, formatType, sameShape } from '../core/tensor.js';
import type { OpName, OpParams } from '../ops/params.js';
import { isLeaf, ops, updatedInput, updatedInputs } from '../ops/table.js';
import type { Graph, GraphNode, NodeId } from './graph.js';

/** Throws `GraphError` unless the graph is well formed: order, arity, types, names, and the discipline of states. It always runs, on every graph that is built or rewritten. */
export function verify(graph: Graph): void {
  const leafNames = new Set<string>();
  graph.nodes.forEach((node, index) => {
    if (node.id !== index) throw new GraphError(`node ${index} calls itself ${node.id}`, index);
    verifyInputs(graph, node);
    verifyType(node);
    if (node.op === 'input' || node.op === 'param' || node.op === 'state') {
      if (leafNames.has(node.params.name)) throw new GraphError(`two leaves are called "${node.params.name}"`, index);
      leafNames.add(node.params.name);
    }
  });
  const outputNames = new Set<string>();
  for (const output of graph.outputs) {
    if (graph.nodes[output.node] === undefined) throw new GraphError(`output "${output.name}" names node ${output.node}, which does not exist`, output.node);
    if (outputNames.has(output.name)) throw new GraphError(`two outputs are called "${output.name}"`, output.node);
    outputNames.add(output.name);
  }
  verifyStates(graph);
}

function verifyInputs(graph: Graph, node: GraphNode): void {
  const inputs = node.inputs.map((id) => {
    const input = graph.nodes[id];
    if (input === undefined || id >= node.id) throw new GraphError(`${node.name}: input ${id} does not come before node ${node.id}`, node.id);
    return input.type;
  });
  const arity = isLeaf(node.op) ? 0 : ops[node.op].arity;
  const [min, max] = typeof arity === 'number' ? [arity, arity] : arity;
  if (inputs.length < min || inputs.length > max) throw new GraphError(`${node.name}: ${node.op} takes ${min} to ${max} inputs, got ${inputs.length}`, node.id);
  if (isLeaf(node.op)) return;
  const infer = ops[node.op].type as (types: typeof inputs, params: OpParams[OpName]) => GraphNode['type'];
  const type = infer(inputs, node.params);
  if (type.dtype !== node.type.dtype || !sameShape(type.shape, node.type.shape)) {
    throw new GraphError(`${node.name}: the op table says ${formatType(type)}, the node ${formatType(node.type)}`, node.id);
  }
}

/** Sizes are whole numbers from 1: no kernel runs over nothing. Block types are for weights and, in planes, for states; their rows are whole blocks. */
function verifyType({ op, type, name, id }: GraphNode): void {
  const { dtype, shape } = type;
  if (!Object.hasOwn(dtypes, dtype)) throw new GraphError(`${name}: "${String(dtype)}" is no type of a tensor, the types are ${dtypeNames.join(', ')}`, id);
  if (!shape.every((size) => Number.isSafeInteger(size) && size >= 1) || !Number.isSafeInteger(elementCount(shape)))
    throw new GraphError(`${name}: sizes must be whole numbers from 1, got ${formatType(type)}`, id);
  if (!isQuantized(dtype)) return;
  if (op !== 'param' && dtype !== 'q8_planes') throw new GraphError(`${name}: only a param can be of the block type ${dtype}, this is ${formatType(type)}`, id);
  const { block } = dtypes[dtype];
  if ((shape.at(-1) ?? 1) % block !== 0) throw new GraphError(`${name}: rows of ${formatType(type)} are not whole blocks of ${block}`, id);
}

/** A state has one newest version: an update takes the newest and reads nothing else of it, and nobody reads an older one afterwards, the caller neither. */
function verifyStates(graph: Graph): void {
  const overwrittenBy = new Map<NodeId, NodeId>();
  for (const node of graph.nodes) {
    for (const input of node.inputs) {
      const writer = overwrittenBy.get(storageOwner(graph, input));
      if (writer !== undefined)
        throw new GraphError(`${node.name} reads node ${input}, which node ${writer} has overwritten: read its result instead`, node.id);
    }
    for (const updated of updatedInputs(node.op)) {
      const target = node.inputs[updated] ?? -1;
      if (stateLeaf(graph, target) === undefined) throw new GraphError(`${node.name} updates node ${target}, which is not a state`, node.id);
      if (node.inputs.some((input, index) => index !== updated && storageOwner(graph, input) === target))
        throw new GraphError(`${node.name} reads node ${target} while it updates it: no kernel can do both`, node.id);
      overwrittenBy.set(target, node.id);
    }
  }
  for (const { name, node } of graph.outputs) {
    const writer = overwrittenBy.get(storageOwner(graph, node));
    if (writer !== undefined) throw new GraphError(`output "${name}" is node ${node}, which node ${writer} has overwritten: name its result instead`, node);
  }
}

/** The node whose storage a value is in, views followed: a state's version, not its leaf. */
function storageOwner(graph: Graph, id: NodeId): NodeId {
  const node = graph.nodes[id];
  return node !== undefined && (node.op === 'reshape' || node.op === 'narrow') ? storageOwner(graph, node.inputs[0] ?? id) : id;
}

/** Whether a node from `from` to `until` (exclusive) updates a state that one of `ids` is, or views: who reads them behind it would find other values. */
export function isUpdatedBetween(graph: Graph, ids: readonly NodeId[], from: NodeId, until: NodeId): boolean {
  const owners = new Set(ids.map((id) => storageOwner(graph, id)));
  return graph.nodes.slice(from, until).some((update) => updatedInputs(update.op).some((index) => owners.has(update.inputs[index] ?? -1)));
}

/** The state leaf that `id` is a version of, or undefined. */
export function stateLeaf(graph: Graph, id: NodeId): NodeId | undefined {
  const node = graph.nodes[id];
  if (node === undefined) return undefined;
  if (node.op === 'state') return id;
  const updated = updatedInput(node.op);
  return updated === undefined ? undefined : stateLeaf(graph, node.inputs[updated] ?? -1);
}
