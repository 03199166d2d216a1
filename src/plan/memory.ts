import { PlanError, UnsupportedError } from '../core/errors.js';
import type { Step, ValueId } from '../core/step.js';
import { roundUp } from '../core/tensor.js';
import type { MemoryRules } from '../ops/target.js';
import type { PlanValue } from './plan-value.js';

/** Steps are numbered from 0; a value is alive from `birth` to `death`, both included. Inputs are born at -1; inputs and outputs live to the end. */
export interface Interval {
  readonly birth: number;
  readonly death: number;
}

/** Where a root value of the arena lies. */
export interface Slot {
  readonly bank: number;
  readonly offset: number;
  /** Bytes that are the value's own; the slot reaches to the next multiple of the alignment. */
  readonly byteLength: number;
  readonly interval: Interval;
}

/** Where values lie in the banks of an arena. */
export interface MemoryPlan {
  /** Bytes of each bank. */
  readonly banks: readonly number[];
  readonly slots: ReadonlyMap<ValueId, Slot>;
  /** Steps that write over their input, with the value that they consume. */
  readonly inPlace: ReadonlyMap<number, ValueId>;
  /** What the values would take if nothing shared anything. */
  readonly unsharedBytes: number;
}

/** Values that share one slot: an input and the output written over it. */
interface Group {
  readonly members: ValueId[];
  readonly bytes: number;
  birth: number;
  death: number;
  readonly conflicts: Set<Group>;
}

/**
 * Places the arena's values: larger first, each at the lowest free offset of the bank that grows least. Two values that one step reads and writes go to different banks where the
 * target wants it; what dies in a step may be written over by it. `outputs` are values that the caller reads afterwards.
 */
export function planMemory<Kernel>(
  steps: readonly Step<Kernel>[],
  values: ReadonlyMap<ValueId, PlanValue>,
  outputs: readonly ValueId[],
  rules: MemoryRules,
): MemoryPlan {
  const rootOf = (id: ValueId): PlanValue => need(values, need(values, id).root);
  const intervals = liveness(steps, values, outputs);
  const groups = new Map<ValueId, Group>();
  for (const [id, interval] of intervals) {
    groups.set(id, { members: [id], bytes: slotBytes(need(values, id), rules), ...interval, conflicts: new Set() });
  }
  const inPlace = mergeInPlace(steps, values, groups);
  if (rules.exclusiveBuffers) findConflicts(steps, rootOf, groups, inPlace);
  const { banks, slots } = place(new Set(groups.values()), values, rules, intervals);
  const unsharedBytes = [...intervals.keys()].reduce((sum, id) => sum + slotBytes(need(values, id), rules), 0);
  return { banks, slots, inPlace, unsharedBytes };
}

/** Bytes that a value's slot takes up. */
export function slotBytes({ byteLength }: PlanValue, rules: MemoryRules): number {
  return roundUp(Math.max(byteLength, 4), rules.alignment);
}

function need(values: ReadonlyMap<ValueId, PlanValue>, id: ValueId): PlanValue {
  const value = values.get(id);
  if (value === undefined) throw new PlanError(`value ${id} is not in the plan`);
  return value;
}

/** The lifetimes of the arena's roots, by the steps that touch them or a view of them. */
function liveness<Kernel>(
  steps: readonly Step<Kernel>[],
  values: ReadonlyMap<ValueId, PlanValue>,
  outputs: readonly ValueId[],
): ReadonlyMap<ValueId, Interval> {
  const intervals = new Map<ValueId, { birth: number; death: number }>();
  const end = steps.length;
  for (const value of values.values()) {
    if (value.isInput && value.root === value.id) intervals.set(value.id, { birth: -1, death: end });
  }
  steps.forEach((step, index) => {
    for (const arg of step.args) {
      const root = need(values, need(values, arg.value).root);
      if (root.storage !== 'arena') continue;
      const interval = intervals.get(root.id);
      if (interval === undefined && arg.access === 'read') throw new PlanError(`${step.label} reads ${root.name} before any step writes it`, index);
      intervals.set(root.id, { birth: interval?.birth ?? index, death: Math.max(interval?.death ?? index, index) });
    }
  });
  for (const output of outputs) {
    const interval = intervals.get(need(values, output).root);
    if (interval !== undefined) interval.death = end;
  }
  return intervals;
}

/** Lets outputs take the place of inputs that die in the same step. */
function mergeInPlace<Kernel>(steps: readonly Step<Kernel>[], values: ReadonlyMap<ValueId, PlanValue>, groups: Map<ValueId, Group>): Map<number, ValueId> {
  const consumed = new Map<number, ValueId>();
  steps.forEach((step, index) => {
    if (step.inPlace === undefined) return;
    const [input, output] = [step.args[step.inPlace.input], step.args[step.inPlace.output]];
    if (input === undefined || output === undefined) throw new PlanError(`${step.label}: its in-place variant names missing arguments`, index);
    const [source, target] = [need(values, input.value), need(values, output.value)];
    const [from, to] = [groups.get(source.root), groups.get(target.root)];
    const wholeRoot = source.byteOffset === 0 && source.byteLength === need(values, source.root).byteLength && target.root === target.id;
    const readOnce = step.args.filter((arg) => need(values, arg.value).root === source.root).length === 1;
    if (from === undefined || to === undefined || from === to || !wholeRoot || !readOnce) return;
    if (from.death !== index || to.birth !== index || source.byteLength !== target.byteLength) return;
    from.members.push(...to.members);
    from.death = to.death;
    for (const member of to.members) groups.set(member, from);
    consumed.set(index, input.value);
  });
  return consumed;
}

function findConflicts<Kernel>(
  steps: readonly Step<Kernel>[],
  rootOf: (id: ValueId) => PlanValue,
  groups: ReadonlyMap<ValueId, Group>,
  inPlace: ReadonlyMap<number, ValueId>,
): void {
  steps.forEach((step, index) => {
    const args = step.args.filter((_, position) => !(inPlace.has(index) && position === step.inPlace?.input));
    const written = args.filter((arg) => arg.access !== 'read').map((arg) => groups.get(rootOf(arg.value).id));
    const read = args.filter((arg) => arg.access === 'read').map((arg) => groups.get(rootOf(arg.value).id));
    for (const target of written) {
      for (const source of read) {
        if (target === undefined || source === undefined) continue;
        if (target === source) throw new PlanError(`${step.label} reads and writes one value without an in-place variant`, index);
        target.conflicts.add(source);
        source.conflicts.add(target);
      }
    }
  });
}

interface Placed {
  readonly group: Group;
  readonly offset: number;
}

function place(
  groups: ReadonlySet<Group>,
  values: ReadonlyMap<ValueId, PlanValue>,
  rules: MemoryRules,
  intervals: ReadonlyMap<ValueId, Interval>,
): { banks: number[]; slots: Map<ValueId, Slot> } {
  const banks: { size: number; placed: Placed[] }[] = [];
  const slots = new Map<ValueId, Slot>();
  for (const group of [...groups].sort((a, b) => b.bytes - a.bytes || a.birth - b.birth)) {
    const limit = Math.min(rules.maxBindingBytes, rules.maxBankBytes);
    if (group.bytes > limit) {
      const name = values.get(group.members[0] ?? -1)?.name ?? '';
      throw new UnsupportedError(
        `${name} needs ${group.bytes} bytes, one binding of this device holds ${limit}: use fewer rows at a time, or in a model a shorter context`,
      );
    }
    const candidates = banks.map((bank, index) => ({ index, offset: lowestOffset(bank.placed, group), bank }));
    const legal = candidates.filter(
      ({ bank, offset }) => offset + group.bytes <= rules.maxBankBytes && !bank.placed.some((other) => group.conflicts.has(other.group)),
    );
    const growth = (candidate: { bank: { size: number }; offset: number }): number => Math.max(0, candidate.offset + group.bytes - candidate.bank.size);
    const best = legal.sort((a, b) => growth(a) - growth(b) || a.index - b.index)[0];
    const index = best?.index ?? banks.length;
    const bank = best?.bank ?? { size: 0, placed: [] };
    if (best === undefined) banks.push(bank);
    const offset = best?.offset ?? 0;
    bank.placed.push({ group, offset });
    bank.size = Math.max(bank.size, offset + group.bytes);
    for (const id of group.members) slots.set(id, { bank: index, offset, byteLength: need(values, id).byteLength, interval: intervals.get(id) ?? group });
  }
  return { banks: banks.map((bank) => bank.size), slots };
}

/** The lowest offset at which `group` meets nothing that lives at the same time. */
function lowestOffset(placed: readonly Placed[], group: Group): number {
  const neighbours = placed.filter(({ group: other }) => other.birth <= group.death && group.birth <= other.death).sort((a, b) => a.offset - b.offset);
  let offset = 0;
  for (const { group: other, offset: start } of neighbours) {
    if (offset + group.bytes <= start) break;
    offset = Math.max(offset, start + other.bytes);
  }
  return offset;
}
