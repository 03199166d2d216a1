import { GpuDevice } from '../../src/gpu/device.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { batchProgramsSuite } from '../support/batch-programs-suite.js';

// Every program has kernels of its own to compile.
batchProgramsSuite('WebGPU', async () => new WebGpuBackend(await GpuDevice.request({ checked: true })), 10);
