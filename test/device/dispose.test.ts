import { GpuDevice } from '../../src/gpu/device.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { disposeSuite } from '../support/dispose-suite.js';

disposeSuite('WebGPU', async () => new WebGpuBackend(await GpuDevice.request({ checked: true })));
