import { ArgumentError, CentellaError } from '../core/errors.js';
import { GpuDevice, type GpuDeviceOptions } from '../gpu/device.js';
import type { Backend } from './backend.js';
import { CpuBackend } from './cpu-backend.js';
import { WebGpuBackend } from './webgpu-backend.js';

/** 'auto': a hardware GPU, else the CPU. 'webgpu': any adapter, a software one too. 'cpu': WASM SIMD. */
export type DeviceChoice = 'auto' | 'webgpu' | 'cpu';

export interface BackendOptions extends Pick<GpuDeviceOptions, 'adapter' | 'powerPreference' | 'checked' | 'budgetBytes' | 'mask'> {
  /** Default 'auto'. A `GPUDevice` or `GpuDevice` of the caller's is used as it is. */
  readonly device?: DeviceChoice | GPUDevice | GpuDevice;
}

/**
 * Opens the backend that was asked for, or the best one found. The choice and its reason are the backend's `name` and `reason`.
 * @throws CentellaError E_NO_WEBGPU or E_NO_ADAPTER where WebGPU was asked for and is not there.
 */
export async function openBackend(options: BackendOptions = {}): Promise<Backend> {
  const { device = 'auto', budgetBytes, ...query } = options;
  if (device instanceof GpuDevice) return new WebGpuBackend(device, { owned: false });
  if (typeof device === 'object')
    return new WebGpuBackend(await GpuDevice.request({ device, ...budget(budgetBytes), ...(query.mask ? { mask: query.mask } : {}) }));
  switch (device) {
    case 'cpu':
      return new CpuBackend({ reason: 'the CPU was asked for', ...budget(budgetBytes) });
    case 'webgpu':
      return new WebGpuBackend(await GpuDevice.request({ ...query, ...budget(budgetBytes) }));
    case 'auto':
      return openBest(query, budgetBytes);
    default:
      throw new ArgumentError('device', `device must be 'auto', 'webgpu', 'cpu' or a GPU device, got ${String(device)}`);
  }
}

function budget(budgetBytes: number | undefined): { budgetBytes?: number } {
  return budgetBytes === undefined ? {} : { budgetBytes };
}

async function openBest(query: GpuDeviceOptions, budgetBytes: number | undefined): Promise<Backend> {
  try {
    return new WebGpuBackend(await GpuDevice.request({ software: 'refuse', ...query, ...budget(budgetBytes) }));
  } catch (error) {
    if (!(error instanceof CentellaError) || (error.code !== 'E_NO_WEBGPU' && error.code !== 'E_NO_ADAPTER')) throw error;
    return new CpuBackend({ reason: `no hardware GPU: ${error.message}`, ...budget(budgetBytes) });
  }
}
