/** Device to host: a ring of mappable buffers, so that several results can be on their way at once and a steady state makes no buffer. */

import { ArgumentError, BusyError, DisposedError } from '../core/errors.js';
import { roundUp } from '../core/tensor.js';
import { bufferUsage, mapModeRead } from './constants.js';
import type { DeviceHealth } from './health.js';
import type { GpuAllocation, GpuMemory } from './memory.js';

/** A copy that was encoded. Submit the encoder first, then read. */
export interface ReadbackTicket {
  /** Bytes that `read` gives. */
  readonly size: number;
  /**
   * Waits for the device and copies the bytes out; the ring's buffer is free again afterwards. Once only.
   * @throws DeviceLostError where the device was lost meanwhile.
   */
  read(): Promise<ArrayBuffer>;
  /** Gives the buffer back unread. */
  cancel(): void;
}

interface Slot {
  allocation: GpuAllocation;
  busy: boolean;
}

export interface ReadbackOptions {
  /** Most results on their way at once. Default 16. */
  readonly depth?: number;
  readonly label?: string;
}

const smallestSlot = 256;

export class ReadbackRing {
  readonly #memory: GpuMemory;
  readonly #health: DeviceHealth;
  readonly #depth: number;
  readonly #label: string;
  readonly #slots: Slot[] = [];
  #disposed = false;

  constructor(memory: GpuMemory, health: DeviceHealth, { depth = 16, label = 'readback' }: ReadbackOptions = {}) {
    if (!Number.isSafeInteger(depth) || depth < 1) throw new ArgumentError('depth', `a readback ring holds at least one buffer, got ${depth}`);
    this.#memory = memory;
    this.#health = health;
    this.#depth = depth;
    this.#label = label;
  }

  /** Results on their way now. */
  get inFlight(): number {
    return this.#slots.filter((slot) => slot.busy).length;
  }

  /**
   * Encodes a copy of `size` bytes at byte `offset` of `source` (both multiples of 4; usage COPY_SRC).
   * @throws BusyError where `depth` results are on their way already.
   */
  copyInto(encoder: GPUCommandEncoder, source: GPUBuffer, offset: number, size: number): ReadbackTicket {
    this.#assertUsable();
    if (offset % 4 !== 0 || size % 4 !== 0 || size <= 0) throw new ArgumentError('size', `WebGPU copies multiples of 4 bytes, got ${size} bytes at ${offset}`);
    if (offset + size > source.size) throw new ArgumentError('size', `${size} bytes at ${offset} reach past the source's ${source.size}`);
    const slot = this.#take(size);
    encoder.copyBufferToBuffer(source, offset, slot.allocation.buffer, 0, size);
    return this.#ticket(slot, size);
  }

  dispose(): void {
    this.#disposed = true;
    for (const slot of this.#slots) slot.allocation.free();
    this.#slots.length = 0;
  }

  #ticket(slot: Slot, size: number): ReadbackTicket {
    let open = true;
    const close = () => {
      if (!open) throw new ArgumentError('ticket', 'a readback ticket is read or cancelled once only');
      open = false;
    };
    return {
      size,
      read: () => {
        close();
        return this.#read(slot, size);
      },
      cancel: () => {
        close();
        slot.busy = false;
      },
    };
  }

  async #read(slot: Slot, size: number): Promise<ArrayBuffer> {
    this.#assertUsable();
    const { buffer } = slot.allocation;
    try {
      await buffer.mapAsync(mapModeRead, 0, size);
    } catch (error) {
      slot.busy = false;
      this.#assertUsable();
      throw await this.#health.explain(error, `reading back ${size} bytes`);
    }
    slot.busy = false;
    // Between the mapping and this line whoever else waits may have ended the ring or the device: then the buffer is gone.
    if (this.#disposed || this.#health.disposed) this.#assertUsable();
    const bytes = buffer.getMappedRange(0, size).slice(0);
    buffer.unmap();
    this.#health.check();
    return bytes;
  }

  /** The smallest free buffer that holds `size`, else a new one, else the largest free one made larger. */
  #take(size: number): Slot {
    const free = this.#slots.filter((slot) => !slot.busy).sort((a, b) => a.allocation.size - b.allocation.size);
    const fitting = free.find((slot) => slot.allocation.size >= size);
    const slot = fitting ?? this.#grow(free.at(-1), size);
    slot.busy = true;
    return slot;
  }

  #grow(largest: Slot | undefined, size: number): Slot {
    if (this.#slots.length < this.#depth) {
      const slot = { allocation: this.#allocate(size), busy: false };
      this.#slots.push(slot);
      return slot;
    }
    if (largest === undefined) {
      throw new BusyError(`${this.#depth} results are on their way from the device already: await one of them first, or give the ring a larger depth`);
    }
    const smaller = largest.allocation;
    largest.allocation = this.#allocate(size);
    smaller.free();
    return largest;
  }

  #allocate(size: number): GpuAllocation {
    return this.#memory.allocateNow({
      label: this.#label,
      size: Math.max(smallestSlot, roundUp(size, smallestSlot)),
      usage: bufferUsage.mapRead | bufferUsage.copyDst,
      memoryClass: 'staging',
    });
  }

  #assertUsable(): void {
    this.#health.check();
    if (this.#disposed) throw new DisposedError('the readback ring');
  }
}
