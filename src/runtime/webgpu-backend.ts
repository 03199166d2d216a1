import { DeviceError, type DeviceLostError, DisposedError, defined } from '../core/errors.js';
import type { GpuKernel } from '../core/kernel.js';
import type { MemoryClass, MemoryLedger } from '../core/memory.js';
import type { TensorType } from '../core/tensor.js';
import { bufferUsage } from '../gpu/constants.js';
import type { GpuDevice } from '../gpu/device.js';
import type { GpuAllocation } from '../gpu/memory.js';
import { profile } from '../gpu/profiler.js';
import type { ReadbackPiece, ReadbackRing } from '../gpu/readback.js';
import { Recorder } from '../gpu/recorder.js';
import { unsharedBytes } from '../gpu/upload.js';
import type { Graph } from '../graph/graph.js';
import { activationBlock, activationForm } from '../kernels/decode/activations.js';
import { packedRounding } from '../kernels/dp4a/rounding.js';
import { matrixRounding } from '../kernels/matrix/rounding.js';
import { type GpuTargetOptions, gpuArithmetic, gpuTarget } from '../kernels/target.js';
import { decodeRounding } from '../ops/activation-rounding.js';
import type { OpCase } from '../ops/case.js';
import type { NodeTypes, Target, WeightStore } from '../ops/target.js';
import type { ExecutionPlan, PlannedStep } from '../plan/execution-plan.js';
import { planGraph } from '../plan/plan.js';
import { replan } from '../plan/replan.js';
import type { Backend, Bindings, Ceilings, Executable, Program, Region, RegionWrite, StepTiming, Storage, Submission } from './backend.js';
import { measureCeilings } from './ceilings.js';
import type { FoundTuning, TuningReport } from './tuning-file.js';
import { WeightUpload } from './weight-upload.js';

const storageUsage = bufferUsage.storage | bufferUsage.copySrc | bufferUsage.copyDst;

class GpuStorage implements Storage {
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
class AdoptedStorage extends GpuStorage {
  override free(): void {}
}

function gpuStorage(storage: Storage): GpuStorage {
  if (storage instanceof GpuStorage) return storage;
  throw new DeviceError('E_DEVICE', `"${storage.label}" is not a buffer of this device`);
}

function bufferOf(storage: Storage): GPUBuffer {
  const known = gpuStorage(storage);
  known.check();
  return known.buffer;
}

function pieceOf({ storage, offset, byteLength }: Region): ReadbackPiece {
  return { source: bufferOf(storage), offset, size: byteLength };
}

export interface WebGpuBackendOptions {
  readonly reason?: string;
  readonly owned?: boolean;
  readonly kernels?: GpuTargetOptions;
  readonly tuning?: FoundTuning;
}

/** Graphs on WebGPU. */
export class WebGpuBackend implements Backend {
  readonly kind = 'webgpu';
  readonly gpu: GpuDevice;
  readonly reason: string;
  readonly #target: Target<GpuKernel>;
  readonly #readback: ReadbackRing;
  readonly #weightUpload: WeightUpload;

  readonly #owned: boolean;

  readonly #kernels: GpuTargetOptions;

  /** Which measured kernel shapes are used, where they came from, and which were ignored and why. */
  readonly tuning: TuningReport;

  /** `owned`: whether `dispose()` ends the device too, which is the caller's otherwise. `kernels`: thresholds of kernel selection, for tests and measurements. `tuning`: what `findTuning` found. */
  constructor(gpu: GpuDevice, options: WebGpuBackendOptions = {}) {
    this.gpu = gpu;
    this.reason = options.reason ?? gpu.reason;
    this.#owned = options.owned ?? true;
    const { tuning, report } = options.tuning ?? {};
    this.#kernels = { ...options.kernels, ...(tuning === undefined ? {} : { tuning }) };
    this.tuning = report ?? { source: 'none', used: [], ignored: [] };
    this.#target = gpuTarget(gpu.capabilities, this.#kernels);
    this.#readback = gpu.createReadback();
    this.#weightUpload = new WeightUpload(gpu);
  }

  get name(): string {
    return this.gpu.adapterInfo.name;
  }

  get checks(): string {
    return this.gpu.checks;
  }

  get timesSteps(): boolean {
    return this.gpu.capabilities.timestamps;
  }

  get polls(): boolean {
    return this.gpu.checks !== 'host';
  }

  get arithmetic(): Backend['arithmetic'] {
    return gpuArithmetic(this.gpu.capabilities);
  }

  get weights(): WeightStore {
    return this.#target.weights;
  }

  get maxBindingBytes(): number {
    return this.#target.memory.maxBindingBytes;
  }

  get refuses(): Target<GpuKernel>['refuses'] {
    return this.#target.refuses;
  }

  /** Resolves when the device is gone. */
  get lost(): Promise<DeviceLostError> {
    return this.gpu.lost;
  }

  program(graph: Graph, like?: Program): Program {
    // A plan for this target is one of its kernels.
    const known = like?.plan.target === this.#target ? (like.plan as ExecutionPlan<GpuKernel>) : undefined;
    const plan = (known && replan(known, graph)) ?? planGraph(graph, this.#target);
    return {
      plan,
      kernels: [...new Set(plan.steps.map((step) => step.kernel.key))],
      compile: () => this.gpu.pipelines.warm(plan.steps.map((step) => step.kernel)),
      prepare: (bindings) => {
        // Who prepares to run has the weights on the device, as a rule.
        this.endWrites();
        return prepare(this.gpu, this.#readback, plan, bindings);
      },
    };
  }

  async allocate(label: string, byteLength: number, memoryClass: MemoryClass): Promise<Storage> {
    return new GpuStorage(await this.gpu.memory.allocate({ label, size: byteLength, usage: storageUsage, memoryClass }));
  }

  /** A caller's buffer (usage STORAGE, COPY_SRC; COPY_DST to write to it) as storage: bound and read like any other, never freed or counted. */
  adopt(buffer: GPUBuffer, label: string): Storage {
    return new AdoptedStorage({ buffer, size: buffer.size, label, memoryClass: 'state', free: () => {} });
  }

  write(storage: Storage, offset: number, bytes: Uint8Array): Promise<void> {
    return this.gpu.uploader.write(bufferOf(storage), offset, bytes);
  }

  async writeRows(storage: Storage, type: TensorType, firstRow: number, rows: Uint8Array): Promise<void> {
    if (this.#weightUpload.takes(type)) await this.#weightUpload.write(bufferOf(storage), type, firstRow, rows);
    else for (const { offset, bytes } of this.weights.pack(type, firstRow, rows)) await this.write(storage, offset, bytes);
  }

  endWrites(): void {
    this.#weightUpload.release();
  }

  warmRows(types: Iterable<TensorType>): Promise<void> {
    return this.#weightUpload.warm(types);
  }

  /** The buffer that a storage of this backend is. */
  bufferOf(storage: Storage): GPUBuffer {
    return bufferOf(storage);
  }

  async read(region: Region): Promise<Uint8Array> {
    const [bytes] = await this.readAll([region]);
    return defined(bytes, 'the bytes of a read');
  }

  async readAll(regions: readonly Region[]): Promise<readonly Uint8Array[]> {
    this.gpu.check();
    const encoder = this.gpu.device.createCommandEncoder({ label: 'read' });
    const ticket = this.#readback.copyAllInto(encoder, regions.map(pieceOf));
    this.gpu.queue.submit([encoder.finish()]);
    return (await ticket.read()).map((bytes) => new Uint8Array(bytes));
  }

  idle(): Promise<void> {
    this.endWrites();
    return this.gpu.idle();
  }

  ledger(): MemoryLedger {
    return this.gpu.memory.ledger();
  }

  ceilings(): Promise<Ceilings> {
    return measureCeilings(this.gpu);
  }

  caseRounding(opCase: OpCase): Float64Array | undefined {
    const node = { op: opCase.op, params: opCase.params, inputs: opCase.inputs.map((input) => input.type) } as NodeTypes;
    const rounds = this.#target.takesForm?.(node)?.kind === activationForm;
    const decode = rounds ? decodeRounding(opCase, () => ({ unit: activationBlock, levels: 127 })) : undefined;
    const { capabilities } = this.gpu;
    return decode ?? matrixRounding(opCase, capabilities, this.#kernels.leastMatrixRows) ?? packedRounding(opCase, capabilities, this.#kernels.activations);
  }

  dispose(): void {
    this.#readback.dispose();
    this.endWrites();
    if (this.#owned) this.gpu.dispose();
  }
}

async function prepare(gpu: GpuDevice, readback: ReadbackRing, plan: ExecutionPlan<GpuKernel>, bindings: Bindings): Promise<Executable> {
  const pipelines = await Promise.all(plan.steps.map((step) => gpu.pipelines.get(step.kernel)));
  gpu.check();
  const recorder = new Recorder();
  const storages = new Set<GpuStorage>();
  plan.steps.forEach((step, index) => {
    const buffers = step.args.map(({ location }) => {
      const storage = location.storage === 'arena' ? bindings.bank(location.bank) : bindings.leaf(location.owner, location.shard);
      const start = location.storage === 'arena' ? 0 : (bindings.leafOffset?.(location.owner) ?? 0);
      storages.add(gpuStorage(storage));
      return { buffer: bufferOf(storage), offset: start + location.offset, size: location.byteLength };
    });
    const pipeline = pipelines[index];
    if (pipeline === undefined) throw new DeviceError('E_DEVICE', `${step.label} has no pipeline`);
    const bindGroup = gpu.pipelines.bindGroup(step.kernel, buffers, step.label);
    const kind = isRepeatable(plan, step) ? step.kernel.key : undefined;
    recorder.add({ label: step.label, pipeline, bindGroup, grid: step.kernel.workgroups, kind });
  });
  return new GpuExecutable(gpu, readback, recorder, [...storages]);
}

/** Operations that take the integers of activations for numbers, never for places in memory. */
const products: ReadonlySet<string> = new Set(['linear', 'tokenLinear', 'qkv', 'gatedProduct', 'attention', 'attendToken', 'argmax', 'chooseNext']);

/** Whether a step may run more often than its plan says: counters of a state would go on, and indices in memory that is another value's meanwhile lead anywhere. */
function isRepeatable({ graph, values }: ExecutionPlan<GpuKernel>, { node, args }: PlannedStep<GpuKernel>): boolean {
  const op = graph.nodes[node]?.op ?? '';
  return args.every(({ value, access, location }) => {
    const dtype = values.get(value)?.type.dtype;
    if (dtype === 'f32' || dtype === 'f16' || dtype === 'q8_planes') return true;
    if (location.storage === 'state') return access === 'read';
    return location.storage !== 'arena' || access === 'write' || products.has(op);
  });
}

class GpuExecutable implements Executable {
  readonly #gpu: GpuDevice;
  readonly #readback: ReadbackRing;
  readonly #recorder: Recorder;
  /** What the steps bind, each once. */
  readonly #storages: readonly GpuStorage[];

  constructor(gpu: GpuDevice, readback: ReadbackRing, recorder: Recorder, storages: readonly GpuStorage[]) {
    this.#gpu = gpu;
    this.#readback = readback;
    this.#recorder = recorder;
    this.#storages = storages;
  }

  get stepCount(): number {
    return this.#recorder.length;
  }

  async run(writes: readonly RegionWrite[] = [], reads: readonly Region[] = [], times = 1): Promise<readonly Uint8Array[]> {
    return this.start(writes, reads, times).read();
  }

  start(writes: readonly RegionWrite[] = [], reads: readonly Region[] = [], times = 1): Submission {
    const { device, queue } = this.#gpu;
    this.#check();
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (let i = 0; i < times; i++) this.#recorder.record(pass);
    pass.end();
    const inputs = writes.map(({ storage, offset, bytes }) => ({ buffer: bufferOf(storage), offset, bytes: unsharedBytes(bytes) }));
    const ticket = this.#readback.copyAllInto(encoder, reads.map(pieceOf));
    // After everything that may throw: a run that fails has changed nothing on the device.
    for (const { buffer, offset, bytes } of inputs) queue.writeBuffer(buffer, offset, bytes);
    queue.submit([encoder.finish()]);
    return {
      read: async () => (await ticket.read()).map((bytes) => new Uint8Array(bytes)),
      cancel: () => ticket.cancel(),
    };
  }

  followedBy(next: Executable): Executable {
    if (!(next instanceof GpuExecutable) || next.#gpu !== this.#gpu) throw new DeviceError('E_DEVICE', 'only executables of one device can follow each other');
    const recorder = new Recorder();
    recorder.append(this.#recorder);
    recorder.append(next.#recorder);
    return new GpuExecutable(this.#gpu, this.#readback, recorder, [...new Set([...this.#storages, ...next.#storages])]);
  }

  async profile(): Promise<readonly StepTiming[]> {
    this.#check();
    return profile(this.#gpu, this.#recorder);
  }

  #check(): void {
    this.#gpu.check();
    for (const storage of this.#storages) storage.check();
  }
}
