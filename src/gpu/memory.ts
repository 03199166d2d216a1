/** The one place where buffers are made and destroyed, with a budget and a ledger: WebGPU itself never says how much memory is left. */

import type { GpuLimits } from '../core/capabilities.js';
import { ArgumentError, OutOfMemoryError } from '../core/errors.js';
import { type MemoryClass, type MemoryLedger, type MemoryUse, memoryClasses } from '../core/memory.js';
import { roundUp } from '../core/tensor.js';
import type { DeviceHealth } from './health.js';

export interface AllocationRequest {
  readonly label: string;
  /** Bytes; rounded up to a multiple of 4, which is what the ledger counts. */
  readonly size: number;
  /** Flags of `bufferUsage`. */
  readonly usage: number;
  readonly memoryClass: MemoryClass;
}

export interface GpuAllocation {
  readonly buffer: GPUBuffer;
  /** Bytes of the buffer. */
  readonly size: number;
  readonly label: string;
  readonly memoryClass: MemoryClass;
  /** Destroys the buffer; again is no error. */
  free(): void;
}

/** The ledger of a GPU device, with its live allocations. */
export interface GpuMemoryLedger extends MemoryLedger {
  /** Largest first; equal labels of a class are one line. */
  readonly byLabel: readonly (MemoryUse & { readonly label: string; readonly memoryClass: MemoryClass })[];
}

/** From this size on `allocate` waits for the device's answer: smaller ones are not worth two round trips each. */
const scopedBytes = 1 << 20;

export class GpuMemory {
  readonly #device: GPUDevice;
  readonly #health: DeviceHealth;
  readonly #limits: GpuLimits;
  readonly #budgetBytes: number;
  readonly #live = new Set<GpuAllocation>();
  #bytes = 0;
  #peakBytes = 0;

  /** `budgetBytes` is the most that may live at once; default no bound of ours. */
  constructor(device: GPUDevice, health: DeviceHealth, limits: GpuLimits, budgetBytes = Number.POSITIVE_INFINITY) {
    this.#device = device;
    this.#health = health;
    this.#limits = limits;
    this.#budgetBytes = budgetBytes;
  }

  /** Bytes that the budget still allows. */
  get availableBytes(): number {
    return this.#budgetBytes - this.#bytes;
  }

  /**
   * Makes a buffer and, from 1 MiB on, waits until the device has granted it.
   * @throws OutOfMemoryError past the budget, past `maxBufferSize`, or where the device refuses; nothing is allocated then.
   */
  async allocate(request: AllocationRequest): Promise<GpuAllocation> {
    if (request.size < scopedBytes) return this.allocateNow(request);
    const size = this.#admit(request);
    this.#device.pushErrorScope('validation');
    this.#device.pushErrorScope('out-of-memory');
    const allocation = this.#create(request, size);
    // Popped in the same turn as pushed, so that concurrent callers cannot take each other's scope.
    const answers = [this.#device.popErrorScope(), this.#device.popErrorScope()];
    try {
      const errors = await Promise.all(answers).catch(async (error: unknown) => {
        throw await this.#health.explain(error, `allocating "${request.label}"`);
      });
      const refusal = errors.find((error) => error !== null);
      if (refusal !== undefined && refusal !== null) throw this.#refusal(request, `the device refused it: ${refusal.message}`, this.#limits.maxBufferSize);
      this.#health.check();
      return allocation;
    } catch (error) {
      // A device that was lost meanwhile grants nothing either.
      allocation.free();
      throw error;
    }
  }

  /** As `allocate`, without waiting for the device: its refusal comes with the next check of the device. For small buffers. */
  allocateNow(request: AllocationRequest): GpuAllocation {
    return this.#create(request, this.#admit(request));
  }

  ledger(): GpuMemoryLedger {
    const byClass = Object.fromEntries(memoryClasses.map((name) => [name, { bytes: 0, count: 0 }])) as Record<MemoryClass, { bytes: number; count: number }>;
    const lines = new Map<string, { label: string; memoryClass: MemoryClass; bytes: number; count: number }>();
    for (const { label, memoryClass, size } of this.#live) {
      const key = `${memoryClass} ${label}`;
      const line = lines.get(key) ?? { label, memoryClass, bytes: 0, count: 0 };
      lines.set(key, line);
      for (const use of [byClass[memoryClass], line]) {
        use.bytes += size;
        use.count++;
      }
    }
    const byLabel = [...lines.values()].sort((a, b) => b.bytes - a.bytes);
    return { bytes: this.#bytes, count: this.#live.size, peakBytes: this.#peakBytes, budgetBytes: this.#budgetBytes, byClass, byLabel };
  }

  /** Destroys every buffer that is still alive. */
  dispose(): void {
    for (const allocation of this.#live) allocation.free();
  }

  /** The size of the buffer, where the request is sound and fits. */
  #admit(request: AllocationRequest): number {
    this.#health.check();
    if (!Number.isSafeInteger(request.size) || request.size <= 0) {
      throw new ArgumentError('size', `a buffer is a whole number of bytes from 1, got ${request.size} for "${request.label}"`);
    }
    const size = roundUp(request.size, 4);
    if (size > this.#limits.maxBufferSize) throw this.#refusal(request, 'one buffer of this device holds no more', this.#limits.maxBufferSize);
    if (size > this.availableBytes)
      throw this.#refusal(request, `the budget is ${this.#budgetBytes} bytes, ${this.#bytes} of them in use`, this.availableBytes);
    return size;
  }

  #create({ label, memoryClass, usage }: AllocationRequest, size: number): GpuAllocation {
    const buffer = this.#device.createBuffer({ label, size, usage });
    const allocation: GpuAllocation = {
      buffer,
      size,
      label,
      memoryClass,
      free: () => {
        if (!this.#live.delete(allocation)) return;
        this.#bytes -= size;
        buffer.destroy();
      },
    };
    this.#live.add(allocation);
    this.#bytes += size;
    this.#peakBytes = Math.max(this.#peakBytes, this.#bytes);
    return allocation;
  }

  #refusal({ label, size }: AllocationRequest, why: string, available: number): OutOfMemoryError {
    return new OutOfMemoryError(
      `"${label}" needs ${size} bytes of GPU memory, ${available} are available: ${why}. Use a smaller model, context or type, or a larger budget`,
      {
        requested: size,
        available,
      },
    );
  }
}
