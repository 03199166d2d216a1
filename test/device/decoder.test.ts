import { GpuDevice } from '../../src/gpu/device.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { testAdapterName } from '../support/adapter-name.js';
import { decoderSuite } from '../support/decoder-suite.js';
import { everyCase } from '../support/share.js';

/** In F32 each of the others has kernels in sizes of its own, which lavapipe compiles for half a minute: SwiftShader runs them. */
const models = everyCase || testAdapterName() === 'swiftshader' ? {} : { llamas: ['llama3'], families: [] };

decoderSuite('WebGPU', async () => new WebGpuBackend(await GpuDevice.request({ checked: true })), models);
