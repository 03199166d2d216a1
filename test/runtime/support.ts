/** A backend that only stores: weights as they come, in shards of a few rows, so that a test can see where each byte went. */

import { byteLengthOfType } from '../../src/core/tensor.js';
import type { Backend, Region, Storage } from '../../src/runtime/backend.js';

export interface StoringBackend {
  readonly backend: Backend;
  readonly live: ReadonlyMap<string, Uint8Array>;
  /** Number of allocations that still succeed. */
  remaining: number;
}

export function storingBackend(shardRows = 4, rowGroup = 2): StoringBackend {
  const live = new Map<string, Uint8Array>();
  const find = ({ label }: Storage): Uint8Array => {
    const bytes = live.get(label);
    if (bytes === undefined) throw new Error(`"${label}" is not allocated`);
    return bytes;
  };
  const refuse = (): never => {
    throw new Error('not used here');
  };
  const backend: Backend = {
    kind: 'cpu',
    name: 'storing',
    reason: 'a test',
    checks: 'checked',
    timesSteps: true,
    maxBindingBytes: Number.POSITIVE_INFINITY,
    arithmetic: { halves: false, matrices: false },
    weights: {
      rowGroup,
      shards: ({ shape: [rows = 1] }) =>
        Array.from({ length: Math.ceil(rows / shardRows) }, (_, i) => ({ start: i * shardRows, rows: Math.min(shardRows, rows - i * shardRows) })),
      byteLength: byteLengthOfType,
      pack: (type, firstRow, rows) => {
        if (firstRow % rowGroup !== 0) throw new Error(`row ${firstRow} begins no group`);
        return [{ offset: (firstRow * byteLengthOfType(type)) / (type.shape[0] ?? 1), bytes: rows }];
      },
    },
    program: refuse,
    async allocate(label, byteLength, memoryClass) {
      if (result.remaining-- <= 0) throw new Error('no room');
      live.set(label, new Uint8Array(byteLength));
      return { label, byteLength, memoryClass, free: () => void live.delete(label) };
    },
    async write(storage, offset, bytes) {
      if (offset % 4 !== 0) throw new Error(`a write at byte ${offset}`);
      find(storage).set(bytes, offset);
    },
    read: async ({ storage, offset, byteLength }: Region) => find(storage).slice(offset, offset + byteLength),
    readAll: refuse,
    idle: async () => undefined,
    caseRounding: () => undefined,
    ledger: refuse,
    dispose: () => undefined,
  };
  const result = { backend, live, remaining: Number.POSITIVE_INFINITY };
  return result;
}
