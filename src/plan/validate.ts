import { PlanError } from '../core/errors.js';
import type { ValueId } from '../core/step.js';
import { updatedInput, updatedInputs } from '../ops/table.js';
import type { ExecutionPlan, Location, PlannedArg, PlannedStep } from './execution-plan.js';

/**
 * Replays the exact step list on paper. Proves that every step reads what the step before it wrote there and nobody overwrote since, that each dispatch is legal under the target's
 * rules, and that inputs and outputs survive. Throws `PlanError`: a plan that fails is a defect of Centella.
 */
export function validate<Kernel>(plan: ExecutionPlan<Kernel>): void {
  const memory = new Memory(plan);
  plan.steps.forEach((step, index) => {
    checkLegality(plan, step, index);
    for (const arg of step.args) {
      if (arg.access === 'read') memory.expect(arg.value, arg.location, step.label, index);
      if (arg.access === 'readwrite') memory.expectUpdatable(step, arg, index);
    }
    for (const arg of step.args) if (arg.access !== 'read') memory.write(arg.value, arg.location);
  });
  for (const output of plan.graph.outputs) memory.expectOutput(output.node, output.name);
  for (const value of plan.values.values()) if (value.isInput && value.root === value.id) memory.expectInput(value.id, value.name);
}

function bufferOf(location: Location): string {
  return location.storage === 'arena' ? `bank ${location.bank}` : `${location.storage} ${location.owner}.${location.shard}`;
}

function overlaps(a: Location, b: Location): boolean {
  return a.offset < b.offset + b.byteLength && b.offset < a.offset + a.byteLength;
}

function checkLegality<Kernel>(plan: ExecutionPlan<Kernel>, step: PlannedStep<Kernel>, index: number): void {
  const { memory: rules, dispatch } = plan.target;
  const fail = (what: string): never => {
    throw new PlanError(`step ${index} (${step.label}): ${what}`, index);
  };
  if (step.args.length > rules.maxBindings) fail(`${step.args.length} bindings, the device allows ${rules.maxBindings}`);
  for (const { location, value } of step.args) {
    if (location.offset % rules.alignment !== 0) fail(`value ${value} starts at byte ${location.offset}, not a multiple of ${rules.alignment}`);
    if (location.storage === 'arena' && !(location.offset + location.byteLength <= (plan.memory.banks[location.bank] ?? 0)))
      fail(`value ${value} ends at byte ${location.offset + location.byteLength} of bank ${location.bank}, past its end`);
    if (location.byteLength > rules.maxBindingBytes) fail(`value ${value} binds ${location.byteLength} bytes, the device allows ${rules.maxBindingBytes}`);
  }
  if (dispatch !== undefined) {
    const { grid, bindings } = dispatch(step.kernel);
    if (grid.some((size) => !(size >= 1 && size <= rules.maxGrid))) fail(`a grid of ${grid.join(' x ')} workgroups, the device allows ${rules.maxGrid}`);
    const declared = step.args.map((arg) => (arg.access === 'read' ? 'read' : 'read_write'));
    if (declared.join() !== bindings.join()) fail(`arguments are (${declared.join(', ')}), the kernel declares (${bindings.join(', ')})`);
  }
  step.args.forEach((a, i) => {
    for (const b of step.args.slice(i + 1)) {
      if (bufferOf(a.location) !== bufferOf(b.location) || (a.access === 'read' && b.access === 'read')) continue;
      if (rules.exclusiveBuffers && (a.access === 'read' || b.access === 'read'))
        fail(`values ${a.value} and ${b.value} share a buffer, one is read and one is written`);
      if (overlaps(a.location, b.location)) fail(`values ${a.value} and ${b.value} overlap, and one of them is written`);
    }
  });
}

/** Which value the bytes of every buffer hold. */
class Memory<Kernel> {
  readonly #plan: ExecutionPlan<Kernel>;
  readonly #held = new Map<string, Map<ValueId, Location>>();

  constructor(plan: ExecutionPlan<Kernel>) {
    this.#plan = plan;
    for (const value of plan.values.values()) {
      const slot = plan.memory.slots.get(value.id);
      if (value.isInput && value.root === value.id && slot !== undefined) {
        this.write(value.id, { storage: 'arena', owner: value.id, shard: 0, bank: slot.bank, offset: slot.offset, byteLength: slot.byteLength });
      }
    }
  }

  /** The bytes now hold `value`'s root (or that version of its state) and nothing else. */
  write(value: ValueId, location: Location): void {
    const buffer = this.#buffer(location);
    for (const [other, held] of buffer) if (overlaps(held, location)) buffer.delete(other);
    buffer.set(this.#holder(value), location);
  }

  expect(value: ValueId, location: Location, label: string, index: number): void {
    if (!this.#holds(value, location))
      throw new PlanError(`step ${index} (${label}) reads value ${value} at ${bufferOf(location)}+${location.offset}, which holds something else`, index);
  }

  expectUpdatable(step: PlannedStep<Kernel>, arg: PlannedArg, index: number): void {
    const node = this.#plan.graph.nodes[arg.value];
    const before = step.consumes ?? (arg.location.storage === 'state' ? (this.#previousVersion(arg.value) ?? this.#updatedBeside(step, arg.value)) : undefined);
    if (before === undefined)
      throw new PlanError(`step ${index} (${step.label}) updates ${node?.name ?? arg.value}, which is neither a state nor in place`, index);
    this.expect(before, arg.location, step.label, index);
  }

  expectOutput(value: ValueId, name: string): void {
    const planned = this.#plan.values.get(value);
    if (planned === undefined) throw new PlanError(`output "${name}" is value ${value}, which is not in the plan`);
    const slot = this.#plan.memory.slots.get(planned.root);
    if (planned.storage === 'arena' && slot === undefined) throw new PlanError(`output "${name}" has no slot: no step writes it`);
    const { bank, offset } = slot ?? { bank: -1, offset: 0 };
    const location: Location = {
      storage: planned.storage,
      owner: planned.root,
      shard: 0,
      bank,
      offset: offset + planned.byteOffset,
      byteLength: planned.byteLength,
    };
    if (!this.#holds(value, location)) throw new PlanError(`output "${name}" is overwritten before the end`);
  }

  /** An input that the next run leaves out has its last value. */
  expectInput(value: ValueId, name: string): void {
    const slot = this.#plan.memory.slots.get(value);
    if (slot === undefined) throw new PlanError(`input "${name}" has no slot`);
    const location: Location = { storage: 'arena', owner: value, shard: 0, bank: slot.bank, offset: slot.offset, byteLength: slot.byteLength };
    if (!this.#holds(value, location)) throw new PlanError(`input "${name}" is overwritten before the end`);
  }

  #previousVersion(value: ValueId): ValueId | undefined {
    const node = this.#plan.graph.nodes[value];
    return node?.inputs.find((input) => this.#plan.values.get(input)?.root === this.#plan.values.get(value)?.root);
  }

  /** A state that the step's node updates beside an output of its own: it has no newer version in this run. */
  #updatedBeside(step: PlannedStep<Kernel>, value: ValueId): ValueId | undefined {
    const node = this.#plan.graph.nodes[step.node];
    if (node === undefined || updatedInput(node.op) !== undefined) return undefined;
    return updatedInputs(node.op).some((input) => node.inputs[input] === value) ? value : undefined;
  }

  #buffer(location: Location): Map<ValueId, Location> {
    const key = bufferOf(location);
    const buffer = this.#held.get(key) ?? new Map<ValueId, Location>();
    this.#held.set(key, buffer);
    return buffer;
  }

  /** Versions of a state are told apart; views are their base. */
  #holder(value: ValueId): ValueId {
    const node = this.#plan.graph.nodes[value];
    return node !== undefined && (node.op === 'reshape' || node.op === 'narrow') ? this.#holder(node.inputs[0] ?? value) : value;
  }

  #holds(value: ValueId, location: Location): boolean {
    const holder = this.#holder(value);
    if (location.storage === 'param' || location.storage === 'constant') return true;
    const held = this.#buffer(location).get(holder);
    if (held !== undefined) return held.offset <= location.offset && location.offset + location.byteLength <= held.offset + held.byteLength + 3;
    // A state that no step of this run has updated yet holds what the run before left.
    return location.storage === 'state' && this.#plan.graph.nodes[holder]?.op === 'state' && this.#buffer(location).size === 0;
  }
}
