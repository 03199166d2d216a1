import { describe, expect, test } from 'vitest';
import { type BackendOptions, openBackend } from '../../src/runtime/select.js';

const open = (options: object) => openBackend(options as BackendOptions);

describe('opening a backend', () => {
  test.each([null, 5, {}, 'gpu'])('refuses %o as a device', async (device) => {
    await expect(open({ device })).rejects.toThrow("device must be 'auto', 'webgpu', 'cpu' or a GPU device, got ");
  });

  test.each([Number.NaN, 0, -1, '5', null])('refuses a budget of %o on the CPU as on a GPU', async (budgetBytes) => {
    await expect(open({ device: 'cpu', budgetBytes })).rejects.toThrow('a memory budget is a number of bytes above 0, got ');
  });

  test('takes a budget of the CPU up to what its memory can hold', async () => {
    const backend = await open({ device: 'cpu', budgetBytes: 2 ** 50 });
    expect(backend.ledger().budgetBytes).toBeLessThan(2 ** 33);
    backend.dispose();
  });
});
