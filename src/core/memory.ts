/** What a device's bytes are for: the ledgers of all backends count by these. */
export const memoryClasses = ['weights', 'kv', 'arena', 'state', 'staging', 'constants'] as const;
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
