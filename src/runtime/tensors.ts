import { byteLengthOf } from '../core/dtype.js';
import { ArgumentError, DisposedError } from '../core/errors.js';
import type { MemoryClass } from '../core/memory.js';
import { byteLengthOfType, elementCount, formatType, roundUp, sameShape, type TensorType } from '../core/tensor.js';
import type { ExecutionPlan } from '../plan/execution-plan.js';
import { isPacked } from '../plan/plan-value.js';
import type { Backend, Bindings, Storage } from './backend.js';
import { isStoredPacked, type StoredShard, type StoredTensor, shardType } from './stored-tensor.js';
import { type TensorWriter, tensorWriter } from './tensor-writer.js';

/** Pieces of other sizes are no problem, but files are cut at multiples of this. */
const leastUnitBytes = 8;

/** Named tensors that outlive runs and that several executables share: weights, caches, session state. */
export class TensorStore {
  readonly #backend: Backend;
  readonly #tensors = new Map<string, StoredTensor>();
  #disposed = false;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  get(name: string): StoredTensor | undefined {
    return this.#tensors.get(name);
  }

  /** Makes room for a tensor; asking again for one that is there with the same type is no error. Packed matrices are split by rows where the backend wants it. */
  async allocate(name: string, type: TensorType, memoryClass: MemoryClass): Promise<StoredTensor> {
    this.#check();
    const known = this.#tensors.get(name);
    const packed = memoryClass === 'weights' && isPacked(type);
    if (known !== undefined) {
      if (known.type.dtype !== type.dtype || !sameShape(known.type.shape, type.shape))
        throw new ArgumentError('type', `"${name}" is ${formatType(known.type)} already, it cannot be ${formatType(type)} as well`);
      if (isStoredPacked(known) !== packed)
        throw new ArgumentError(
          'memoryClass',
          `"${name}" is stored ${packed ? 'as it comes' : 'packed, as a weight'}: one tensor cannot be a weight and a state`,
        );
      return known;
    }
    const rows = packed ? this.#backend.weights.shards(type) : [{ start: 0, rows: type.shape[0] ?? 1 }];
    const shards: StoredShard[] = [];
    for (const [index, shard] of rows.entries()) {
      const bytes = packed ? this.#backend.weights.byteLength(shardType(type, shard)) : byteLengthOfType(type);
      const label = rows.length > 1 ? `${name} rows ${shard.start} to ${shard.start + shard.rows}` : name;
      shards.push({ ...shard, storage: await this.#backend.allocate(label, Math.max(bytes, 4), memoryClass).catch(releasing(shards, index)) });
    }
    // What was allocated after `dispose` is nobody's.
    if (this.#disposed) for (const { storage } of shards) storage.free();
    this.#check();
    const tensor: StoredTensor = { name, type, shards, byteLength: shards.reduce((sum, shard) => sum + shard.storage.byteLength, 0) };
    this.#tensors.set(name, tensor);
    return tensor;
  }

  /** Puts a tensor whose storage someone else owns under a name: `dispose()` leaves it alone if its `free` does. */
  adopt(name: string, type: TensorType, storage: Storage): StoredTensor {
    if (this.#tensors.has(name)) throw new ArgumentError('name', `there is a tensor "${name}" already`);
    const wanted = roundUp(byteLengthOfType(type), 4);
    if (storage.byteLength < wanted)
      throw new ArgumentError('storage', `"${name}" is ${formatType(type)} and takes ${wanted} bytes, "${storage.label}" has ${storage.byteLength}`);
    const tensor: StoredTensor = { name, type, shards: [{ start: 0, rows: type.shape[0] ?? 1, storage }], byteLength: storage.byteLength };
    this.#tensors.set(name, tensor);
    return tensor;
  }

  /** Writes a whole tensor given in ggml's layout. */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    const writer = this.writer(name);
    await writer.push(bytes);
    await writer.finish();
  }

  /** Takes a tensor's bytes piece by piece, in order, as a file gives them. */
  writer(name: string): TensorWriter {
    this.#check();
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw new ArgumentError('name', `there is no tensor "${name}" here: allocate it first`);
    return tensorWriter(this.#backend, tensor);
  }

  /** Bytes of a tensor that a writer takes best at a time, and multiples of them: whole groups of rows, where the backend stores rows in groups. */
  unitBytes(name: string): number {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined || !isStoredPacked(tensor)) return leastUnitBytes;
    const group = byteLengthOf(tensor.type.dtype, elementCount(tensor.type.shape.slice(1))) * this.#backend.weights.rowGroup;
    return group % leastUnitBytes === 0 ? group : leastUnitBytes;
  }

  /** The storages that a plan's leaves are in, with `banks` for the rest. `constants` are the plan's own. */
  bindings(plan: ExecutionPlan<unknown>, banks: readonly Storage[], constants: ReadonlyMap<number, Storage>): Bindings {
    return {
      bank: (index) => present(banks[index], `bank ${index}`),
      leaf: (owner, shard) => {
        this.#check();
        const value = plan.values.get(owner);
        if (value?.storage === 'constant') return present(constants.get(owner), `constant ${value.name}`);
        return present(this.#tensors.get(value?.name ?? '')?.shards[shard]?.storage, `"${value?.name ?? owner}" shard ${shard}`);
      },
    };
  }

  /** Frees one tensor; a name that is not there is no error. */
  free(name: string): void {
    for (const shard of this.#tensors.get(name)?.shards ?? []) shard.storage.free();
    this.#tensors.delete(name);
  }

  /** Frees every tensor; calls after it, and those in flight that would go on, throw `DisposedError`. Again is no error. */
  dispose(): void {
    this.#disposed = true;
    for (const name of [...this.#tensors.keys()]) this.free(name);
    this.#backend.endWrites?.();
  }

  #check(): void {
    if (this.#disposed) throw new DisposedError('the tensors');
  }
}

function present(storage: Storage | undefined, what: string): Storage {
  if (storage === undefined) throw new ArgumentError('bindings', `${what} has no storage: allocate it before the plan is prepared`);
  return storage;
}

function releasing(shards: readonly StoredShard[], made: number): (error: unknown) => never {
  return (error) => {
    for (const shard of shards.slice(0, made)) shard.storage.free();
    throw error;
  };
}
