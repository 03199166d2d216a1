import { ArgumentError, shown } from '../core/errors.js';
import { GpuDevice } from '../gpu/device.js';
import type { Backend } from '../runtime/backend.js';
import { type BackendOptions, type DeviceChoice, openBackend } from '../runtime/select.js';
import { WebGpuBackend } from '../runtime/webgpu-backend.js';

/** Where a compute object runs: a backend, or a GPU device of the caller's. */
export type ComputeTarget = Backend | GpuDevice;

/** One backend a device, so that its pipelines and readback buffers are shared. */
const backends = new WeakMap<GpuDevice, WebGpuBackend>();

/** The target's backend. A device stays the caller's to dispose. @throws ArgumentError for anything else. */
export function backendOf(target: ComputeTarget): Backend {
  if (!(target instanceof GpuDevice)) return checkedBackend(target);
  const known = backends.get(target);
  if (known !== undefined && !target.isDisposed) return known;
  const backend = new WebGpuBackend(target, { owned: false });
  backends.set(target, backend);
  return backend;
}

export type TargetChoice = DeviceChoice | GPUDevice | ComputeTarget;

/** The backend of a choice, opened where the choice is none of the caller's: `owned` says so. */
export async function openTarget(device: TargetChoice = 'auto', options: Omit<BackendOptions, 'device'> = {}): Promise<{ backend: Backend; owned: boolean }> {
  if (device instanceof GpuDevice || (typeof device === 'object' && device !== null && 'program' in device))
    return { backend: backendOf(device), owned: false };
  return { backend: await openBackend({ ...options, device }), owned: true };
}

function checkedBackend(target: Backend): Backend {
  if (typeof target === 'object' && target !== null && typeof target.program === 'function') return target;
  throw new ArgumentError('target', `a backend (see openBackend) or a GpuDevice is wanted, got ${shown(target)}`);
}
