import { UnsupportedError } from '../core/errors.js';
import type { Step, ValueId } from '../core/step.js';
import { formatType, type TensorType } from '../core/tensor.js';
import type { Graph, GraphNode, NodeId } from '../graph/graph.js';
import type { ComputeOp } from '../ops/params.js';
import { isCompute, isLeaf } from '../ops/table.js';
import type { LoweringContext, LoweringNode, LoweringRule, Target, TensorRef } from '../ops/target.js';
import { Forms } from './forms.js';
import { isPacked, type PlanValue, planValueOf, refOf, rootValue, wholeTensor } from './plan-value.js';

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
