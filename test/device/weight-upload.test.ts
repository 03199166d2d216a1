import { afterAll, beforeAll, expect, it } from 'vitest';
import { GpuMatmulCache } from '../../src/compute/matmul-cache/matmul-cache.js';
import { byteLengthOfType, type TensorType } from '../../src/core/tensor.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { gpuWeightStore } from '../../src/kernels/weights.js';
import { isBlockType, weightTypes } from '../../src/kernels/weights-layout.js';
import { seededRandom } from '../../src/ops/cases/weight-data.js';
import { WeightUpload } from '../../src/runtime/weight-upload.js';

let gpu: GpuDevice;

beforeAll(async () => {
  gpu = await GpuDevice.request({ checked: true });
});

afterAll(() => gpu.dispose());

const blockTypes = weightTypes.filter(isBlockType);

/** Bits that mean nothing: rearranging looks at none of them. */
function noise(byteLength: number): Uint8Array {
  const random = seededRandom(byteLength);
  return Uint8Array.from({ length: byteLength }, () => Math.floor(random() * 256));
}

async function read(buffer: GPUBuffer, byteLength: number, offset = 0): Promise<Uint8Array> {
  const ring = gpu.createReadback({ depth: 1 });
  const encoder = gpu.device.createCommandEncoder();
  const ticket = ring.copyInto(encoder, buffer, offset, byteLength);
  gpu.queue.submit([encoder.finish()]);
  const bytes = new Uint8Array(await ticket.read());
  ring.dispose();
  return bytes;
}

it.each(blockTypes)('the device rearranges %s as the host does, whatever the rows are cut into', async (dtype) => {
  // An odd number of blocks in the last piece, and rows that end inside a word.
  const type: TensorType = { dtype, shape: [11, 768] };
  const store = gpuWeightStore(gpu.capabilities);
  const rows = noise(byteLengthOfType(type));
  const rowBytes = rows.byteLength / 11;
  const buffers = ['host', 'device'].map((label) =>
    gpu.memory.allocateNow({ label, size: store.byteLength(type), usage: 0x80 | 0x04 | 0x08, memoryClass: 'weights' }),
  );
  const [host, device] = buffers.map(({ buffer }) => buffer);
  if (host === undefined || device === undefined) throw new Error('two buffers were made');
  for (const { offset, bytes } of store.pack(type, 0, rows)) await gpu.uploader.write(host, offset, bytes);
  const upload = new WeightUpload(gpu, { leastBytes: 1 });
  expect(upload.takes(type)).toBe(true);
  // At once: writes share one room and take turns, and it is given back after them.
  const writes = [upload.write(device, type, 8, rows.subarray(8 * rowBytes)), upload.write(device, type, 0, rows.subarray(0, 8 * rowBytes))];
  upload.release();
  await Promise.all(writes);
  expect(gpu.memory.ledger().byClass.staging.bytes).toBe(0);
  const [wanted, got] = [await read(host, store.byteLength(type)), await read(device, store.byteLength(type))];
  for (const { buffer } of buffers) buffer.destroy();
  expect(Buffer.compare(got, wanted)).toBe(0);
});

it('brings rows of plain types that are stored without padding, in pieces, through a ring that is used again', async () => {
  // 40 rows of 1 MiB: more than the ring holds at once.
  const type: TensorType = { dtype: 'f16', shape: [40, 1 << 19] };
  const rows = noise(1 << 20);
  const target = gpu.memory.allocateNow({ label: 'device', size: byteLengthOfType(type), usage: 0x80 | 0x04 | 0x08, memoryClass: 'weights' });
  const upload = new WeightUpload(gpu);
  expect(upload.takes(type)).toBe(true);
  for (let row = 0; row < 40; row += 20) {
    const piece = new Uint8Array(20 << 20);
    for (let i = 0; i < 20; i++) piece.set(rows.subarray(0, (1 << 20) - 4), (i << 20) + 4);
    new Uint32Array(piece.buffer).forEach((_, at, words) => {
      if (at % (1 << 18) === 0) words[at] = row + (at >> 18);
    });
    await upload.write(target.buffer, type, row, piece);
  }
  for (const row of [0, 7, 8, 19, 20, 39]) {
    const got = await read(target.buffer, 1 << 20, row << 20);
    expect(new Uint32Array(got.buffer)[0]).toBe(row);
    expect(Buffer.compare(got.subarray(4), rows.subarray(0, (1 << 20) - 4))).toBe(0);
  }
  expect(gpu.memory.ledger().byClass.staging.bytes).toBeLessThan(64 << 20);
  upload.release();
  target.free();
  expect(gpu.memory.ledger().byClass.staging.bytes).toBe(0);
});

it('gives its memory back before a product is prepared, and at the end of a cache that never had one', async () => {
  const data = new Float32Array(1 << 20);
  for (const warms of [true, false]) {
    const cache = new GpuMatmulCache(gpu);
    await cache.uploadWeight('w', data, 1024, 1024);
    expect(gpu.memory.ledger().byClass.staging.bytes).toBeGreaterThan(data.byteLength);
    if (warms) await cache.warm('w', 1);
    else cache.dispose();
    expect(gpu.memory.ledger().byClass.staging.bytes).toBe(0);
    cache.dispose();
  }
});

it('leaves small weights, and rows that are padded, to the host', () => {
  const upload = new WeightUpload(gpu);
  expect(upload.takes({ dtype: 'q4_k', shape: [4, 256] })).toBe(false);
  expect(upload.takes({ dtype: 'f16', shape: [4096, 4097] })).toBe(false);
  expect(upload.takes({ dtype: 'f32', shape: [4096, 4097] })).toBe(true);
  expect(gpu.memory.ledger().byClass.staging.bytes).toBe(0);
});

it('ends with what happened to the device, and keeps no memory', async () => {
  const lost = await GpuDevice.request({ checked: true });
  const type: TensorType = { dtype: 'f32', shape: [1024, 1024] };
  const target = lost.memory.allocateNow({ label: 'device', size: byteLengthOfType(type), usage: 0x80 | 0x04 | 0x08, memoryClass: 'weights' });
  const upload = new WeightUpload(lost);
  const rows = new Uint8Array(byteLengthOfType(type));
  await upload.write(target.buffer, type, 0, rows);
  lost.device.destroy();
  await expect(upload.write(target.buffer, type, 0, rows)).rejects.toMatchObject({ code: 'E_DEVICE_LOST' });
  upload.release();
  expect(lost.memory.ledger().byClass.staging.bytes).toBe(0);
});
