import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { decoderSuite } from '../support/decoder-suite.js';

decoderSuite('the CPU', async () => new CpuBackend());
