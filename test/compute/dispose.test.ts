import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { disposeSuite } from '../support/dispose-suite.js';

disposeSuite('the CPU', async () => new CpuBackend());
