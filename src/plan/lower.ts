import { byteLengthOf, dtypes } from '../core/dtype.js';
import { GraphError, UnsupportedError } from '../core/errors.js';
import type { Step, ValueId } from '../core/step.js';
import { byteLengthOfType, elementCount, formatType, type TensorType } from '../core/tensor.js';
import type { Graph, GraphNode, NodeId } from '../graph/graph.js';
import { stateLeaf } from '../graph/verify.js';
import type { ComputeOp } from '../ops/params.js';
import { isCompute, isLeaf, updatedInput } from '../ops/table.js';
import type { FormContext, LoweringContext, LoweringNode, LoweringRule, NodeTypes, RowShard, Target, TensorRef } from '../ops/target.js';

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

export interface Lowered<Kernel> {
  readonly steps: readonly Step<Kernel>[];
  readonly values: ReadonlyMap<ValueId, PlanValue>;
}

/** Turns every node of a graph into the steps of a target. Views and leaves need none. */
export function lower<Kernel>(graph: Graph, target: Target<Kernel>): Lowered<Kernel> {
  const values = new Map<ValueId, PlanValue>();
  const steps: Step<Kernel>[] = [];
  const derived = new Map<string, TensorRef>();
  let nextScratch = graph.nodes.length;
  const forms = new Forms(graph, target);
  // Leaves first: a kernel may read one of a later node, the gain of the next norm for instance.
  for (const node of graph.nodes) if (isLeaf(node.op)) values.set(node.id, planValueOf(graph, node, values, target));
  for (const node of graph.nodes) {
    values.set(node.id, planValueOf(graph, node, values, target));
    if (!isCompute(node.op)) continue;
    const scratch = (type: TensorType): TensorRef => {
      const id = nextScratch++;
      values.set(id, rootValue(id, `${node.name} scratch`, type, 'arena', false));
      return { id, type, shards: wholeTensor(type) };
    };
    const context: LoweringContext = {
      scratch,
      derived(source, form, type) {
        const key = `${source.id} ${form}`;
        const known = derived.get(key);
        const ref = known ?? scratch(type);
        derived.set(key, ref);
        return { ref, fresh: known === undefined };
      },
      forms: forms.of(node, values),
    };
    checkWeight(node, values);
    const lowered = lowerNode(node.op, node, values, target, context);
    checkShards(node, lowered, values);
    steps.push(...lowered);
  }
  for (const { name, node } of graph.outputs) {
    const value = values.get(node);
    if (value?.storage === 'param' && isPacked(values.get(value.root)?.type ?? value.type))
      throw new UnsupportedError(`output "${name}" is a weight, which is stored as the device likes: no run can give it back`);
  }
  return { steps, values };
}

/** What a plan keeps of its lowering. */
interface PlannedLowering<Kernel> {
  readonly target: Target<Kernel>;
  readonly steps: readonly { readonly node: NodeId; readonly args: readonly { readonly value: ValueId }[] }[];
  readonly values: ReadonlyMap<ValueId, PlanValue>;
}

/**
 * Steps of some nodes of a graph whose plan has all of its values: a node's scratch is what it had. Gives nothing for a node that wants other scratch, or what steps share.
 */
export function lowerAgain<Kernel>(
  graph: Graph,
  { target, steps, values }: PlannedLowering<Kernel>,
  nodes: readonly GraphNode[],
): ReadonlyMap<NodeId, readonly Step<Kernel>[]> {
  const forms = new Forms(graph, target);
  const wanted = new Map(nodes.map((node) => [node.id, node]));
  const scratches = new Map<NodeId, ValueId[]>();
  for (const { node, args } of steps) {
    if (!wanted.has(node)) continue;
    const known = scratches.get(node) ?? [];
    for (const { value } of args) if (value >= graph.nodes.length && !known.includes(value)) known.push(value);
    scratches.set(node, known);
  }
  const found = new Map<NodeId, readonly Step<Kernel>[]>();
  for (const node of nodes) {
    if (!isCompute(node.op)) continue;
    const left = [...(scratches.get(node.id) ?? [])].sort((a, b) => a - b);
    let fits = true;
    const scratch = (type: TensorType): TensorRef => {
      const id = left.shift() ?? -1;
      const known = values.get(id);
      fits &&= known !== undefined && formatType(known.type) === formatType(type);
      return { id, type, shards: wholeTensor(type) };
    };
    const derived = (_source: TensorRef, _form: string, type: TensorType) => {
      fits = false;
      return { ref: { id: -1, type, shards: wholeTensor(type) }, fresh: true };
    };
    const lowered = lowerNode(node.op, node, values, target, { scratch, derived, forms: forms.of(node, values) });
    found.set(node.id, fits ? lowered : []);
  }
  return found;
}

/** Who wants which form of a value, and which forms have been made. A reshape is its input: a form passes through it. */
class Forms<Kernel> {
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

/** Products and gathers read what the weight store has laid out. Of values that are not weights, only f32 matrices look the same. */
function checkWeight(node: GraphNode, values: ReadonlyMap<ValueId, PlanValue>): void {
  if (node.op !== 'linear' && node.op !== 'gatherRows') return;
  const weight = values.get(node.inputs[node.op === 'linear' ? 1 : 0] ?? -1);
  if (weight === undefined || weight.storage === 'param' || weight.type.dtype === 'f32') return;
  throw new UnsupportedError(
    `${node.name}: the weight ${weight.name} is ${formatType(weight.type)} and no param: only f32 can be computed or written before a run`,
  );
}

/** A rule that knows nothing of shards would read the first one and leave the others out. */
function checkShards<Kernel>(node: GraphNode, steps: readonly Step<Kernel>[], values: ReadonlyMap<ValueId, PlanValue>): void {
  for (const id of node.inputs) {
    const count = values.get(id)?.shards.length ?? 1;
    const read = new Set(steps.flatMap((step) => step.args.filter((arg) => arg.value === id).map((arg) => arg.shard)));
    if (count > 1 && read.size !== count)
      throw new UnsupportedError(`${node.name}: ${node.op} cannot read a weight that this device holds in ${count} bindings`);
  }
}

function lowerNode<Kernel>(
  op: ComputeOp,
  node: GraphNode,
  values: ReadonlyMap<ValueId, PlanValue>,
  target: Target<Kernel>,
  context: LoweringContext,
): readonly Step<Kernel>[] {
  // The table is keyed by `op`, so the rule and the node have one K: the union type cannot see it.
  const rule = target.rules[op] as LoweringRule<ComputeOp, Kernel>;
  const lowering = {
    op,
    params: node.params,
    inputs: node.inputs.map((id) => refOf(values, id)),
    output: refOf(values, node.id),
    label: node.name,
    id: node.id,
  } as LoweringNode<ComputeOp>;
  return rule(lowering, context);
}

function refOf(values: ReadonlyMap<ValueId, PlanValue>, id: ValueId): TensorRef {
  const value = values.get(id);
  if (value === undefined) throw new GraphError(`node ${id} is read before it is made`, id);
  return { id, type: value.type, shards: value.shards };
}

function planValueOf<Kernel>(graph: Graph, node: GraphNode, values: ReadonlyMap<ValueId, PlanValue>, target: Target<Kernel>): PlanValue {
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

function rootValue(id: ValueId, name: string, type: TensorType, storage: StorageClass, isInput: boolean): PlanValue {
  return { id, name, type, root: id, byteOffset: 0, byteLength: byteLengthOfType(type), storage, shards: wholeTensor(type), isInput };
}

function wholeTensor(type: TensorType): readonly RowShard[] {
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
