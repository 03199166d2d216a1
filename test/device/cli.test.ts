import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { testAdapterName } from '../support/adapters.js';
import { centella, outputOf } from '../support/cli.js';
import { describeExternal } from '../support/fixtures.js';

const adapterNames = { lavapipe: /llvmpipe/i, swiftshader: /swiftshader/i };

describe('centella doctor', () => {
  it('lists the adapter as software, takes it on demand, and says why', async () => {
    const report = JSON.parse(await outputOf(['doctor', '--device', 'webgpu', '--json']));
    expect(report.adapters).toHaveLength(1);
    expect(report.adapters[0]).toMatchObject({ software: true, name: expect.stringMatching(adapterNames[testAdapterName()]) });
    expect(report.chosen).toMatchObject({ kind: 'webgpu', reason: expect.stringContaining('software adapter') });
    expect(report.device.kernels.length).toBeGreaterThan(10);
    for (const { reason } of report.device.kernels) expect(reason).not.toBe('');
    expect(JSON.parse(await outputOf(['doctor', '--json'])).chosen).toMatchObject({ kind: 'cpu', reason: expect.stringContaining('renders in software') });
  });

  it('checks kernels with the checks off, on, and on the CPU', async () => {
    const { status, stdout } = await centella(['doctor', '--check', '--device', 'webgpu', '--filter', 'rmsNorm', '--json']);
    expect(status).toBe(0);
    const report = JSON.parse(stdout);
    expect(report.trusted).toEqual(['webgpu unchecked', 'webgpu checked', 'cpu']);
    for (const { families } of report.modes) expect(families).toMatchObject([{ family: 'rmsNorm', passed: 12, failed: 0 }]);
  });
});

/** 230 tokens, one by one, on a rasteriser that shares its processors. */
const storyTimeout = 300_000;

describeExternal('stories260K', ['models/stories260K.gguf', 'models/stories260K.expected.txt'], (model, expected) => {
  it(
    'is written on WebGPU as its author published it',
    async () => {
      const { status, stdout, stderr } = await centella(['run', model, '--temperature', '0', '--max-tokens', '230', '--device', 'webgpu', '--checked']);
      expect(status).toBe(0);
      expect(stdout.length).toBeGreaterThan(500);
      expect(readFileSync(expected, 'utf8').slice(0, stdout.length)).toBe(stdout);
      expect(stderr).toMatch(/^backend +webgpu \(checked\)$/m);
      expect(stderr).toMatch(adapterNames[testAdapterName()]);
    },
    storyTimeout,
  );
});
