/** The one linear memory of a CPU device: blocks by label and class, with a budget and a ledger. */

import { ArgumentError, DisposedError, OutOfMemoryError } from '../core/errors.js';
import { checkBudget, type MemoryClass, type MemoryLedger, memoryClasses } from '../core/memory.js';
import { roundUp } from '../core/tensor.js';

export interface CpuAllocation {
  readonly label: string;
  readonly memoryClass: MemoryClass;
  /** Byte offset in linear memory, a multiple of `cpuAlignment`. */
  readonly offset: number;
  /** Bytes, rounded up to `cpuAlignment`. */
  readonly size: number;
  /** Gives the bytes back; again is no error. */
  free(): void;
}

export interface CpuMemoryLedger extends MemoryLedger {
  /** Bytes of the linear memory itself: it grows as needed and never shrinks. */
  readonly committedBytes: number;
}

/** A cache line. */
export const cpuAlignment = 64;

const pageBytes = 65_536;
const maxPages = 65_536;
/** 32-bit addresses reach 4 GiB; the last page stays unused, so that a vector that reads past the end of a value stays inside. */
export const cpuMaxBytes = (maxPages - 1) * pageBytes;

/** A free range. */
interface Hole {
  offset: number;
  size: number;
}

export class CpuMemory {
  readonly #budgetBytes: number;
  readonly #live = new Set<CpuAllocation>();
  /** Free ranges below `#end`, by offset. */
  #holes: Hole[] = [];
  #end = cpuAlignment;
  #bytes = 0;
  #peakBytes = 0;
  #memory: WebAssembly.Memory | undefined = new WebAssembly.Memory({ initial: 1, maximum: maxPages });

  constructor(budgetBytes?: number) {
    this.#budgetBytes = Math.min(checkBudget(budgetBytes) ?? cpuMaxBytes, cpuMaxBytes);
  }

  /** The memory that programs import. Its `buffer` changes when it grows. */
  get wasm(): WebAssembly.Memory {
    if (this.#memory === undefined) throw new DisposedError('the CPU device');
    return this.#memory;
  }

  /**
   * Zeroed bytes.
   * @throws OutOfMemoryError past the budget, past 4 GiB, or where the engine refuses; nothing is allocated then.
   */
  allocate(label: string, memoryClass: MemoryClass, bytes: number): CpuAllocation {
    if (!Number.isSafeInteger(bytes) || bytes <= 0)
      throw new ArgumentError('bytes', `an allocation is a whole number of bytes from 1, got ${bytes} for "${label}"`);
    const size = roundUp(bytes, cpuAlignment);
    const available = this.#budgetBytes - this.#bytes;
    if (size > available) throw outOfMemory(label, size, available, `the budget is ${this.#budgetBytes} bytes, ${this.#bytes} of them in use`);
    const offset = this.#take(label, size);
    new Uint8Array(this.wasm.buffer, offset, size).fill(0);
    const allocation: CpuAllocation = {
      label,
      memoryClass,
      offset,
      size,
      free: () => {
        if (!this.#live.delete(allocation)) return;
        this.#bytes -= size;
        this.#giveBack({ offset, size });
      },
    };
    this.#live.add(allocation);
    this.#bytes += size;
    this.#peakBytes = Math.max(this.#peakBytes, this.#bytes);
    return allocation;
  }

  ledger(): CpuMemoryLedger {
    const byClass = Object.fromEntries(memoryClasses.map((name) => [name, { bytes: 0, count: 0 }])) as Record<MemoryClass, { bytes: number; count: number }>;
    for (const { memoryClass, size } of this.#live) {
      byClass[memoryClass].bytes += size;
      byClass[memoryClass].count++;
    }
    const committedBytes = this.#memory?.buffer.byteLength ?? 0;
    return { bytes: this.#bytes, count: this.#live.size, peakBytes: this.#peakBytes, budgetBytes: this.#budgetBytes, committedBytes, byClass };
  }

  /** Frees everything and drops the linear memory. */
  dispose(): void {
    for (const allocation of this.#live) allocation.free();
    this.#memory = undefined;
  }

  /** First fit, else the end of the used part. */
  #take(label: string, size: number): number {
    const index = this.#holes.findIndex((hole) => hole.size >= size);
    const hole = this.#holes[index];
    if (hole !== undefined) {
      const { offset } = hole;
      hole.offset += size;
      hole.size -= size;
      if (hole.size === 0) this.#holes.splice(index, 1);
      return offset;
    }
    const offset = this.#end;
    this.#grow(label, offset + size, size);
    this.#end = offset + size;
    return offset;
  }

  #grow(label: string, end: number, requested: number): void {
    const missing = Math.ceil(end / pageBytes) + 1 - this.wasm.buffer.byteLength / pageBytes;
    if (missing <= 0) return;
    const available = cpuMaxBytes - this.#end;
    if (end > cpuMaxBytes) throw outOfMemory(label, requested, available, 'a WebAssembly memory with 32-bit addresses holds 4 GiB');
    try {
      this.wasm.grow(missing);
    } catch (cause) {
      throw outOfMemory(label, requested, available, `the engine did not grow its memory by ${missing} pages of 64 KiB (${String(cause)})`);
    }
  }

  /** Merges with the neighbours; what touches the end of the used part shortens it. */
  #giveBack(freed: Hole): void {
    const merged: Hole[] = [];
    for (const hole of [...this.#holes, freed].sort((a, b) => a.offset - b.offset)) {
      const last = merged.at(-1);
      if (last !== undefined && last.offset + last.size === hole.offset) last.size += hole.size;
      else merged.push({ ...hole });
    }
    const last = merged.at(-1);
    if (last !== undefined && last.offset + last.size === this.#end) {
      this.#end = last.offset;
      merged.pop();
    }
    this.#holes = merged;
  }
}

function outOfMemory(label: string, requested: number, available: number, reason: string): OutOfMemoryError {
  const message = `"${label}" needs ${requested} bytes of CPU memory and ${available} are left: ${reason}; use a smaller model or a shorter context, or free something`;
  return new OutOfMemoryError(message, { requested, available });
}
