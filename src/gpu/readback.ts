/** Device to host: a ring of mappable buffers, so that several results can be on their way at once and a steady state makes no buffer. */

import { ArgumentError, DisposedError, defined } from '../core/errors.js';
import { roundUp } from '../core/tensor.js';
import { bufferUsage, mapModeRead } from './constants.js';
import type { DeviceHealth } from './health.js';
import type { GpuAllocation, GpuMemory } from './memory.js';

/** Bytes of a buffer to read: offset and size are multiples of 4, the buffer has the usage COPY_SRC. */
export interface ReadbackPiece {
  readonly source: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** A copy that was encoded. Submit the encoder first, then read. */
export interface ReadbackTicket<Result = ArrayBuffer> {
  /**
   * Waits for the device and copies the bytes out; the ring's buffer is free again afterwards. Once only.
   * @throws DeviceLostError where the device was lost meanwhile.
   */
  read(): Promise<Result>;
  /** Gives the buffer back unread. */
  cancel(): void;
}

/** Pieces that share one buffer of the ring, one after the other. */
interface Share {
  readonly slot: Slot;
  readonly pieces: readonly ReadbackPiece[];
}

interface Slot {
  allocation: GpuAllocation;
  busy: boolean;
}

export interface ReadbackOptions {
  /** Buffers that are kept for the next results. More results may be on their way at once: theirs are freed when they have arrived. Default 16. */
  readonly depth?: number;
  /** Bytes of idle buffers that are kept; the largest go first. Default 256 MiB. */
  readonly keptBytes?: number;
  readonly label?: string;
}

const smallestSlot = 256;
/** Pieces share a buffer up to this size, which every device allows. */
const largestShare = 256 << 20;

export class ReadbackRing {
  readonly #memory: GpuMemory;
  readonly #health: DeviceHealth;
  readonly #depth: number;
  readonly #keptBytes: number;
  readonly #label: string;
  readonly #slots: Slot[] = [];
  #disposed = false;

  constructor(memory: GpuMemory, health: DeviceHealth, { depth = 16, keptBytes = 256 << 20, label = 'readback' }: ReadbackOptions = {}) {
    if (!Number.isSafeInteger(depth) || depth < 1) throw new ArgumentError('depth', `a readback ring holds at least one buffer, got ${depth}`);
    this.#memory = memory;
    this.#health = health;
    this.#depth = depth;
    this.#keptBytes = keptBytes;
    this.#label = label;
  }

  /** Results on their way now. */
  get inFlight(): number {
    return this.#slots.filter((slot) => slot.busy).length;
  }

  /** Encodes a copy of `size` bytes at byte `offset` of `source` (both multiples of 4; usage COPY_SRC). */
  copyInto(encoder: GPUCommandEncoder, source: GPUBuffer, offset: number, size: number): ReadbackTicket {
    const ticket = this.copyAllInto(encoder, [{ source, offset, size }]);
    return { read: () => ticket.read().then(([bytes]) => defined(bytes, 'the bytes of a copy')), cancel: ticket.cancel };
  }

  /** As `copyInto`, for all pieces in one wait: where they are not huge, they share one buffer. */
  copyAllInto(encoder: GPUCommandEncoder, pieces: readonly ReadbackPiece[]): ReadbackTicket<ArrayBuffer[]> {
    this.#assertUsable();
    for (const piece of pieces) assertPiece(piece);
    const shares: Share[] = [];
    try {
      for (const group of grouped(pieces)) shares.push({ slot: this.#take(totalSize(group)), pieces: group });
    } catch (error) {
      for (const { slot } of shares) this.#release(slot);
      throw error;
    }
    for (const share of shares) {
      let at = 0;
      for (const { source, offset, size } of share.pieces) {
        encoder.copyBufferToBuffer(source, offset, share.slot.allocation.buffer, at, size);
        at += size;
      }
    }
    return this.#ticket(shares);
  }

  dispose(): void {
    this.#disposed = true;
    for (const slot of this.#slots) slot.allocation.free();
    this.#slots.length = 0;
  }

  #ticket(shares: readonly Share[]): ReadbackTicket<ArrayBuffer[]> {
    let open = true;
    const close = () => {
      if (!open) throw new ArgumentError('ticket', 'a readback ticket is read or cancelled once only');
      open = false;
    };
    return {
      read: () => {
        close();
        return Promise.all(shares.map((share) => this.#read(share))).then((parts) => parts.flat());
      },
      cancel: () => {
        close();
        for (const { slot } of shares) this.#release(slot);
      },
    };
  }

  async #read({ slot, pieces }: Share): Promise<ArrayBuffer[]> {
    try {
      this.#assertUsable();
      const { buffer } = slot.allocation;
      const total = totalSize(pieces);
      await buffer.mapAsync(mapModeRead, 0, total).catch(async (error: unknown) => {
        this.#assertUsable();
        throw await this.#health.explain(error, `reading back ${total} bytes`);
      });
      // Between the mapping and this line whoever else waits may have ended the ring or the device: then the buffer is gone.
      if (this.#disposed || this.#health.disposed) this.#assertUsable();
      const mapped = buffer.getMappedRange(0, total);
      let at = 0;
      const parts = pieces.map(({ size }) => {
        at += size;
        return mapped.slice(at - size, at);
      });
      buffer.unmap();
      this.#health.check();
      return parts;
    } finally {
      this.#release(slot);
    }
  }

  /** A buffer is free again. It goes where more than `depth` were wanted at once; the largest idle ones go where all of them hold too much. */
  #release(slot: Slot): void {
    slot.busy = false;
    if (this.#slots.length > this.#depth) this.#drop(slot);
    const idle = this.#slots.filter(({ busy }) => !busy).sort((a, b) => a.allocation.size - b.allocation.size);
    let bytes = idle.reduce((sum, { allocation }) => sum + allocation.size, 0);
    for (let largest = idle.pop(); largest !== undefined && bytes > this.#keptBytes; largest = idle.pop()) {
      bytes -= largest.allocation.size;
      this.#drop(largest);
    }
  }

  #drop(slot: Slot): void {
    const at = this.#slots.indexOf(slot);
    if (at >= 0) this.#slots.splice(at, 1);
    slot.allocation.free();
  }

  /** The smallest free buffer that holds `size`; else the largest free one made larger, where there are `depth`; else a new one. */
  #take(size: number): Slot {
    const free = this.#slots.filter((slot) => !slot.busy).sort((a, b) => a.allocation.size - b.allocation.size);
    const slot = free.find(({ allocation }) => allocation.size >= size) ?? this.#grow(free.at(-1), size);
    slot.busy = true;
    return slot;
  }

  #grow(largest: Slot | undefined, size: number): Slot {
    if (largest === undefined || this.#slots.length < this.#depth) {
      const slot = { allocation: this.#allocate(size), busy: false };
      this.#slots.push(slot);
      return slot;
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

function totalSize(pieces: readonly ReadbackPiece[]): number {
  return pieces.reduce((sum, { size }) => sum + size, 0);
}

/** In order; a group of several pieces has at most `largestShare` bytes. */
function grouped(pieces: readonly ReadbackPiece[]): readonly (readonly ReadbackPiece[])[] {
  const groups: ReadbackPiece[][] = [];
  let room = 0;
  for (const piece of pieces) {
    const last = groups.at(-1);
    if (last === undefined || piece.size > room) groups.push([piece]);
    else last.push(piece);
    room = (last === undefined || piece.size > room ? largestShare : room) - piece.size;
  }
  return groups;
}

function assertPiece({ source, offset, size }: ReadbackPiece): void {
  if (offset % 4 !== 0 || size % 4 !== 0 || size <= 0) throw new ArgumentError('size', `WebGPU copies multiples of 4 bytes, got ${size} bytes at ${offset}`);
  if (offset + size > source.size) throw new ArgumentError('size', `${size} bytes at ${offset} reach past the source's ${source.size}`);
}
