import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { batchSuite } from '../support/batch-suite.js';

batchSuite('the CPU', async () => new CpuBackend());
