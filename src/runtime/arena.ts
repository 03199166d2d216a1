import { bytesOf } from '../core/bytes.js';
import { ArgumentError } from '../core/errors.js';
import type { ValueId } from '../core/step.js';
import { roundUp } from '../core/tensor.js';
import type { ExecutionPlan } from '../plan/execution-plan.js';
import type { Backend, Region, Storage } from './backend.js';

/** The storage of activations. Plans that never run at the same time share it: each bank is as large as the largest plan wants it. */
export async function allocateBanks(backend: Backend, plans: readonly ExecutionPlan<unknown>[]): Promise<readonly Storage[]> {
  const count = Math.max(0, ...plans.map((plan) => plan.memory.banks.length));
  const banks: Storage[] = [];
  try {
    for (let index = 0; index < count; index++) {
      const bytes = Math.max(4, ...plans.map((plan) => plan.memory.banks[index] ?? 0));
      banks.push(await backend.allocate(`arena bank ${index}`, bytes, 'arena'));
    }
    return banks;
  } catch (error) {
    for (const bank of banks) bank.free();
    throw error;
  }
}

/** Where a value of the arena lies. */
export interface ArenaLocation {
  readonly bank: number;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/**
 * The activations of one plan: who lies where, and reads and writes of single values between runs. A value keeps its contents only while the plan needs it; inputs and outputs keep
 * theirs.
 */
export class Arena {
  /** Whose values lie here. */
  readonly plan: ExecutionPlan<unknown>;
  /** Buffers, by the plan's numbers. */
  readonly banks: readonly Storage[];
  readonly #backend: Backend;
  readonly #actualBytes = new Map<ValueId, number>();

  constructor(backend: Backend, plan: ExecutionPlan<unknown>, banks: readonly Storage[]) {
    this.#backend = backend;
    this.plan = plan;
    this.banks = banks;
  }

  /** An arena of its own for one plan. */
  static async fromPlan(backend: Backend, plan: ExecutionPlan<unknown>): Promise<Arena> {
    return new Arena(backend, plan, await allocateBanks(backend, [plan]));
  }

  /** Bytes of all banks. */
  get byteLength(): number {
    return this.banks.reduce((sum, bank) => sum + bank.byteLength, 0);
  }

  /** Whether the value has bytes here: leaves with storage of their own and values that a rewrite removed have none. */
  has(id: ValueId): boolean {
    return this.#find(id) !== undefined;
  }

  /** Bank, first byte and true length of a value; views lie inside their base. */
  location(id: ValueId): ArenaLocation {
    const location = this.#find(id);
    if (location === undefined) throw new ArgumentError('id', `value ${id} is not in the arena: ask has() first`);
    return { ...location, byteLength: this.#actualBytes.get(id) ?? location.byteLength };
  }

  /** First byte of a value in its bank. */
  offset(id: ValueId): number {
    return this.location(id).byteOffset;
  }

  /** True bytes of a value. */
  lenOf(id: ValueId): number {
    return this.location(id).byteLength;
  }

  /** Sets how many of a value's bytes are data, for a run that fills it in part; at most its planned bytes. */
  setActualLen(id: ValueId, byteLength: number): void {
    const planned = this.#find(id)?.byteLength;
    if (planned === undefined) throw new ArgumentError('id', `value ${id} is not in the arena: ask has() first`);
    if (!(Number.isInteger(byteLength) && byteLength >= 0 && byteLength <= planned))
      throw new ArgumentError('byteLength', `value ${id} has room for ${planned} bytes, got ${byteLength}`);
    this.#actualBytes.set(id, byteLength);
  }

  /** Writes a whole value as f32 numbers. */
  async writeF32(id: ValueId, data: Float32Array): Promise<void> {
    await this.writeBytesRange(id, 0, bytesOf(data));
  }

  /** A whole value as f32 numbers. */
  async readF32(id: ValueId): Promise<Float32Array<ArrayBuffer>> {
    const bytes = await this.readBytesRange(id, 0, this.lenOf(id) - (this.lenOf(id) % 4));
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  }

  /** Writes bytes [start, start + bytes.length) of a value; start and length are multiples of 4, nothing is written for an empty range. */
  async writeBytesRange(id: ValueId, start: number, bytes: Uint8Array): Promise<void> {
    const { storage, offset } = this.#range(id, start, bytes.byteLength);
    if (bytes.byteLength > 0) await this.#backend.write(storage, offset, bytes);
  }

  /** Reads bytes [start, start + byteLength) of a value. */
  async readBytesRange(id: ValueId, start: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    const region = this.#range(id, start, byteLength);
    return byteLength === 0 ? new Uint8Array() : Uint8Array.from(await this.#backend.read(region));
  }

  /** The value's bytes, padded to whole words, for an executable's reads. */
  region(id: ValueId): Region {
    const { byteLength } = this.location(id);
    return this.#range(id, 0, roundUp(byteLength, 4));
  }

  /** As `region`, for an output of the plan's graph. @throws ArgumentError where there is none of that name. */
  outputRegion(name: string): Region {
    const output = this.plan.graph.outputs.find((candidate) => candidate.name === name);
    if (output === undefined) throw new ArgumentError('name', `the graph has no output "${name}"`);
    return this.region(output.node);
  }

  /** Frees the banks. */
  free(): void {
    for (const bank of this.banks) bank.free();
  }

  #find(id: ValueId): ArenaLocation | undefined {
    const value = this.plan.values.get(id);
    const slot = value && this.plan.memory.slots.get(value.root);
    return value && slot && { bank: slot.bank, byteOffset: slot.offset + value.byteOffset, byteLength: value.byteLength };
  }

  #range(id: ValueId, start: number, byteLength: number): Region {
    const location = this.location(id);
    const storage = this.banks[location.bank];
    if (storage === undefined) throw new ArgumentError('id', `value ${id} is in bank ${location.bank}, of which the arena has ${this.banks.length}`);
    if (start % 4 !== 0 || byteLength % 4 !== 0) throw new ArgumentError('start', `ranges are whole words, got ${byteLength} bytes at ${start}`);
    if (start < 0 || start + byteLength > roundUp(location.byteLength, 4)) {
      throw new ArgumentError('start', `value ${id} has ${location.byteLength} bytes, got ${byteLength} bytes at ${start}`);
    }
    return { storage, offset: location.byteOffset + start, byteLength };
  }
}
