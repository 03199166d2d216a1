import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { quantSuite } from '../support/quant-suite.js';

quantSuite('the CPU', async () => new CpuBackend());
