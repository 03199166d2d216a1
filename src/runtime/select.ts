import { ArgumentError, CentellaError, shown } from '../core/errors.js';
import { GpuDevice, type GpuDeviceOptions } from '../gpu/device.js';
import type { Backend } from './backend.js';
import { CpuBackend } from './cpu-backend.js';
import { findTuning, type TuningChoice, tuningWarnings } from './tuning-file.js';
import { WebGpuBackend } from './webgpu-backend.js';

/** 'auto': a hardware GPU, else the CPU. 'webgpu': any adapter, a software one too. 'cpu': WASM SIMD. */
export type DeviceChoice = 'auto' | 'webgpu' | 'cpu';

/** Which device, and what may be used of it. */
export interface BackendOptions extends Pick<GpuDeviceOptions, 'adapter' | 'powerPreference' | 'checked' | 'budgetBytes' | 'mask'> {
  /** Default 'auto'. A `GPUDevice` or `GpuDevice` of the caller's is used as it is: what chooses an adapter or makes a device is refused beside it. */
  readonly device?: DeviceChoice | GPUDevice | GpuDevice;
  /** Kernel shapes measured on the adapter. Default 'auto': from the file that `centella tune` wrote for it (Node and Bun), where there is one. */
  readonly tuning?: TuningChoice;
  /** Told of a tuning that is broken or does not hold here, and is ignored. Nothing is ever printed. */
  readonly onWarning?: (message: string) => void;
}

/**
 * Opens the backend that was asked for, or the best one found. The choice and its reason are the backend's `name` and `reason`.
 * @throws CentellaError E_NO_WEBGPU or E_NO_ADAPTER where WebGPU was asked for and is not there; ArgumentError for options that are wrong or do not go together.
 */
export async function openBackend(options: BackendOptions = {}): Promise<Backend> {
  const { device = 'auto', budgetBytes, tuning: _tuning, onWarning: _onWarning, ...query } = options;
  if (device instanceof GpuDevice) {
    for (const name of ofDevices)
      if (options[name] !== undefined)
        throw new ArgumentError(name, `"${name}" is for a device that is made here, but the caller brought one: give one of the two`);
    return onDevice(device, options, false);
  }
  if (isGpuDevice(device)) return onDevice(await GpuDevice.request({ device, ...query, ...budget(budgetBytes) }), options);
  switch (device) {
    case 'cpu':
      return new CpuBackend({ reason: 'the CPU was asked for', ...budget(budgetBytes) });
    case 'webgpu':
      return onDevice(await GpuDevice.request({ ...query, ...budget(budgetBytes) }), options);
    case 'auto':
      return openBest(query, options);
    default:
      throw new ArgumentError('device', `device must be 'auto', 'webgpu', 'cpu' or a GPU device, got ${shown(device)}`);
  }
}

/** By its calls: a device may come from another copy of Dawn or another realm. */
function isGpuDevice(device: unknown): device is GPUDevice {
  return typeof device === 'object' && device !== null && 'queue' in device && 'createComputePipelineAsync' in device;
}

/** What a device has once it is made. */
const ofDevices = ['adapter', 'powerPreference', 'checked', 'budgetBytes', 'mask'] as const;

function budget(budgetBytes: number | undefined): { budgetBytes?: number } {
  return budgetBytes === undefined ? {} : { budgetBytes };
}

/** A device with the kernel shapes that were measured on it. An owned one ends where its tuning is none. */
async function onDevice(gpu: GpuDevice, { tuning = 'auto', onWarning }: BackendOptions, owned = true): Promise<Backend> {
  try {
    const found = await findTuning(tuning, gpu.capabilities);
    for (const warning of tuningWarnings(found.report)) onWarning?.(warning);
    return new WebGpuBackend(gpu, { owned, tuning: found });
  } catch (error) {
    if (owned) gpu.dispose();
    throw error;
  }
}

async function openBest(query: GpuDeviceOptions, options: BackendOptions): Promise<Backend> {
  const { budgetBytes } = options;
  try {
    return await onDevice(await GpuDevice.request({ software: 'refuse', ...query, ...budget(budgetBytes) }), options);
  } catch (error) {
    if (!(error instanceof CentellaError) || (error.code !== 'E_NO_WEBGPU' && error.code !== 'E_NO_ADAPTER')) throw error;
    return new CpuBackend({ reason: `no hardware GPU: ${error.message}`, ...budget(budgetBytes) });
  }
}
