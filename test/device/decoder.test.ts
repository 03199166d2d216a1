import { GpuDevice } from '../../src/gpu/device.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { testAdapterName } from '../support/adapters.js';
import { decoderSuite } from '../support/decoder-suite.js';
import { everyCase } from '../support/share.js';

/** On one of the software adapters: their kernels are those of Llama, in other sizes to compile. */
const families = everyCase || testAdapterName() === 'swiftshader' ? ['qwen2', 'qwen3'] : [];

decoderSuite('WebGPU', async () => new WebGpuBackend(await GpuDevice.request({ checked: true })), families);
