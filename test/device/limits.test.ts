import { expect, test } from 'vitest';
import { GpuBackend } from '../../src/compute/gpu-backend.js';
import { UnsupportedError } from '../../src/core/errors.js';
import { GpuDevice } from '../../src/gpu/device.js';

test('elementwise operations go on past what one dimension of the grid reaches', async () => {
  const gpu = await GpuDevice.request({ checked: true });
  const ops = new GpuBackend({ device: gpu });
  // One element more than 65,535 workgroups of 256 threads have, and odd, so that no vector takes two.
  const size = 16_776_961;
  const x = Float32Array.from({ length: size }, (_, i) => (i % 1024) - 512);
  const y = await ops.relu(x);
  expect(y.length).toBe(size);
  expect(y.findIndex((value, i) => value !== Math.max(0, x[i] ?? Number.NaN))).toBe(-1);
  await ops.dispose();
  gpu.dispose();
});

test('arrays larger than a binding go through in pieces, and where there are none are a typed error with their size', async () => {
  const gpu = await GpuDevice.request({ checked: true, mask: { limits: { maxStorageBufferBindingSize: 16_384 } } });
  const ops = new GpuBackend({ device: gpu });
  // 4,096 numbers are just what a binding holds.
  const large = Float32Array.from({ length: 9001 }, (_, i) => ((i * 37) % 101) - 50);
  expect(await ops.relu(large)).toEqual(large.map((value) => Math.max(0, value)));
  expect(await ops.sum(large)).toBe(large.reduce((all, value) => all + value, 0));
  await expect(ops.softmax(large)).rejects.toThrow(UnsupportedError);
  await expect(ops.matmul(large, large, 1, 9001, 1)).rejects.toThrow('one binding of this device holds 16384');
  expect(await ops.matmul(large.subarray(0, 4096), new Float32Array(4096), 1, 4096, 1)).toEqual(Float32Array.of(0));
  await ops.dispose();
  expect(gpu.memory.ledger().byClass.arena.bytes).toBe(0);
  gpu.dispose();
});

test('two devices run the same operations side by side, and one goes on when the other has gone', async () => {
  const devices = [await GpuDevice.request({ checked: true }), await GpuDevice.request({ checked: true })];
  const [first, second] = devices.map((device) => new GpuBackend({ device }));
  if (first === undefined || second === undefined) throw new Error('two backends were made');
  const x = Float32Array.of(-1, 2, -3, 4);
  const wanted = [Float32Array.of(0, 2, 0, 4), Float32Array.of(0, 4, 0, 8)];
  const doubled = x.map((value) => 2 * value);
  expect(await Promise.all([first.relu(x), second.relu(doubled)])).toEqual(wanted);
  expect(await Promise.all([second.relu(x), first.relu(doubled)])).toEqual(wanted);
  for (const device of devices) expect(device.pipelines.stats.compiles).toBe(1);
  await first.dispose();
  devices[0]?.dispose();
  expect(await second.relu(x)).toEqual(wanted[0]);
  await second.dispose();
  devices[1]?.dispose();
});
