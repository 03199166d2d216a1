import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { graphProgramsSuite } from '../support/graph-programs-suite.js';

graphProgramsSuite('the CPU', async () => new CpuBackend(), { numRuns: 150, most: 20 });
