import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { longDecodeSuite } from '../support/long-decode.js';

longDecodeSuite('the CPU', async () => new CpuBackend());
