import { afterEach, describe, expect, it } from 'vitest';
import { chooseAdapter } from '../../src/gpu/adapter.js';
import { GpuDevice, type GpuDeviceOptions } from '../../src/gpu/device.js';
import { openBackend } from '../../src/runtime/select.js';
import { floats, scaleKernel } from '../gpu/kernels.js';
import { testAdapterName } from '../support/adapter-name.js';
import { requestTestAdapter, testAdapterIndex, testAdapterPattern, testsSoftware } from '../support/adapters.js';

/** What is known of the software adapters. Of a GPU only this: that it is none of them. */
const expected = {
  lavapipe: { f16: true, subgroups: true, subgroupMinSize: 8, subgroupMaxSize: 8, packedDot: true, timestamps: true, software: true },
  swiftshader: { f16: false, subgroups: true, subgroupMinSize: 4, subgroupMaxSize: 4, packedDot: true, timestamps: true, software: true },
  hardware: { software: false },
} as const;

const opened: GpuDevice[] = [];

async function open(options: GpuDeviceOptions = {}): Promise<GpuDevice> {
  const gpu = await GpuDevice.request(options);
  opened.push(gpu);
  return gpu;
}

afterEach(() => {
  for (const gpu of opened.splice(0)) gpu.dispose();
});

describe('GpuDevice', () => {
  it('reports what this adapter is known to have', async () => {
    const gpu = await open();
    expect(gpu.capabilities).toMatchObject(expected[testAdapterName()]);
    expect(gpu.adapterInfo.name).toMatch(await testAdapterPattern());
    expect(gpu.reason.includes('software adapter')).toBe(testsSoftware());
    expect(gpu.checks).toBe('unchecked');
    expect(gpu.device.limits.maxBufferSize).toBe(gpu.capabilities.limits.maxBufferSize);
    expect(gpu.capabilities.limits.maxStorageBufferBindingSize).toBeGreaterThanOrEqual(134_217_728);
  });

  it('is taken as it is by a backend, which refuses what would choose or make another', async () => {
    const gpu = await open();
    for (const options of [{ adapter: 0 }, { powerPreference: 'low-power' }, { checked: true }] as const)
      for (const device of [gpu, gpu.device]) await expect(openBackend({ device, ...options })).rejects.toThrow('the caller brought');
    await expect(openBackend({ device: gpu, budgetBytes: 5 })).rejects.toThrow('the caller brought one: give one of the two');
    const backend = await openBackend({ device: gpu.device, budgetBytes: 5_000_000 });
    expect(backend.ledger().budgetBytes).toBe(5_000_000);
    backend.dispose();
    gpu.check();
  });

  it('keeps checks on when told so', async () => {
    expect((await open({ checked: true })).checks).toBe('checked');
  });

  it('lists adapters and chooses by index and by name', async () => {
    const { adapters } = await GpuDevice.adapters();
    expect(adapters.length).toBeGreaterThanOrEqual(1);
    const index = await testAdapterIndex();
    const listed = adapters[index];
    expect(listed).toMatchObject({ index, software: testsSoftware() });
    const byIndex = await open({ adapter: index });
    expect(byIndex.reason).toMatch(new RegExp(`^chosen by index ${index}(, at PCI .*)?${testsSoftware() ? '; it renders in software' : ''}$`));
    const byName = await open({ adapter: listed?.name.toUpperCase() ?? '' });
    expect(byName.adapterInfo).toEqual(byIndex.adapterInfo);
    expect(byName.reason).toContain('chosen by the name');
    // However it was found, an adapter has one name, and its backend one word.
    const automatic = await open();
    expect(byName.adapterInfo).toMatchObject({ name: listed?.name, backend: listed?.backend });
    const { name, backend } = automatic.adapterInfo;
    expect(adapters.map((entry) => [entry.name, entry.backend])).toContainEqual([name, backend]);
    expect((await open({ device: automatic.device })).adapterInfo.name).toBe(automatic.adapterInfo.name);
  });

  it('refuses adapters that are not there, and software ones in an automatic choice', async () => {
    await expect(GpuDevice.request({ adapter: 99 })).rejects.toMatchObject({ code: 'E_ARGUMENT', message: expect.stringContaining('there is 0: ') });
    await expect(GpuDevice.request({ adapter: 'no such card' })).rejects.toMatchObject({ code: 'E_ARGUMENT', argument: 'adapter' });
    for (const [argument, value] of [
      ['adapter', null],
      ['adapter', Number.NaN],
      ['adapter', ''],
      ['powerPreference', 'fast'],
      ['software', 'maybe'],
      ['device', {}],
      ['device', null],
    ] as const)
      await expect(GpuDevice.request({ [argument]: value })).rejects.toMatchObject({ code: 'E_ARGUMENT', argument });
    const automatic = chooseAdapter({ software: 'refuse' });
    if (testsSoftware()) await expect(automatic).rejects.toMatchObject({ code: 'E_NO_ADAPTER', message: expect.stringContaining('software') });
    else expect((await automatic).capabilities.software).toBe(false);
  });

  it('is available where it can be opened, and asks for that once', async () => {
    expect(GpuDevice.isAvailable()).toBe(GpuDevice.isAvailable());
    expect(await GpuDevice.isAvailable()).toBe(true);
    expect((await open()).isLost).toBe(false);
  });

  it('applies a mask to the capabilities and to the device itself', async () => {
    const gpu = await open({
      mask: { f16: false, subgroups: false, limits: { maxStorageBufferBindingSize: 134_217_728, maxComputeWorkgroupStorageSize: 16_384 } },
    });
    expect(gpu.capabilities).toMatchObject({ f16: false, subgroups: false, subgroupMaxSize: 0 });
    expect(gpu.device.features.has('shader-f16')).toBe(false);
    expect(gpu.device.features.has('subgroups')).toBe(false);
    expect(gpu.device.limits.maxComputeWorkgroupStorageSize).toBe(16_384);
    expect(gpu.device.limits.maxStorageBufferBindingSize).toBe(134_217_728);
  });

  it('gives several devices, each on a fresh adapter', async () => {
    const [a, b] = await Promise.all([open(), open()]);
    expect(a?.device).not.toBe(b?.device);
  });

  it("works on the caller's device and leaves it alive", async () => {
    const device = await (await requestTestAdapter()).requestDevice();
    const gpu = await open({ device });
    expect(gpu.reason).toBe('the caller brought the device');
    expect(gpu.checks).toBe('host');
    expect(gpu.capabilities).toMatchObject({ f16: false, packedDot: true, software: testsSoftware() });
    await gpu.pipelines.get(scaleKernel(2));
    floats(gpu, 'x', 64);
    gpu.dispose();
    expect(gpu.memory.ledger().bytes).toBe(0);
    device.pushErrorScope('validation');
    device.createBuffer({ size: 16, usage: 8 }).destroy();
    expect(await device.popErrorScope()).toBeNull();
    device.destroy();
  });

  it('refuses to choose an adapter for a device that the caller brought', async () => {
    const device = await (await requestTestAdapter()).requestDevice();
    await expect(GpuDevice.request({ device, powerPreference: 'low-power' })).rejects.toMatchObject({ code: 'E_ARGUMENT', argument: 'powerPreference' });
    device.destroy();
  });

  it('gives the loss of the device as a typed error', async () => {
    const gpu = await open();
    expect(gpu.isLost).toBe(false);
    gpu.device.destroy();
    expect(await gpu.lost).toMatchObject({ code: 'E_DEVICE_LOST', reason: 'destroyed' });
    expect(gpu.isLost).toBe(true);
    expect(() => gpu.check()).toThrow(expect.objectContaining({ name: 'DeviceLostError' }));
    await expect(gpu.pipelines.get(scaleKernel(2))).rejects.toMatchObject({ code: 'E_DEVICE_LOST' });
    expect(() => floats(gpu, 'x', 64)).toThrow(expect.objectContaining({ code: 'E_DEVICE_LOST' }));
  });

  it('reports errors that nobody caught at the next check, once', async () => {
    const gpu = await open();
    gpu.device.createShaderModule({ label: 'broken', code: 'fn (' });
    await expect(gpu.idle()).rejects.toMatchObject({ code: 'E_DEVICE', message: expect.stringContaining('broken') });
    await gpu.idle();
  });

  it('is unusable after dispose, which is no error twice', async () => {
    const gpu = await open();
    gpu.dispose();
    gpu[Symbol.dispose]();
    expect(gpu.isDisposed).toBe(true);
    expect(() => gpu.check()).toThrow(expect.objectContaining({ code: 'E_DISPOSED' }));
    expect(await gpu.lost).toMatchObject({ reason: 'destroyed' });
  });
});
