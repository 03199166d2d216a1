import { GpuDevice } from '../../src/gpu/device.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { decoderSuite } from '../support/decoder-suite.js';

decoderSuite('WebGPU', async () => new WebGpuBackend(await GpuDevice.request({ checked: true })));
