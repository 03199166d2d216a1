import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { loadModel } from '../../src/llm.js';
import { testAdapterName } from '../support/adapter-name.js';
import { testAdapterPattern, testsSoftware } from '../support/adapters.js';
import { centella, outputOf } from '../support/cli.js';
import { describeExternal, fixture } from '../support/fixtures.js';
import { everyCase } from '../support/share.js';

describe('centella doctor', () => {
  it('lists the adapter, takes a software one on demand only, and says why', async () => {
    const software = testsSoftware();
    const report = JSON.parse(await outputOf(['doctor', '--device', 'webgpu', '--json']));
    const pattern = await testAdapterPattern();
    expect(report.adapters.filter((adapter: { software: boolean; name: string }) => adapter.software === software && pattern.test(adapter.name))).not.toEqual(
      [],
    );
    expect(report.chosen).toMatchObject({ kind: 'webgpu', reason: expect.stringContaining(software ? 'software adapter' : 'adapter of this machine') });
    expect(report.device.kernels.length).toBeGreaterThan(10);
    for (const { reason } of report.device.kernels) expect(reason).not.toBe('');
    const { chosen } = JSON.parse(await outputOf(['doctor', '--json']));
    expect(chosen).toMatchObject(software ? { kind: 'cpu', reason: expect.stringContaining('renders in software') } : { kind: 'webgpu' });
  });

  it('checks kernels with the checks off, on, and on the CPU', async () => {
    const { status, stdout } = await centella(['doctor', '--check', '--device', 'webgpu', '--filter', 'rmsNorm', '--json']);
    expect(status).toBe(0);
    const report = JSON.parse(stdout);
    expect(report.trusted).toEqual(['webgpu unchecked', 'webgpu checked', 'cpu']);
    for (const { families } of report.modes) expect(families).toMatchObject([{ family: 'rmsNorm', passed: 12, failed: 0 }]);
  });
});

describe('centella inspect', () => {
  it('tells the memory that loading takes on the adapter', async () => {
    const source = fixture('gguf/llama3.Q8_0.gguf');
    const { memory } = JSON.parse(await outputOf(['inspect', source, '--context', '600', '--device', 'webgpu', '--json']));
    const model = await loadModel(source, { device: 'webgpu', contextLength: 600 });
    const { byClass } = model.ledger();
    model.dispose();
    expect(memory.adapter).toMatch(await testAdapterPattern());
    const { weights, kv, arena, other } = memory.webgpu;
    expect({ weights, kv, arena, other }).toEqual({
      weights: byClass.weights.bytes,
      kv: byClass.kv.bytes,
      arena: byClass.arena.bytes,
      other: byClass.constants.bytes + byClass.state.bytes,
    });
  });
});

/** 230 tokens, one by one, on a rasteriser that shares its processors. */
const storyTimeout = 300_000;

/** On SwiftShader the story takes as long as all other tests of the command together. */
if (everyCase || testAdapterName() !== 'swiftshader')
  describeExternal('stories260K', ['models/stories260K.gguf', 'models/stories260K.expected.txt'], (model, expected) => {
    it(
      'is written on WebGPU as its author published it',
      async () => {
        const { status, stdout, stderr } = await centella(['run', model, '--temperature', '0', '--max-tokens', '230', '--device', 'webgpu', '--checked']);
        expect(status).toBe(0);
        expect(stdout.length).toBeGreaterThan(500);
        expect(readFileSync(expected, 'utf8').slice(0, stdout.length)).toBe(stdout);
        expect(stderr).toMatch(/^backend +webgpu \(checked\)$/m);
        expect(stderr).toMatch(await testAdapterPattern());
      },
      storyTimeout,
    );
  });
