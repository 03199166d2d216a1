/** A GPU device with what belongs to it: capabilities, memory, pipelines, uploads, and an honest account of its health. */

import { type CapabilityMask, type GpuCapabilities, maskCapabilities } from '../core/capabilities.js';
import { ArgumentError, CentellaError, DeviceError, type DeviceLostError } from '../core/errors.js';
import { checkBudget } from '../core/memory.js';
import { type DawnChecks, keepAlive } from '../platform/dawn.js';
import { type AdapterChoice, type AdapterList, type AdapterQuery, assertQuery, chooseAdapter, listAdapters } from './adapter.js';
import { type AdapterInfoLike, adapterName, capabilitiesOf, featuresToRequest, limitsToRequest, packedDotFeature } from './capabilities.js';
import { DeviceHealth } from './health.js';
import { GpuMemory } from './memory.js';
import { PipelineCache } from './pipeline-cache.js';
import { type ReadbackOptions, ReadbackRing } from './readback.js';
import { Uploader } from './upload.js';

/** Which adapter, and what may be used of it; or the caller's own device. */
export interface GpuDeviceOptions extends AdapterQuery {
  /** The caller's own device: used as it is and never destroyed. Adapter options do not apply to it. */
  readonly device?: GPUDevice;
  /** Most bytes that may be allocated at once. Default: no bound but the device's. */
  readonly budgetBytes?: number;
  /** Features and limits to do without, so that the variants for poorer devices run here. */
  readonly mask?: CapabilityMask;
  /** What errors call the device. Default: the adapter's description. */
  readonly label?: string;
}

export interface AdapterDescription {
  readonly name: string;
  /** The same word as in the list of adapters: "vulkan", "metal", "d3d12" in Node, "webgpu" where the runtime does not tell and for a device of the caller's. */
  readonly backend: string;
  readonly vendor: string;
  readonly architecture: string;
  readonly software: boolean;
  /** "0000:07:00.0", where only its place tells the adapter from others of its name. */
  readonly pciAddress?: string;
}

interface Parts {
  readonly device: GPUDevice;
  readonly owned: boolean;
  readonly capabilities: GpuCapabilities;
  readonly name: string;
  readonly backend: string;
  readonly checks: DawnChecks;
  readonly reason: string;
  readonly pciAddress?: string;
}

let availability: Promise<boolean> | undefined;

/** A WebGPU device with its memory ledger, its compiled kernels and its health. */
export class GpuDevice {
  /** The plain WebGPU device. */
  readonly device: GPUDevice;
  /** Its queue. */
  readonly queue: GPUQueue;
  /** What errors call the device. */
  readonly label: string;
  /** What kernels may use; less than the device has where a mask was given. */
  readonly capabilities: GpuCapabilities;
  /** What it is a device of. */
  readonly adapterInfo: AdapterDescription;
  /** Why this adapter. */
  readonly reason: string;
  /** Whether Dawn's own checks are on; 'host' where a browser or the caller decided. */
  readonly checks: DawnChecks;
  /** Makes buffers, and counts their bytes by class and label. */
  readonly memory: GpuMemory;
  /** Compiled kernels, each once. */
  readonly pipelines: PipelineCache;
  /** Writes from the host in pieces that the queue digests. */
  readonly uploader: Uploader;
  /** Whether it is lost or disposed of, and the errors that no call caught. */
  readonly health: DeviceHealth;
  readonly #owned: boolean;

  private constructor(parts: Parts, options: GpuDeviceOptions) {
    const { device, capabilities } = parts;
    this.device = device;
    this.queue = device.queue;
    this.label = options.label ?? parts.name;
    this.capabilities = maskCapabilities(capabilities, options.mask ?? {});
    this.adapterInfo = {
      name: parts.name,
      backend: parts.backend,
      vendor: capabilities.vendor,
      architecture: capabilities.architecture,
      software: capabilities.software,
      ...(parts.pciAddress === undefined ? {} : { pciAddress: parts.pciAddress }),
    };
    this.reason = parts.reason;
    this.checks = parts.checks;
    this.#owned = parts.owned;
    this.health = new DeviceHealth(device, this.label);
    this.memory = new GpuMemory(device, this.health, this.capabilities.limits, options.budgetBytes);
    this.pipelines = new PipelineCache(device, this.health, this.capabilities);
    this.uploader = new Uploader(this.queue, this.health);
  }

  /**
   * Requests a device with the adapter's own limits and every feature that kernels can use, or takes the caller's.
   * @throws CentellaError E_NO_WEBGPU, E_NO_ADAPTER; ArgumentError for an unknown adapter; DeviceError where the adapter refuses the device.
   */
  static async request(options: GpuDeviceOptions = {}): Promise<GpuDevice> {
    const { budgetBytes, device } = options;
    checkBudget(budgetBytes);
    assertQuery(options);
    if (device !== undefined) return new GpuDevice(await adopt(device, options), options);
    return new GpuDevice(await open(await chooseAdapter(options), options), options);
  }

  /** The adapters that can be chosen here, and what cannot be told apart. */
  static adapters(): Promise<AdapterList> {
    return listAdapters();
  }

  /** Whether WebGPU gives an adapter here, a software one included. Asked once. */
  static isAvailable(): Promise<boolean> {
    availability ??= chooseAdapter().then(
      () => true,
      (error: unknown) => {
        if (error instanceof CentellaError && (error.code === 'E_NO_WEBGPU' || error.code === 'E_NO_ADAPTER')) return false;
        throw error;
      },
    );
    return availability;
  }

  /** Resolves (never rejects) when the device is gone, after `dispose()` too. */
  get lost(): Promise<DeviceLostError> {
    return this.health.lost;
  }

  /** Whether the device is gone, `dispose()` included; `lost` says why. */
  get isLost(): boolean {
    return this.health.loss !== undefined;
  }

  /** Whether `dispose()` was called. */
  get isDisposed(): boolean {
    return this.health.disposed;
  }

  /** Throws what the device reported since the last check: loss, disposal, errors that no call of ours caught. */
  check(): void {
    this.health.check();
  }

  /** A ring of buffers for results; dispose it, or let the device's end do so. */
  createReadback(options: ReadbackOptions = {}): ReadbackRing {
    return new ReadbackRing(this.memory, this.health, options);
  }

  /** Waits until everything submitted so far is done. */
  async idle(): Promise<void> {
    this.health.check();
    await this.queue.onSubmittedWorkDone().catch(async (error: unknown) => {
      throw await this.health.explain(error, 'waiting for the device');
    });
    this.health.check();
  }

  /** Frees every buffer made through `memory` and destroys the device, unless the caller brought it. Blocks until work in flight is done. Again is no error. */
  dispose(): void {
    if (this.health.disposed) return;
    this.memory.dispose();
    this.health.dispose();
    if (this.#owned) this.device.destroy();
  }

  /** As `dispose`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

async function open(chosen: AdapterChoice, { label, mask }: GpuDeviceOptions): Promise<Parts> {
  const { adapter, source, name, backend, reason, pciAddress } = chosen;
  const descriptor = { label: label ?? name, requiredFeatures: featuresToRequest(adapter, mask), requiredLimits: limitsToRequest(adapter, mask) };
  const device = await adapter.requestDevice(descriptor).catch((cause: unknown) => {
    throw new DeviceError('E_DEVICE', `the adapter ${name} refuses a device: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  });
  if (source.provider === 'dawn') keepAlive(device);
  const packedDot = source.gpu.wgslLanguageFeatures?.has(packedDotFeature) ?? false;
  const capabilities = capabilitiesOf(device, infoOf(device, adapter), packedDot);
  return { device, owned: true, capabilities, name, backend, checks: source.checks, reason, ...(pciAddress === undefined ? {} : { pciAddress }) };
}

// Devices of older browsers do not carry their adapter's description, and Dawn's (webgpu 0.6.2) leave its matrix configurations out.
function infoOf(device: GPUDevice, adapter?: GPUAdapter): AdapterInfoLike {
  return (adapter?.info as AdapterInfoLike | undefined) ?? (device.adapterInfo as AdapterInfoLike | undefined) ?? {};
}

async function adopt(device: GPUDevice, options: GpuDeviceOptions): Promise<Parts> {
  if (typeof device?.createBuffer !== 'function')
    throw new ArgumentError('device', `device must be a GPUDevice, got ${String(device)}: request one from an adapter`);
  for (const name of ['adapter', 'powerPreference', 'checked', 'software'] as const) {
    if (options[name] !== undefined) throw new ArgumentError(name, `"${name}" chooses an adapter, but the caller brought a device: give one of the two`);
  }
  const info = infoOf(device);
  const capabilities = capabilitiesOf(device, info, await compilesPackedDot(device));
  return { device, owned: false, capabilities, name: adapterName(info), backend: 'webgpu', checks: 'host', reason: 'the caller brought the device' };
}

/** Language features hang on the GPU object, which a device does not lead to: so a small module is compiled. */
async function compilesPackedDot(device: GPUDevice): Promise<boolean> {
  device.pushErrorScope('validation');
  device.createShaderModule({ label: 'packed dot product', code: `requires ${packedDotFeature};\nfn f() -> i32 { return dot4I8Packed(1u, 1u); }` });
  return (await device.popErrorScope()) === null;
}
