import { DeviceError, DisposedError } from '../core/errors.js';
import type { MemoryClass } from '../core/memory.js';
import type { GpuAllocation } from '../gpu/memory.js';
import type { ReadbackPiece } from '../gpu/readback.js';
import type { Region, Storage } from './backend.js';

/** A buffer of a GPU device as the storage of its backend. */
export class GpuStorage implements Storage {
  readonly label: string;
  readonly byteLength: number;
  readonly memoryClass: MemoryClass;
  readonly #allocation: GpuAllocation;
  #freed = false;

  constructor(allocation: GpuAllocation) {
    this.#allocation = allocation;
    this.label = allocation.label;
    this.byteLength = allocation.size;
    this.memoryClass = allocation.memoryClass;
  }

  get buffer(): GPUBuffer {
    return this.#allocation.buffer;
  }

  /** @throws DisposedError once it was freed: a submit that uses a destroyed buffer fails as a whole, and with no word on whose call it was. */
  check(): void {
    if (this.#freed) throw new DisposedError(`"${this.label}"`);
  }

  free(): void {
    this.#freed = true;
    this.#allocation.free();
  }
}

/** A caller's buffer: plans come and go without it. */
export class AdoptedStorage extends GpuStorage {
  override free(): void {}
}

/** @throws DeviceError for storage of another backend. */
export function gpuStorage(storage: Storage): GpuStorage {
  if (storage instanceof GpuStorage) return storage;
  throw new DeviceError('E_DEVICE', `"${storage.label}" is not a buffer of this device: allocate it on the backend that runs the graph`);
}

/** @throws DisposedError once it was freed, beside what `gpuStorage` throws. */
export function bufferOf(storage: Storage): GPUBuffer {
  const known = gpuStorage(storage);
  known.check();
  return known.buffer;
}

export function pieceOf({ storage, offset, byteLength }: Region): ReadbackPiece {
  return { source: bufferOf(storage), offset, size: byteLength };
}
