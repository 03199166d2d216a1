import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bytesOf } from '../../src/core/bytes.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { floats, ramp } from '../gpu/kernels.js';

let gpu: GpuDevice;
let source: GPUBuffer;

beforeEach(async () => {
  gpu = await GpuDevice.request();
  source = floats(gpu, 'source', 1024).buffer;
  await gpu.uploader.write(source, 0, bytesOf(ramp(1024)));
});

afterEach(() => gpu.dispose());

describe('ReadbackRing', () => {
  it('has more results on their way than it keeps buffers, read in any order', async () => {
    const before = gpu.memory.ledger().count;
    const ring = gpu.createReadback({ depth: 2 });
    const tickets = [0, 1, 2, 3].map((part) => {
      const encoder = gpu.device.createCommandEncoder();
      const ticket = ring.copyInto(encoder, source, part * 64, 16);
      gpu.queue.submit([encoder.finish()]);
      return ticket;
    });
    expect(ring.inFlight).toBe(4);
    expect(gpu.memory.ledger().count).toBe(before + 4);
    const results = await Promise.all(tickets.toReversed().map((ticket) => ticket.read()));
    expect(results.map((bytes) => new Float32Array(bytes)[0])).toEqual([48, 32, 16, 0]);
    expect(ring.inFlight).toBe(0);
    expect(gpu.memory.ledger().count).toBe(before + 2);
  });

  it('brings several pieces in one buffer', async () => {
    const before = gpu.memory.ledger().count;
    const ring = gpu.createReadback({ depth: 1 });
    const encoder = gpu.device.createCommandEncoder();
    const ticket = ring.copyAllInto(encoder, [
      { source, offset: 256, size: 8 },
      { source, offset: 4, size: 4 },
      { source, offset: 1024, size: 12 },
    ]);
    expect(gpu.memory.ledger().count).toBe(before + 1);
    gpu.queue.submit([encoder.finish()]);
    expect((await ticket.read()).map((bytes) => [...new Float32Array(bytes)])).toEqual([[64, 65], [1], [256, 257, 258]]);
    const none = ring.copyAllInto(gpu.device.createCommandEncoder(), []);
    expect(await none.read()).toEqual([]);
    expect(() =>
      ring.copyAllInto(encoder, [
        { source, offset: 0, size: 4 },
        { source, offset: 0, size: 2 },
      ]),
    ).toThrow('multiples of 4');
    expect(ring.inFlight).toBe(0);
  });

  it('reuses its buffers and grows them where it must', async () => {
    const ring = gpu.createReadback({ depth: 1 });
    const before = gpu.memory.ledger().count;
    for (const size of [16, 256, 4096, 4]) {
      const encoder = gpu.device.createCommandEncoder();
      const ticket = ring.copyInto(encoder, source, 0, size);
      gpu.queue.submit([encoder.finish()]);
      expect((await ticket.read()).byteLength).toBe(size);
    }
    expect(gpu.memory.ledger().count).toBe(before + 1);
    expect(gpu.memory.ledger().byClass.staging.bytes).toBe(4096);
    ring.dispose();
    expect(gpu.memory.ledger().byClass.staging.bytes).toBe(0);
    expect(() => ring.copyInto(gpu.device.createCommandEncoder(), source, 0, 4)).toThrow(expect.objectContaining({ code: 'E_DISPOSED' }));
  });

  it('keeps idle buffers up to a number of bytes, the small ones', async () => {
    const ring = gpu.createReadback({ depth: 4, keptBytes: 3000 });
    const encoder = gpu.device.createCommandEncoder();
    const tickets = [256, 2048, 1024, 4096].map((size) => ring.copyInto(encoder, source, 0, size));
    gpu.queue.submit([encoder.finish()]);
    for (const ticket of tickets) await ticket.read();
    expect(gpu.memory.ledger().byClass.staging).toEqual({ bytes: 1280, count: 2 });
  });

  it('takes a cancelled buffer back, and a ticket once only', async () => {
    const ring = gpu.createReadback({ depth: 1 });
    const ticket = ring.copyInto(gpu.device.createCommandEncoder(), source, 0, 16);
    ticket.cancel();
    expect(ring.inFlight).toBe(0);
    expect(() => ticket.read()).toThrow(expect.objectContaining({ code: 'E_ARGUMENT' }));
  });

  it('refuses what WebGPU would refuse', () => {
    const ring = gpu.createReadback();
    const encoder = gpu.device.createCommandEncoder();
    expect(() => ring.copyInto(encoder, source, 2, 4)).toThrow('multiples of 4');
    expect(() => ring.copyInto(encoder, source, 0, 6)).toThrow('multiples of 4');
    expect(() => ring.copyInto(encoder, source, 4092, 8)).toThrow("past the source's 4096");
    expect(ring.inFlight).toBe(0);
  });

  it('gives the loss of the device to those who wait', async () => {
    const ring = gpu.createReadback();
    const encoder = gpu.device.createCommandEncoder();
    const ticket = ring.copyInto(encoder, source, 0, 16);
    gpu.queue.submit([encoder.finish()]);
    const pending = ticket.read();
    gpu.device.destroy();
    await expect(pending).rejects.toMatchObject({ code: 'E_DEVICE_LOST', reason: 'destroyed' });
  });

  it('gives an error of the submitted work to the next reader', async () => {
    const ring = gpu.createReadback();
    const encoder = gpu.device.createCommandEncoder();
    const ticket = ring.copyInto(encoder, source, 0, 16);
    source.destroy();
    gpu.queue.submit([encoder.finish()]);
    await expect(ticket.read()).rejects.toMatchObject({ code: 'E_DEVICE', message: expect.stringContaining('source') });
  });
});
