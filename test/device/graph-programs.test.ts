import { GpuDevice } from '../../src/gpu/device.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { graphProgramsSuite } from '../support/graph-programs-suite.js';

// Every graph has kernels of its own to compile.
graphProgramsSuite('WebGPU', async () => new WebGpuBackend(await GpuDevice.request({ checked: true })), { numRuns: 8, most: 8 });
