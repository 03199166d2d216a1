import { afterEach, describe, expect, it } from 'vitest';
import { bytesOf } from '../../src/core/bytes.js';
import { bufferUsage } from '../../src/gpu/constants.js';
import { GpuDevice, type GpuDeviceOptions } from '../../src/gpu/device.js';
import { floats, ramp } from '../gpu/kernels.js';

const opened: GpuDevice[] = [];
const mib = 1 << 20;

async function open(options: GpuDeviceOptions = {}): Promise<GpuDevice> {
  const gpu = await GpuDevice.request(options);
  opened.push(gpu);
  return gpu;
}

function request(label: string, size: number) {
  return { label, size, usage: bufferUsage.storage | bufferUsage.copyDst, memoryClass: 'weights' } as const;
}

afterEach(() => {
  for (const gpu of opened.splice(0)) gpu.dispose();
});

describe('GpuMemory', () => {
  it('keeps a ledger by class and label, back to zero at the end', async () => {
    const gpu = await open();
    const weight = await gpu.memory.allocate(request('w', 2 * mib));
    const small = await gpu.memory.allocate(request('odd', 5));
    floats(gpu, 'x', 16);
    floats(gpu, 'x', 16);
    expect(small).toMatchObject({ size: 8, label: 'odd', memoryClass: 'weights' });
    expect(weight.buffer.size).toBe(2 * mib);
    const ledger = gpu.memory.ledger();
    expect(ledger).toMatchObject({
      bytes: 2 * mib + 8 + 128,
      count: 4,
      byClass: { weights: { bytes: 2 * mib + 8, count: 2 }, arena: { bytes: 128, count: 2 }, kv: { bytes: 0, count: 0 } },
    });
    expect(ledger.byLabel.map(({ label, bytes, count }) => [label, bytes, count])).toEqual([
      ['w', 2 * mib, 1],
      ['x', 128, 2],
      ['odd', 8, 1],
    ]);
    weight.free();
    weight.free();
    expect(gpu.memory.ledger()).toMatchObject({ bytes: 136, count: 3, peakBytes: 2 * mib + 136 });
    gpu.dispose();
    expect(gpu.memory.ledger()).toMatchObject({ bytes: 0, count: 0, byLabel: [] });
  });

  it('keeps the budget, in numbers', async () => {
    const gpu = await open({ budgetBytes: 1000 });
    floats(gpu, 'x', 100);
    await expect(gpu.memory.allocate(request('too much', 4 * mib))).rejects.toMatchObject({ code: 'E_OUT_OF_MEMORY', requested: 4 * mib, available: 600 });
    expect(() => floats(gpu, 'y', 151)).toThrow(expect.objectContaining({ code: 'E_OUT_OF_MEMORY', requested: 604, available: 600 }));
    floats(gpu, 'z', 150);
    expect(gpu.memory.availableBytes).toBe(0);
  });

  it('counts nothing that a device which is lost meanwhile has not granted', async () => {
    const gpu = await open();
    const granting = gpu.memory.allocate(request('large', 2 * mib));
    gpu.device.destroy();
    await expect(granting).rejects.toMatchObject({ code: 'E_DEVICE_LOST' });
    expect(gpu.memory.ledger().bytes).toBe(0);
  });

  it('refuses more than one buffer holds, and nonsense', async () => {
    const gpu = await open();
    const { maxBufferSize } = gpu.capabilities.limits;
    await expect(gpu.memory.allocate(request('huge', maxBufferSize + 4))).rejects.toMatchObject({ code: 'E_OUT_OF_MEMORY', available: maxBufferSize });
    await expect(gpu.memory.allocate(request('none', 0))).rejects.toMatchObject({ code: 'E_ARGUMENT' });
    await expect(GpuDevice.request({ budgetBytes: 0 })).rejects.toMatchObject({ code: 'E_ARGUMENT', argument: 'budgetBytes' });
    expect(gpu.memory.ledger().count).toBe(0);
  });

  it("gives the device's own refusal of a large buffer as a typed error, and nothing is kept", async () => {
    const gpu = await open();
    const wrong = { label: 'map both ways', size: 2 * mib, usage: bufferUsage.mapRead | bufferUsage.mapWrite, memoryClass: 'staging' } as const;
    await expect(gpu.memory.allocate(wrong)).rejects.toMatchObject({ code: 'E_OUT_OF_MEMORY', message: expect.stringContaining('the device refused it') });
    expect(gpu.memory.ledger().bytes).toBe(0);
    await gpu.idle();
  });
});

describe('Uploader', () => {
  it('writes pieces, odd tails and large data, and they arrive', async () => {
    const gpu = await open();
    const readback = gpu.createReadback();
    const data = new Uint8Array(17 * mib + 3).map((_, index) => index % 251);
    const target = await gpu.memory.allocate({
      label: 'target',
      size: data.length + 8,
      usage: bufferUsage.copyDst | bufferUsage.copySrc,
      memoryClass: 'weights',
    });
    await gpu.uploader.write(target.buffer, 4, data);
    await gpu.uploader.flush();
    const encoder = gpu.device.createCommandEncoder();
    const ticket = readback.copyInto(encoder, target.buffer, 4, target.size - 4);
    gpu.queue.submit([encoder.finish()]);
    const back = new Uint8Array(await ticket.read());
    expect(Buffer.compare(back.subarray(0, data.length), data)).toBe(0);
    expect(back[data.length]).toBe(0);
  });

  it('takes a view into larger data', async () => {
    const gpu = await open();
    const target = floats(gpu, 'x', 4);
    await gpu.uploader.write(target.buffer, 0, bytesOf(ramp(16).subarray(8, 12)));
    const encoder = gpu.device.createCommandEncoder();
    const ticket = gpu.createReadback().copyInto(encoder, target.buffer, 0, 16);
    gpu.queue.submit([encoder.finish()]);
    expect([...new Float32Array(await ticket.read())]).toEqual([8, 9, 10, 11]);
  });

  it('refuses what WebGPU would refuse', async () => {
    const gpu = await open();
    const { buffer } = floats(gpu, 'x', 4);
    await expect(gpu.uploader.write(buffer, 2, new Uint8Array(4))).rejects.toMatchObject({ code: 'E_ARGUMENT', argument: 'offset' });
    await expect(gpu.uploader.write(buffer, 8, new Uint8Array(9))).rejects.toMatchObject({ code: 'E_ARGUMENT', argument: 'data' });
  });
});
