import { GpuDevice } from '../../src/gpu/device.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { batchSuite } from '../support/batch-suite.js';
import { gpuBackendSuite } from '../support/gpu-backend-suite.js';

const open = async (): Promise<WebGpuBackend> => new WebGpuBackend(await GpuDevice.request({ checked: true }));

batchSuite('WebGPU', open);
gpuBackendSuite('WebGPU', open);
