/**
 * Tests sorted by what they need. `pure` needs nothing; `device` files run once on every software adapter, each in processes of its own, because a Vulkan
 * driver is chosen by a process's environment; `browser` needs Chromium; `house` checks the package and the rules of the source. The same files on a GPU: vitest.gpu.config.ts.
 */

import { defineConfig, type TestProjectConfiguration } from 'vitest/config';
import { type AdapterName, adapterEnvironment, adapterNames, withheld } from './scripts/setup/adapters.mjs';
import { NotRunReporter } from './test/support/not-run-reporter.js';

/** Mesa's compiler without its optimiser: the code is run once or a few times, and half of the tests' time went into making it fast. */
const quickToCompile: Partial<Record<AdapterName, Record<string, string>>> = { lavapipe: { GALLIVM_PERF: 'nopt' } };

/** Kernels on a software rasteriser take their time; a hang is still found. */
const deviceTimeout = 120_000;

/** Where CI wants vitest's JSON report. */
const report = process.env['CENTELLA_REPORT'];

/** SwiftShader's subgroups are too small for fused attention: two thousand tokens would only take the plain steps that its other tests take. */
const dealtElsewhere: Partial<Record<AdapterName, readonly string[]>> = { swiftshader: ['test/device/long-decode.test.ts'] };
const everyCase = process.env['CENTELLA_ALL_CASES'] === '1';

function device(name: AdapterName): TestProjectConfiguration {
  return {
    test: {
      name,
      include: ['test/device/**/*.test.ts'],
      exclude: everyCase ? [] : [...(dealtElsewhere[name] ?? [])],
      env: { ...adapterEnvironment(name), ...quickToCompile[name], CENTELLA_TEST_ADAPTER: name },
      setupFiles: ['test/support/patient-polling.ts'],
      testTimeout: deviceTimeout,
      hookTimeout: deviceTimeout,
      ...(withheld(name) ? { runner: './test/support/withheld-runner.ts' } : {}),
    },
  };
}

export default defineConfig({
  test: {
    // Dawn's objects must not be shared by threads: a process per file.
    pool: 'forks',
    // Every processor: by default one is left free, which on a machine of two means one file at a time.
    maxWorkers: '100%',
    reporters: ['default', new NotRunReporter(), ...(report === undefined ? [] : ['json'])],
    ...(report === undefined ? {} : { outputFile: { json: report } }),
    projects: [
      { test: { name: 'pure', include: ['test/**/*.test.ts'], exclude: ['test/{device,browser,house}/**'], testTimeout: 60_000, hookTimeout: 60_000 } },
      { test: { name: 'house', include: ['test/house/**/*.test.ts'], testTimeout: 120_000, hookTimeout: 120_000 } },
      ...adapterNames.map(device),
      {
        test: {
          name: 'browser',
          include: ['test/browser/**/*.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
          ...(withheld('chromium') ? { runner: './test/support/withheld-runner.ts' } : {}),
        },
      },
    ],
  },
});
