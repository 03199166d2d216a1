import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { gpuBackendSuite } from '../support/gpu-backend-suite.js';

gpuBackendSuite('the CPU', async () => new CpuBackend());
