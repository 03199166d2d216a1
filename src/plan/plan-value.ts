/** Values of a plan: whose bytes they are, and which. */

import { byteLengthOf, dtypes } from '../core/dtype.js';
import { GraphError, UnsupportedError } from '../core/errors.js';
import type { ValueId } from '../core/step.js';
import { byteLengthOfType, elementCount, formatType, type TensorType } from '../core/tensor.js';
import type { Graph, GraphNode } from '../graph/graph.js';
import { stateLeaf } from '../graph/verify.js';
import { updatedInput } from '../ops/table.js';
import type { RowShard, Target, TensorRef } from '../ops/target.js';

/** Who owns a value's bytes: the arena (activations and inputs), or a buffer of its own. */
export type StorageClass = 'arena' | 'param' | 'state' | 'constant';

/** A value and the bytes it stands for: a view or an updated state is a window [byteOffset, byteOffset + byteLength) of its root. */
export interface PlanValue {
  readonly id: ValueId;
  readonly name: string;
  readonly type: TensorType;
  readonly root: ValueId;
  readonly byteOffset: number;
  readonly byteLength: number;
  readonly storage: StorageClass;
  readonly shards: readonly RowShard[];
  /** Written by the caller before a run, so that it must keep its place throughout. */
  readonly isInput: boolean;
}

/** A value as rules and kernels see it. */
export function refOf(values: ReadonlyMap<ValueId, PlanValue>, id: ValueId): TensorRef {
  const value = values.get(id);
  if (value === undefined) throw new GraphError(`node ${id} is read before it is made`, id);
  return { id, type: value.type, shards: value.shards };
}

/** What a node's value is, after those of its inputs. */
export function planValueOf<Kernel>(graph: Graph, node: GraphNode, values: ReadonlyMap<ValueId, PlanValue>, target: Target<Kernel>): PlanValue {
  switch (node.op) {
    case 'input':
      return rootValue(node.id, node.params.name, node.type, 'arena', true);
    case 'state':
      return rootValue(node.id, node.params.name, node.type, 'state', false);
    case 'constant':
      return rootValue(node.id, node.name, node.type, 'constant', false);
    case 'param': {
      const plain = rootValue(node.id, node.params.name, node.type, 'param', false);
      return isPacked(node.type) ? { ...plain, byteLength: target.weights.byteLength(node.type), shards: target.weights.shards(node.type) } : plain;
    }
    case 'reshape':
      return view(node, values, 0);
    case 'narrow':
      return view(node, values, node.params.start);
    default:
      return updatedInput(node.op) === undefined ? rootValue(node.id, node.name, node.type, 'arena', false) : updated(graph, node, values);
  }
}

/** Matrices are laid out by the target's weight store; vectors and tables are stored as they are. */
export function isPacked(type: TensorType): boolean {
  return type.shape.length === 2;
}

/** A value with bytes of its own. */
export function rootValue(id: ValueId, name: string, type: TensorType, storage: StorageClass, isInput: boolean): PlanValue {
  return { id, name, type, root: id, byteOffset: 0, byteLength: byteLengthOfType(type), storage, shards: wholeTensor(type), isInput };
}

/** The one shard of what no binding limit splits. */
export function wholeTensor(type: TensorType): readonly RowShard[] {
  return [{ start: 0, rows: type.shape[0] ?? 1 }];
}

function view(node: GraphNode, values: ReadonlyMap<ValueId, PlanValue>, firstRow: number): PlanValue {
  const base = values.get(node.inputs[0] ?? -1);
  if (base === undefined) throw new GraphError(`${node.name}: the base of the view is missing`, node.id);
  if (base.shards.length > 1) throw new UnsupportedError(`${node.name}: a weight that this device holds in ${base.shards.length} bindings cannot be viewed`);
  if (base.storage === 'param' && (dtypes[base.type.dtype].block > 1 || dtypes[base.type.dtype].bytes !== 4))
    throw new UnsupportedError(`${node.name}: ${formatType(base.type)} is stored as the device likes and cannot be viewed: make the part a param of its own`);
  const byteOffset = base.byteOffset + byteLengthOf(base.type.dtype, firstRow * elementCount(base.type.shape.slice(1)));
  return { ...base, id: node.id, name: node.name, type: node.type, byteOffset, byteLength: byteLengthOfType(node.type), shards: wholeTensor(node.type) };
}

/** A new version of a state has the bytes of its leaf. */
function updated(graph: Graph, node: GraphNode, values: ReadonlyMap<ValueId, PlanValue>): PlanValue {
  const leaf = values.get(stateLeaf(graph, node.id) ?? -1);
  if (leaf === undefined) throw new GraphError(`${node.name}: the state that it updates is missing`, node.id);
  return { ...leaf, id: node.id, name: node.name };
}
