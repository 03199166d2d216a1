import { ArgumentError, DeviceError, DisposedError } from '../core/errors.js';
import type { MemoryClass, MemoryLedger } from '../core/memory.js';
import { CpuDevice, type CpuExecutable } from '../cpu/executor.js';
import type { CpuKernel } from '../cpu/kernel.js';
import type { CpuAllocation } from '../cpu/memory.js';
import { caseRounding } from '../cpu/rounding.js';
import { cpuTarget } from '../cpu/target.js';
import type { Graph } from '../graph/graph.js';
import type { OpCase } from '../ops/case.js';
import type { Target, WeightStore } from '../ops/target.js';
import { planGraph } from '../plan/plan.js';
import { yieldToEventLoop } from '../platform/yield.js';
import type { Backend, Executable, Program, Region, RegionWrite, StepTiming, Storage, Submission } from './backend.js';
import { boundRegion } from './bound-region.js';

class CpuStorage implements Storage {
  readonly allocation: CpuAllocation;
  readonly label: string;
  readonly byteLength: number;
  readonly memoryClass: MemoryClass;
  #freed = false;

  constructor(allocation: CpuAllocation, byteLength: number) {
    this.allocation = allocation;
    this.label = allocation.label;
    this.byteLength = byteLength;
    this.memoryClass = allocation.memoryClass;
  }

  free(): void {
    this.#freed = true;
    this.allocation.free();
  }

  get freed(): boolean {
    return this.#freed;
  }
}

function allocationOf(storage: Storage): CpuAllocation {
  if (!(storage instanceof CpuStorage))
    throw new DeviceError('E_DEVICE', `"${storage.label}" is not memory of the CPU backend: allocate it on the backend that runs the graph`);
  if (storage.freed) throw new DisposedError(`"${storage.label}"`);
  return storage.allocation;
}

/** Address of bytes [offset, offset + byteLength) of a storage. One linear memory holds them all: what is past one storage's end is another's. */
function addressOf(storage: Storage, offset: number, byteLength: number): number {
  const allocation = allocationOf(storage);
  if (!(offset >= 0 && byteLength >= 0 && offset + byteLength <= allocation.size))
    throw new ArgumentError('offset', `"${storage.label}" has ${storage.byteLength} bytes, got ${byteLength} bytes at ${offset}`);
  return allocation.offset + offset;
}

export interface CpuBackendOptions {
  readonly reason?: string;
  readonly budgetBytes?: number;
}

/** Graphs on WASM SIMD, in one thread. */
export class CpuBackend implements Backend {
  readonly kind = 'cpu';
  readonly name = 'WASM SIMD, 1 thread';
  readonly checks = 'checked';
  readonly timesSteps = true;
  readonly refuses: Backend['refuses'] = undefined;
  readonly arithmetic = { halves: false, matrices: false };
  readonly reason: string;
  readonly #device: CpuDevice;
  readonly #target: Target<CpuKernel> = cpuTarget();

  constructor(options: CpuBackendOptions = {}) {
    this.reason = options.reason ?? 'the CPU was asked for';
    this.#device = new CpuDevice(options.budgetBytes === undefined ? {} : { budgetBytes: options.budgetBytes });
  }

  get weights(): WeightStore {
    return this.#target.weights;
  }

  get maxBindingBytes(): number {
    return this.#target.memory.maxBindingBytes;
  }

  program(graph: Graph): Program {
    const plan = planGraph(graph, this.#target);
    return {
      plan,
      kernels: [...new Set(plan.steps.map((step) => step.kernel.key))],
      prepare: async (bindings) => {
        const storages = new Set<Storage>();
        const steps = plan.steps.map((step) => ({
          kernel: step.kernel,
          args: step.args.map((arg) => {
            const { storage, offset, byteLength } = boundRegion(bindings, arg.location);
            storages.add(storage);
            return { offset: addressOf(storage, offset, byteLength), byteLength };
          }),
        }));
        const labels = plan.steps.map((step) => step.label);
        return new CpuGraphExecutable(this.#device, [await this.#device.prepare(steps)], labels, [...storages]);
      },
    };
  }

  async allocate(label: string, byteLength: number, memoryClass: MemoryClass): Promise<Storage> {
    return new CpuStorage(this.#device.allocate(label, memoryClass, byteLength), byteLength);
  }

  async write(storage: Storage, offset: number, bytes: Uint8Array): Promise<void> {
    this.#device.write(addressOf(storage, offset, bytes.byteLength), bytes);
  }

  async read({ storage, offset, byteLength }: Region): Promise<Uint8Array> {
    return this.#device.read(addressOf(storage, offset, byteLength), byteLength);
  }

  async readAll(regions: readonly Region[]): Promise<readonly Uint8Array[]> {
    return Promise.all(regions.map((region) => this.read(region)));
  }

  async idle(): Promise<void> {}

  ledger(): MemoryLedger {
    return this.#device.ledger();
  }

  caseRounding(opCase: OpCase): Float64Array | undefined {
    return caseRounding(opCase);
  }

  dispose(): void {
    this.#device.dispose();
  }
}

class CpuGraphExecutable implements Executable {
  readonly #device: CpuDevice;
  readonly #parts: readonly CpuExecutable[];
  readonly #labels: readonly string[];
  readonly #storages: readonly Storage[];

  constructor(device: CpuDevice, parts: readonly CpuExecutable[], labels: readonly string[], storages: readonly Storage[]) {
    this.#device = device;
    this.#parts = parts;
    this.#labels = labels;
    this.#storages = storages;
  }

  get stepCount(): number {
    return this.#labels.length;
  }

  /** The steps block the thread; a turn of the event loop comes before them, so that signals and timers are served between runs. */
  async run(writes: readonly RegionWrite[] = [], reads: readonly Region[] = [], times = 1): Promise<readonly Uint8Array[]> {
    await yieldToEventLoop();
    this.#checkStorages();
    for (const { storage, offset, bytes } of writes) this.#device.write(addressOf(storage, offset, bytes.byteLength), bytes);
    for (let i = 0; i < times; i++) for (const part of this.#parts) part.run();
    return reads.map(({ storage, offset, byteLength }) => this.#device.read(addressOf(storage, offset, byteLength), byteLength));
  }

  start(writes: readonly RegionWrite[] = [], reads: readonly Region[] = [], times = 1): Submission {
    const results = this.run(writes, reads, times);
    // Heard by whoever reads, if somebody does.
    results.catch(() => undefined);
    return { read: () => results, cancel: () => {} };
  }

  followedBy(next: Executable): Executable {
    if (!(next instanceof CpuGraphExecutable) || next.#device !== this.#device)
      throw new DeviceError('E_DEVICE', 'only executables of one device can follow each other');
    const storages = new Set([...this.#storages, ...next.#storages]);
    return new CpuGraphExecutable(this.#device, [...this.#parts, ...next.#parts], [...this.#labels, ...next.#labels], [...storages]);
  }

  async profile(): Promise<readonly StepTiming[]> {
    this.#checkStorages();
    let startNs = 0;
    const times = this.#parts.flatMap((part) => part.profile());
    return times.map((ms, index) => {
      const timing = { label: this.#labels[index] ?? '', startNs, ns: ms * 1e6 };
      startNs += timing.ns;
      return timing;
    });
  }

  /** Steps would write into memory that has another owner by now. */
  #checkStorages(): void {
    for (const storage of this.#storages) allocationOf(storage);
  }
}
