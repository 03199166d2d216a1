import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { batchProgramsSuite } from '../support/batch-programs-suite.js';

batchProgramsSuite('the CPU', async () => new CpuBackend(), 60);
