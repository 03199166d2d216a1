import { ArgumentError, shown } from './errors.js';

/** What a device's bytes are for: the ledgers of all backends count by these. */
export const memoryClasses = ['weights', 'kv', 'arena', 'state', 'staging', 'constants'] as const;
/** One of `memoryClasses`. */
export type MemoryClass = (typeof memoryClasses)[number];

export interface MemoryUse {
  readonly bytes: number;
  readonly count: number;
}

/** Bytes in use on a device, zero after everything was freed. */
export interface MemoryLedger extends MemoryUse {
  /** The largest `bytes` so far. */
  readonly peakBytes: number;
  readonly budgetBytes: number;
  readonly byClass: Readonly<Record<MemoryClass, MemoryUse>>;
}

/** The most bytes that may be allocated at once, as a caller gives them; undefined for no bound of his. @throws ArgumentError */
export function checkBudget(budgetBytes: number | undefined): number | undefined {
  if (budgetBytes !== undefined && !(typeof budgetBytes === 'number' && budgetBytes > 0))
    throw new ArgumentError('budgetBytes', `a memory budget is a number of bytes above 0, got ${shown(budgetBytes)}`);
  return budgetBytes;
}
