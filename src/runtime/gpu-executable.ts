/** Plans of GPU kernels bound to buffers: what a run submits. */

import { DeviceError } from '../core/errors.js';
import type { GpuKernel } from '../core/kernel.js';
import type { GpuDevice } from '../gpu/device.js';
import { profile } from '../gpu/profiler.js';
import type { ReadbackRing } from '../gpu/readback.js';
import { Recorder } from '../gpu/recorder.js';
import { unsharedBytes } from '../gpu/upload.js';
import type { ExecutionPlan, PlannedStep } from '../plan/execution-plan.js';
import type { Bindings, Executable, Region, RegionWrite, StepTiming, Submission } from './backend.js';
import { boundRegion } from './bound-region.js';
import { bufferOf, type GpuStorage, gpuStorage, pieceOf } from './gpu-storage.js';

/** Compiles a plan's kernels and binds its steps. */
export async function bindPlan(gpu: GpuDevice, readback: ReadbackRing, plan: ExecutionPlan<GpuKernel>, bindings: Bindings): Promise<Executable> {
  const pipelines = await Promise.all(plan.steps.map((step) => gpu.pipelines.get(step.kernel)));
  gpu.check();
  const recorder = new Recorder();
  const storages = new Set<GpuStorage>();
  plan.steps.forEach((step, index) => {
    const buffers = step.args.map((arg) => {
      const { storage, offset, byteLength } = boundRegion(bindings, arg.location);
      storages.add(gpuStorage(storage));
      return { buffer: bufferOf(storage), offset, size: byteLength };
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
