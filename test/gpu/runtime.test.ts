import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openFile } from '../../src/platform/files.js';
import { detectRuntime, environmentVariable } from '../../src/platform/runtime.js';

describe('detectRuntime', () => {
  it('sees this process as Node', () => {
    expect(detectRuntime()).toMatchObject({ name: 'node', version: process.versions.node, syncAvailable: true, sharedMemory: true });
  });

  it.each([
    ['deno', { Deno: { version: { deno: '2.1.0' } }, process: { versions: { node: '22.0.0' } } }, 'main', true],
    ['deno', { Deno: { version: { deno: '2.1.0' } }, WorkerGlobalScope: {} }, 'worker', true],
    ['bun', { Bun: { version: '1.2.0' }, process: { versions: { node: '22.0.0' } } }, 'main', true],
    ['browser', { document: {}, window: {} }, 'page', false],
    ['browser', { WorkerGlobalScope: {}, crossOriginIsolated: true }, 'worker', false],
    ['unknown', {}, 'worker', false],
  ] as const)('sees %s (%o)', (name, host, scope, syncAvailable) => {
    expect(detectRuntime(host)).toMatchObject({ name, scope, syncAvailable });
  });

  it('offers shared memory on the web only to isolated pages', () => {
    expect(detectRuntime({ document: {} }).sharedMemory).toBe(false);
    expect(detectRuntime({ document: {}, crossOriginIsolated: true }).sharedMemory).toBe(true);
  });

  it('reads the environment', () => {
    expect(environmentVariable('PATH')).toBe(process.env['PATH']);
    expect(environmentVariable('CENTELLA_NO_SUCH_VARIABLE')).toBeUndefined();
  });
});

describe('openFile', () => {
  let folder = '';
  let path = '';

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'centella-'));
    path = join(folder, 'ten');
    await writeFile(
      path,
      Uint8Array.from({ length: 10 }, (_, index) => index),
    );
  });

  afterAll(() => rm(folder, { recursive: true }));

  it('reads at any position', async () => {
    const file = await openFile(path);
    expect(file).toMatchObject({ name: path, size: 10 });
    expect([...(await file.read(3, 4))]).toEqual([3, 4, 5, 6]);
    const target = new Uint8Array(2);
    await file.readInto(8, target);
    expect([...target]).toEqual([8, 9]);
    await file.close();
    await file.close();
    await expect(file.read(0, 1)).rejects.toMatchObject({ code: 'E_DISPOSED' });
  });

  it('refuses what is not there', async () => {
    await expect(openFile(join(folder, 'nothing'))).rejects.toMatchObject({ code: 'E_IO', message: expect.stringContaining('nothing') });
    const file = await openFile(path);
    await expect(file.read(8, 3)).rejects.toMatchObject({ code: 'E_IO', message: expect.stringContaining('ends at byte 10') });
    await expect(file.read(-1, 1)).rejects.toMatchObject({ code: 'E_ARGUMENT' });
    await file.close();
  });
});
