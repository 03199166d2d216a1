import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { bytesOf } from '../../src/core/bytes.js';
import { DeviceError } from '../../src/core/errors.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { GpuDevicePool, type GpuDevicePoolOptions, type PoolSource } from '../../src/gpu/pool.js';
import { selectableGpus } from '../../src/platform/device-select.js';
import { floats, ramp, scaleKernel } from '../gpu/kernels.js';
import { requestTestAdapter, testAdapterIndex, testsSoftware } from '../support/adapters.js';

const pools: GpuDevicePool[] = [];

/** The adapter under test, in the list of all. */
let index: number;
beforeAll(async () => {
  index = await testAdapterIndex();
});

async function open(options: GpuDevicePoolOptions, source?: PoolSource): Promise<GpuDevicePool> {
  const pool = await GpuDevicePool.request(options, source);
  pools.push(pool);
  return pool;
}

afterEach(() => {
  for (const pool of pools.splice(0)) pool.dispose();
});

/** 0, 1, 2, ... times `factor`, on a device. */
async function scaled(gpu: GpuDevice, factor: number): Promise<Float32Array> {
  const kernel = scaleKernel(factor);
  const pipeline = await gpu.pipelines.get(kernel);
  const [x, y] = [floats(gpu, 'x', 64), floats(gpu, 'y', 64)];
  const ring = gpu.createReadback({ depth: 1 });
  try {
    await gpu.uploader.write(x.buffer, 0, bytesOf(ramp(64)));
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, gpu.pipelines.bindGroup(kernel, [x, y]));
    pass.dispatchWorkgroups(1);
    pass.end();
    const ticket = ring.copyInto(encoder, y.buffer, 0, 256);
    gpu.queue.submit([encoder.finish()]);
    return new Float32Array(await ticket.read());
  } finally {
    ring.dispose();
    x.free();
    y.free();
  }
}

const factors = Array.from({ length: 12 }, (_, index) => index + 1);
const expected = factors.map((factor) => ramp(64).map((x) => x * factor));

describe('GpuDevicePool', () => {
  it('takes software adapters on request only', async () => {
    const software = testsSoftware();
    if (software) {
      await expect(open({})).rejects.toMatchObject({
        code: 'E_NO_ADAPTER',
        message: expect.stringContaining("software: a pool takes it with { software: 'allow' }"),
      });
    }
    const pool = await open(software ? { software: 'allow' } : {});
    expect(pool.size).toBeGreaterThanOrEqual(1);
    const [first] = pool;
    expect(first).toBe(pool.get(0));
    expect([...pool].every(({ adapterInfo }) => adapterInfo.software === software)).toBe(true);
    expect(pool.get(pool.size)).toBeUndefined();
    expect(pool.report.devices[0]).toMatchObject({ index: 0, software, state: 'ready', busy: 0, served: 0 });
  });

  it('maps over several devices of one adapter', async () => {
    const pool = await open({ adapters: [index], devicesPerAdapter: 2 });
    const [a, b] = pool;
    expect(a?.device).not.toBe(b?.device);
    expect([a?.label, b?.label]).toEqual([expect.stringContaining('(device 0 of the pool)'), expect.stringContaining('(device 1 of the pool)')]);
    expect(await pool.map(factors, (factor, gpu) => scaled(gpu, factor))).toEqual(expected);
    expect(pool.report.devices.map(({ served }) => served).every((served) => served > 0)).toBe(true);
  });

  it('takes an adapter that is named twice for two devices', async () => {
    const pool = await open({ adapters: [index, index] });
    expect(pool.size).toBe(2);
  });

  it('loses no item where a device is lost in the middle of a map', async () => {
    const pool = await open({ adapters: [index], devicesPerAdapter: 2 });
    const runs: number[] = [];
    const results = await pool.map(factors, async (factor, gpu, { deviceIndex }) => {
      runs.push(factor);
      const result = scaled(gpu, factor);
      // Without waiting for the result: its work is under way.
      if (deviceIndex === 1) gpu.device.destroy();
      return result;
    });
    expect(results).toEqual(expected);
    expect(runs.length).toBeGreaterThan(factors.length);
    expect(pool.report.devices.map(({ state }) => state)).toEqual(['ready', 'lost']);
    expect(pool.size).toBe(2);
    expect(pool.acquire().index).toBe(0);
  });

  it('gives a typed error where no device is left', async () => {
    const pool = await open({ adapters: [index] });
    const failing = pool.map(factors, (factor, gpu) => {
      if (factor === 3) gpu.device.destroy();
      return scaled(gpu, factor);
    });
    await expect(failing).rejects.toMatchObject({ code: 'E_DEVICE_LOST', message: expect.stringContaining('10 of 12 items are not done') });
    expect(() => pool.acquire()).toThrow(expect.objectContaining({ code: 'E_DEVICE_LOST' }));
  });

  it("passes on the function's own errors, those of a device that is well too", async () => {
    const pool = await open({ adapters: [index], devicesPerAdapter: 2 });
    const broken = scaleKernel(1, 1, { key: 'broken', wgsl: () => 'fn (' });
    await expect(pool.map([1], (_, gpu) => gpu.pipelines.get(broken))).rejects.toMatchObject({ code: 'E_SHADER' });
    await expect(pool.map([1, 2], () => Promise.reject(new RangeError('mine')))).rejects.toThrow(RangeError);
    expect(pool.report.devices.map(({ state }) => state)).toEqual(['ready', 'ready']);
  });

  it('lends the least busy device', async () => {
    const pool = await open({ adapters: [index], devicesPerAdapter: 2 });
    const leases = [pool.acquire(), pool.acquire(), pool.acquire()];
    expect(leases.map(({ index }) => index)).toEqual([0, 1, 0]);
    expect(pool.report.devices.map(({ busy }) => busy)).toEqual([2, 1]);
    leases[0]?.release();
    leases[0]?.release();
    leases[2]?.[Symbol.dispose]();
    expect(pool.report.devices.map(({ busy, served }) => [busy, served])).toEqual([
      [0, 2],
      [1, 1],
    ]);
    expect(pool.acquire().device).toBe(pool.get(0));
  });

  it("works on the caller's devices and leaves them alive", async () => {
    const raw = await (await requestTestAdapter()).requestDevice();
    const gpu = await GpuDevice.request();
    const pool = await open({ devices: [raw, gpu] });
    expect(pool.get(1)).toBe(gpu);
    expect(await pool.map(factors, (factor, device) => scaled(device, factor))).toEqual(expected);
    pool.dispose();
    gpu.check();
    expect(await scaled(gpu, 2)).toEqual(expected[1]);
    raw.pushErrorScope('validation');
    raw.createBuffer({ size: 16, usage: 8 }).destroy();
    expect(await raw.popErrorScope()).toBeNull();
    gpu.dispose();
    raw.destroy();
  });

  it('leaves out and reports an adapter that gives no device', async () => {
    const list = await GpuDevice.adapters();
    const found = list.adapters[index];
    if (found === undefined) throw new Error('this process has no adapter');
    const entry = { ...found, index: 0 };
    const source: PoolSource = {
      adapters: () => Promise.resolve({ adapters: [entry, { ...entry, index: 1, name: 'broken card' }], notes: ['a note'] }),
      open: (options) =>
        options.adapter === 1 ? Promise.reject(new DeviceError('E_DEVICE', 'its driver is broken')) : GpuDevice.request({ ...options, adapter: index }),
    };
    const pool = await open({ software: 'allow' }, source);
    expect(pool.size).toBe(1);
    expect(pool.report).toMatchObject({
      skipped: [{ adapterIndex: 1, name: 'broken card', backend: entry.backend, why: 'its driver is broken' }],
      notes: ['a note'],
    });
    await expect(open({ adapters: [1] }, source)).rejects.toMatchObject({
      code: 'E_NO_ADAPTER',
      message: expect.stringContaining(`broken card (${entry.backend}): its driver is broken`),
    });
    const lost = await GpuDevice.request();
    lost.device.destroy();
    await lost.lost;
    await expect(open({ devices: [lost] })).rejects.toMatchObject({ code: 'E_NO_ADAPTER', message: expect.stringContaining('was lost') });
  });

  it('refuses options that make no sense', async () => {
    const gpu = await GpuDevice.request();
    const wrong = (value: unknown): never => value as never;
    for (const [options, argument] of [
      [{ adapters: [] }, 'adapters'],
      [{ adapters: [99] }, 'adapters'],
      [{ adapters: ['no such card'] }, 'adapters'],
      [{ devices: [] }, 'devices'],
      [{ devices: [gpu], adapters: [index] }, 'adapters'],
      [{ devices: [gpu], checked: true }, 'checked'],
      [{ adapters: [index], devicesPerAdapter: 0 }, 'devicesPerAdapter'],
      [{ adapters: [index], budgetBytes: -1 }, 'budgetBytes'],
      [{ adapters: wrong('llvmpipe') }, 'adapters'],
      [{ devices: wrong(gpu) }, 'devices'],
      [{ devices: [wrong(null)] }, 'device'],
      [{ software: wrong('maybe') }, 'software'],
    ] as const) {
      await expect(open(options)).rejects.toMatchObject({ code: 'E_ARGUMENT', argument });
    }
    const pool = await open({ devices: [gpu] });
    await expect(pool.map([1], () => 1, { perDevice: 0 })).rejects.toMatchObject({ argument: 'perDevice' });
    await expect(pool.map([1], wrong(undefined))).rejects.toMatchObject({ argument: 'apply' });
    await expect(pool.map(wrong(5), () => 1)).rejects.toMatchObject({ argument: 'items' });
    gpu.dispose();
  });

  it('ends its devices with dispose, and maps with them', async () => {
    const pool = await open({ adapters: [index], devicesPerAdapter: 2 });
    const [first] = pool;
    const ended = pool.map(factors, async (factor, gpu) => {
      const result = await scaled(gpu, factor);
      pool.dispose();
      return result;
    });
    await expect(ended).rejects.toMatchObject({ code: 'E_DISPOSED' });
    expect(first?.isDisposed).toBe(true);
    expect(() => pool.acquire()).toThrow(expect.objectContaining({ code: 'E_DISPOSED' }));
    await expect(pool.map([], () => 1)).rejects.toMatchObject({ code: 'E_DISPOSED' });
    expect(pool.report.devices.map(({ state }) => state)).toEqual(['disposed', 'disposed']);
    pool[Symbol.dispose]();
  });
});

describe("Mesa's device-select layer", () => {
  it('is asked in a process of its own; software drivers have no place for it to tell', async () => {
    const { gpus, problem } = await selectableGpus();
    const placed = gpus.some(({ pciAddress }) => pciAddress !== undefined);
    expect(placed).toBe(problem === undefined);
    if (testsSoftware()) expect(problem).toContain('mesa-vulkan-drivers');
  });
});
