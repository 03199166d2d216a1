import { GpuDevice } from '../../src/gpu/device.js';
import { GpuBackend } from '../../src/runtime/gpu-backend.js';
import { decoderSuite } from '../support/decoder-suite.js';

decoderSuite('WebGPU', async () => new GpuBackend(await GpuDevice.request({ checked: true })));
