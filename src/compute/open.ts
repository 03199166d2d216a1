import { ArgumentError } from '../core/errors.js';
import { GpuDevice } from '../gpu/device.js';
import type { Backend } from '../runtime/backend.js';
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

function checkedBackend(target: Backend): Backend {
  if (typeof target === 'object' && target !== null && typeof target.program === 'function') return target;
  throw new ArgumentError('target', `a backend (see openBackend) or a GpuDevice is wanted, got ${String(target)}`);
}
