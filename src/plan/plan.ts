import { PlanError, UnsupportedError } from '../core/errors.js';
import type { Step, ValueId } from '../core/step.js';
import { roundUp } from '../core/tensor.js';
import type { Graph } from '../graph/graph.js';
import type { Target } from '../ops/target.js';
import type { ExecutionPlan, Location, PlannedArg, PlannedStep } from './execution-plan.js';
import { lower } from './lower.js';
import { type MemoryPlan, planMemory } from './memory.js';
import { isPacked, type PlanValue } from './plan-value.js';
import { validate } from './validate.js';

/** Lowers, places and validates; pure. */
export function planGraph<Kernel>(graph: Graph, target: Target<Kernel>): ExecutionPlan<Kernel> {
  const { steps, values } = lower(graph, target);
  const outputs = graph.outputs.map((output) => output.node);
  const memory = planMemory(steps, values, outputs, target.memory);
  const plan: ExecutionPlan<Kernel> = {
    graph,
    target,
    steps: steps.map((step, index) => planStep(step, memory.inPlace.get(index), values, memory, target)),
    values,
    memory,
  };
  validate(plan);
  return plan;
}

function planStep<Kernel>(
  step: Step<Kernel>,
  consumes: ValueId | undefined,
  values: ReadonlyMap<ValueId, PlanValue>,
  memory: MemoryPlan,
  target: Target<Kernel>,
): PlannedStep<Kernel> {
  const args = step.args.map((arg): PlannedArg => {
    const location = locate(arg.value, arg.shard, values, memory, target);
    checkBinding(step.label, values.get(arg.value), location, target);
    return { value: arg.value, access: arg.access, location };
  });
  if (consumes === undefined || step.inPlace === undefined) return { label: step.label, node: step.node, kernel: step.kernel, args };
  const { input, output, kernel } = step.inPlace;
  const merged = args.map((arg, index) => (index === output ? { ...arg, access: 'readwrite' as const } : arg)).filter((_, index) => index !== input);
  return { label: step.label, node: step.node, kernel, args: merged, consumes };
}

/** Requests that no plan can serve on this device; the validator would call them defects. */
function checkBinding<Kernel>(label: string, value: PlanValue | undefined, location: Location, { memory }: Target<Kernel>): void {
  const name = value?.name ?? label;
  if (location.byteLength > memory.maxBindingBytes) {
    throw new UnsupportedError(
      `${name} needs ${location.byteLength} bytes, one binding of this device holds ${memory.maxBindingBytes}: use a shorter context or fewer rows`,
    );
  }
  if ((value?.byteOffset ?? 0) % memory.alignment !== 0) {
    const wanted = `this device reads from multiples of ${memory.alignment}`;
    throw new UnsupportedError(
      `${label}: the view ${name} begins at byte ${value?.byteOffset} of its tensor, ${wanted}: narrow to another row, or make the part a tensor of its own`,
    );
  }
}

/** Where a value, or one shard of a weight, lies. */
export function locate<Kernel>(id: ValueId, shard: number, values: ReadonlyMap<ValueId, PlanValue>, memory: MemoryPlan, target: Target<Kernel>): Location {
  const value = values.get(id);
  const root = value && values.get(value.root);
  if (value === undefined || root === undefined) throw new PlanError(`value ${id} is not in the plan`);
  if (root.storage === 'arena') {
    const slot = memory.slots.get(root.id);
    if (slot === undefined) throw new PlanError(`${root.name} has no slot`);
    return { storage: 'arena', owner: root.id, shard: 0, bank: slot.bank, offset: slot.offset + value.byteOffset, byteLength: roundUp(value.byteLength, 4) };
  }
  return { storage: root.storage, owner: root.id, shard, bank: -1, offset: value.byteOffset, byteLength: roundUp(shardBytes(value, shard, target), 4) };
}

/** Bytes of one shard of a weight; of the whole value where it is not sharded, or a view, which has its own shape and none of the weight's padding. */
export function shardBytes<Kernel>(value: PlanValue, shard: number, target: Target<Kernel>): number {
  if (value.storage !== 'param' || value.root !== value.id || !isPacked(value.type)) return value.byteLength;
  const rows = value.shards[shard]?.rows;
  if (rows === undefined) throw new PlanError(`${value.name} has no shard ${shard}`);
  return target.weights.byteLength({ dtype: value.type.dtype, shape: [rows, ...value.type.shape.slice(1)] });
}
