import type { ExecutionPlan } from './execution-plan.js';
import { slotBytes } from './memory.js';

/**
 * The memory plan as a text table for people: every slot with its bank, first byte, true bytes, and the steps from which and up to which it is alive ("in": written by the caller,
 * "out": read by the caller); then the banks, and what sharing saves over a place of its own for every value.
 */
export function formatMemoryPlan(plan: ExecutionPlan<unknown>): string {
  const { slots, banks, inPlace, unsharedBytes } = plan.memory;
  const end = plan.steps.length;
  const taken = new Map([...inPlace.entries()].flatMap(([step, consumed]) => writtenAt(plan, step).map((value) => [value, consumed] as const)));
  const rows = [...slots.entries()]
    .sort(([, a], [, b]) => a.bank - b.bank || a.offset - b.offset || a.interval.birth - b.interval.birth)
    .map(([id, { bank, offset, byteLength, interval }]) => {
      const alive = `${interval.birth < 0 ? 'in' : interval.birth} to ${interval.death >= end ? 'out' : interval.death}`;
      const consumed = taken.get(id);
      const note = consumed === undefined ? '' : `in place of ${nameOf(plan, consumed)}`;
      return [nameOf(plan, id), `${bank}`, `${offset}`, `${byteLength}`, alive, note];
    });
  const used = banks.reduce((sum, bytes) => sum + bytes, 0);
  const values = [...slots.keys()].flatMap((id) => plan.values.get(id) ?? []);
  const padding = values.reduce((sum, value) => sum + slotBytes(value, plan.target.memory) - value.byteLength, 0);
  return [
    ...table([['value', 'bank', 'offset', 'bytes', 'alive', ''], ...rows]),
    `${slots.size} values in ${banks.length} banks of ${banks.join(', ')} bytes: ${used} bytes, ${unsharedBytes - used} less than unshared (${padding} of padding)`,
  ].join('\n');
}

function nameOf(plan: ExecutionPlan<unknown>, id: number): string {
  return plan.values.get(id)?.name ?? `value ${id}`;
}

function writtenAt(plan: ExecutionPlan<unknown>, step: number): number[] {
  return (plan.steps[step]?.args ?? []).filter(({ access }) => access !== 'read').map(({ value }) => value);
}

/** Columns padded to one width: numbers to the right, the first and the last two columns to the left. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  return rows.map((row) =>
    row
      .map((cell, column) => (column > 0 && column < 4 ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
}
