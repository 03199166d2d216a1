/** A target whose kernels are the f64 references, and a machine that runs its plans on simulated memory: one f64 for every 4 bytes. */

import type { BindingKind, Grid } from '../../src/core/kernel.js';
import type { InPlace, Step, StepArg } from '../../src/core/step.js';
import { byteLengthOfType, elementCount, sameShape } from '../../src/core/tensor.js';
import type { LeafValues } from '../../src/graph/evaluate.js';
import type { OpDefinition } from '../../src/ops/definition.js';
import type { ComputeOp, OpName } from '../../src/ops/params.js';
import { ops } from '../../src/ops/table.js';
import type { LoweringNode, LoweringRule, MemoryRules, RowShard, Target, TensorRef } from '../../src/ops/target.js';
import type { ExecutionPlan, Location } from '../../src/plan/execution-plan.js';

/** `run` gets the arguments that are read, in order, and for a 'readwrite' argument what its place holds; it gives the new contents of what it writes. */
export interface FakeKernel {
  readonly key: string;
  readonly grid: Grid;
  readonly bindings: readonly BindingKind[];
  run(read: readonly Float64Array[], current: Float64Array): Float64Array;
}

export interface FakeOptions {
  readonly memory?: Partial<MemoryRules>;
  /** Offer in-place variants. Default true. */
  readonly inPlace?: boolean;
  /** Rows of a shard of a weight. Default: all. */
  readonly shardRows?: number;
}

const names = Object.keys(ops) as readonly Exclude<OpName, 'input'>[];

export function fakeTarget({ memory, inPlace = true, shardRows }: FakeOptions = {}): Target<FakeKernel> {
  const one = lowerOne(inPlace);
  const rules = Object.fromEntries(names.map((name) => [name, name === 'linear' ? lowerLinear(inPlace) : one])) as unknown as Target<FakeKernel>['rules'];
  return {
    name: 'fake',
    memory: {
      alignment: 16,
      maxBindingBytes: 4096,
      maxBankBytes: 65_536,
      maxBindings: 8,
      maxGrid: 65_535,
      exclusiveBuffers: true,
      ...memory,
    },
    weights: {
      rowGroup: 1,
      shards: ({ shape }) => shards(shape[0] ?? 1, shardRows),
      byteLength: byteLengthOfType,
      pack: (_, __, rows) => [{ offset: 0, bytes: rows }],
    },
    rules,
    dispatch: ({ grid, bindings }) => ({ grid, bindings }),
  };
}

function shards(rows: number, most = rows): readonly RowShard[] {
  return Array.from({ length: Math.ceil(rows / most) }, (_, i) => ({ start: i * most, rows: Math.min(most, rows - i * most) }));
}

type AnyNode = LoweringNode<ComputeOp>;

function compute(node: AnyNode, inputs: readonly Float64Array[]): Float64Array {
  const definition = ops[node.op] as unknown as OpDefinition<ComputeOp>;
  const tensors = inputs.map((data, i) => ({ shape: node.inputs[i]?.type.shape ?? [], data }));
  return definition.reference(tensors, node.params, node.output.type);
}

function arg({ id }: TensorRef, access: StepArg['access']): StepArg {
  return { value: id, shard: 0, access };
}

function kernel(key: string, args: readonly StepArg[], run: FakeKernel['run']): FakeKernel {
  return { key, grid: [1, 1, 1], bindings: args.map(({ access }) => (access === 'read' ? 'read' : 'read_write')), run };
}

/** One step for the whole node; an update has its state as the only writable argument. */
function lowerOne(inPlace: boolean): LoweringRule<ComputeOp, FakeKernel> {
  return (node) => {
    const updated = (ops[node.op] as { readonly updates?: number }).updates;
    const args = [
      ...node.inputs.filter((_, i) => i !== updated).map((input) => arg(input, 'read')),
      arg(node.output, updated === undefined ? 'write' : 'readwrite'),
    ];
    const insert = (read: readonly Float64Array[], at: number, current: Float64Array): Float64Array[] => [...read.slice(0, at), current, ...read.slice(at)];
    const run: FakeKernel['run'] = updated === undefined ? (read) => compute(node, read) : (read, current) => compute(node, insert(read, updated, current));
    const step: Step<FakeKernel> = { label: node.label, node: node.id, kernel: kernel(node.op, args, run), args };
    const first = node.inputs[0];
    const fits =
      inPlace && updated === undefined && ['unary', 'binary', 'swiglu'].includes(node.op) && sameShape(first?.type.shape ?? [], node.output.type.shape);
    const variant: InPlace<FakeKernel> = {
      input: 0,
      output: args.length - 1,
      kernel: kernel(`${node.op} in place`, args.slice(1), (read, current) => compute(node, [current.slice(), ...read])),
    };
    return [fits ? { ...step, inPlace: variant } : step];
  };
}

/** The product into a scratch value, then bias and residual: over the scratch value where it may. */
function lowerLinear(inPlace: boolean): LoweringRule<'linear', FakeKernel> {
  return (node, context) => {
    const [x, w, ...rest] = node.inputs;
    if (x === undefined || w === undefined) throw new Error('linear without inputs');
    const product = context.scratch(node.output.type);
    const productNode = { ...node, params: { bias: false, residual: false }, inputs: [x, w] };
    const productArgs = [arg(x, 'read'), ...w.shards.map((_, shard): StepArg => ({ value: w.id, shard, access: 'read' })), arg(product, 'write')];
    const join = ([values = new Float64Array(), ...parts]: readonly Float64Array[]): Float64Array[] => [
      values,
      Float64Array.from(parts.flatMap((part) => [...part])),
    ];
    const finish = (values: Float64Array, extra: readonly Float64Array[]): Float64Array =>
      values.map((value, i) => extra.reduce((sum, addend) => sum + (addend[i % addend.length] ?? 0), value));
    const args = [arg(product, 'read'), ...rest.map((input) => arg(input, 'read')), arg(node.output, 'write')];
    const second: Step<FakeKernel> = {
      label: `${node.label} epilogue`,
      node: node.id,
      kernel: kernel('epilogue', args, ([values = new Float64Array(), ...extra]) => finish(values, extra)),
      args,
    };
    const over = { input: 0, output: args.length - 1, kernel: kernel('epilogue in place', args.slice(1), (extra, current) => finish(current, extra)) };
    return [
      { label: node.label, node: node.id, kernel: kernel('linear', productArgs, (read) => compute(productNode, join(read))), args: productArgs },
      inPlace ? { ...second, inPlace: over } : second,
    ];
  };
}

export interface Executed {
  readonly outputs: ReadonlyMap<string, readonly number[]>;
  readonly states: ReadonlyMap<string, readonly number[]>;
}

/** Replays the steps of a plan. Memory begins as NaN, and so does what a step is about to write: whoever reads what is not there is found out. */
export function execute({ steps, values, memory, graph }: ExecutionPlan<FakeKernel>, leaves: LeafValues): Executed {
  const banks = memory.banks.map((bytes) => new Float64Array(bytes / 4).fill(Number.NaN));
  const owned = new Map<number, Float64Array>();
  for (const node of graph.nodes) {
    if (node.op === 'param') owned.set(node.id, Float64Array.from(leaves.params?.get(node.params.name) ?? []));
    if (node.op === 'state') owned.set(node.id, Float64Array.from(leaves.states?.get(node.params.name) ?? []));
    if (node.op === 'constant') owned.set(node.id, Float64Array.from(node.params.values));
    const slot = memory.slots.get(node.id);
    if (node.op === 'input' && slot !== undefined) banks[slot.bank]?.set(leaves.inputs?.get(node.params.name) ?? [], slot.offset / 4);
  }
  const at = ({ storage, owner, shard, bank, offset, byteLength }: Location): Float64Array => {
    const buffer = storage === 'arena' ? banks[bank] : owned.get(owner);
    const type = values.get(owner)?.type;
    const first = values.get(owner)?.shards[shard]?.start ?? 0;
    const skipped = storage === 'param' ? first * elementCount(type?.shape.slice(1) ?? []) : 0;
    return (buffer ?? new Float64Array()).subarray(skipped + offset / 4, skipped + (offset + byteLength) / 4);
  };
  for (const {
    kernel: { run },
    args,
  } of steps) {
    const target = args.find(({ access }) => access !== 'read');
    if (target === undefined) throw new Error('a step that writes nothing');
    const place = at(target.location);
    const current = place.slice();
    if (target.access === 'write') place.fill(Number.NaN);
    const read = args.filter(({ access }) => access === 'read').map(({ location }) => at(location).slice());
    place.set(run(read, current));
  }
  return {
    outputs: new Map(graph.outputs.map(({ name, node }) => [name, [...contents(node)]])),
    states: new Map(graph.nodes.flatMap((node) => (node.op === 'state' ? [[node.params.name, [...(owned.get(node.id) ?? [])]] as const] : []))),
  };

  function contents(id: number): Float64Array {
    const value = values.get(id);
    const slot = memory.slots.get(value?.root ?? -1);
    if (value === undefined) throw new Error(`no value ${id}`);
    const { storage, root: owner, byteOffset, byteLength } = value;
    return at({ storage, owner, shard: 0, bank: slot?.bank ?? -1, offset: (slot?.offset ?? 0) + byteOffset, byteLength });
  }
}
