import { type DeviceLostError, defined } from '../core/errors.js';
import type { GpuKernel } from '../core/kernel.js';
import type { MemoryClass, MemoryLedger } from '../core/memory.js';
import type { TensorType } from '../core/tensor.js';
import { bufferUsage } from '../gpu/constants.js';
import type { GpuDevice } from '../gpu/device.js';
import type { ReadbackRing } from '../gpu/readback.js';
import type { Graph } from '../graph/graph.js';
import { activationBlock, activationForm } from '../kernels/decode/activations.js';
import { packedRounding } from '../kernels/dp4a/rounding.js';
import { matrixRounding } from '../kernels/matrix/rounding.js';
import { type GpuTargetOptions, gpuArithmetic, gpuTarget } from '../kernels/target.js';
import { decodeRounding } from '../ops/activation-rounding.js';
import type { OpCase } from '../ops/case.js';
import type { NodeTypes, Target, WeightStore } from '../ops/target.js';
import type { ExecutionPlan } from '../plan/execution-plan.js';
import { planGraph } from '../plan/plan.js';
import { replan } from '../plan/replan.js';
import type { Backend, Ceilings, Program, Region, Storage } from './backend.js';
import { measureCeilings } from './ceilings.js';
import { bindPlan } from './gpu-executable.js';
import { AdoptedStorage, bufferOf, GpuStorage, pieceOf } from './gpu-storage.js';
import type { FoundTuning, TuningReport } from './tuning-file.js';
import { WeightUpload } from './weight-upload.js';

const storageUsage = bufferUsage.storage | bufferUsage.copySrc | bufferUsage.copyDst;

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
        return bindPlan(this.gpu, this.#readback, plan, bindings);
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
