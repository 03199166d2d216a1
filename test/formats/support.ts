import { expect } from 'vitest';
import type { ByteSource } from '../../src/gguf.js';

export interface CountingSource extends ByteSource {
  /** [offset, length] of every read, in order. */
  readonly reads: [offset: number, length: number][];
  closed: boolean;
}

/** Bytes that remember what was read of them. */
export function countingSource(bytes: Uint8Array, name = 'counted'): CountingSource {
  const source: CountingSource = {
    name,
    size: bytes.length,
    reads: [],
    closed: false,
    read(offset, length) {
      source.reads.push([offset, length]);
      return Promise.resolve(bytes.slice(offset, offset + length));
    },
    close() {
      source.closed = true;
      return Promise.resolve();
    },
  };
  return source;
}

/** How often the most often read byte was read. */
export function mostReads(reads: readonly (readonly [offset: number, length: number])[]): number {
  const changes = reads.flatMap(([offset, length]) => [[offset, 1] as const, [offset + length, -1] as const]);
  changes.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let depth = 0;
  return changes.reduce((most, [, change]) => {
    depth += change;
    return Math.max(most, depth);
  }, 0);
}

/** Bytes that differ from place to place. */
export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** Equality of bytes; far quicker on large arrays than a comparison element by element. */
export function expectBytes(actual: Uint8Array | undefined, wanted: Uint8Array): void {
  expect(actual?.length).toBe(wanted.length);
  if (Buffer.compare(actual ?? new Uint8Array(0), wanted) !== 0) expect(actual).toEqual(wanted);
}
