import { GpuDevice } from '../../src/gpu/device.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { longDecodeSuite } from '../support/long-decode.js';

longDecodeSuite('WebGPU', async () => new WebGpuBackend(await GpuDevice.request()));
