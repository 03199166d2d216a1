import { GpuDevice } from '../../src/gpu/device.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { quantSuite } from '../support/quant-suite.js';

quantSuite('WebGPU', async () => new WebGpuBackend(await GpuDevice.request({ checked: true })));
