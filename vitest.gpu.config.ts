/**
 * The device tests on the GPU of this machine: every case of every operation as every device that the adapter poses as, none dealt out. A machine without a hardware
 * adapter fails. The suites open their devices with Dawn's checks on, as on the software adapters; those that are about unchecked devices open these.
 */

import { defineConfig } from 'vitest/config';
import { NotRunReporter } from './test/support/not-run-reporter.js';

/** A kernel is compiled and run in milliseconds here; a hang is still found. */
const timeout = 120_000;

/** A process per file, as everywhere; a GPU takes turns between them. */
const maxWorkers = 4;

export default defineConfig({
  test: {
    name: 'hardware',
    include: ['test/device/**/*.test.ts'],
    pool: 'forks',
    maxWorkers,
    env: { CENTELLA_TEST_ADAPTER: 'hardware', CENTELLA_ALL_CASES: '1' },
    setupFiles: ['test/support/require-hardware.ts'],
    testTimeout: timeout,
    hookTimeout: timeout,
    reporters: ['default', new NotRunReporter()],
  },
});
