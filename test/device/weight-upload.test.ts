import { afterAll, beforeAll, expect, it } from 'vitest';
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

async function read(buffer: GPUBuffer, byteLength: number): Promise<Uint8Array> {
  const ring = gpu.createReadback({ depth: 1 });
  const encoder = gpu.device.createCommandEncoder();
  const ticket = ring.copyInto(encoder, buffer, 0, byteLength);
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
  expect(upload.takes(type, rows.byteLength)).toBe(true);
  // At once: writes share one room and take turns, and it is given back after them.
  const writes = [upload.write(device, type, 8, rows.subarray(8 * rowBytes)), upload.write(device, type, 0, rows.subarray(0, 8 * rowBytes))];
  upload.release();
  await Promise.all(writes);
  expect(gpu.memory.ledger().byClass.staging.bytes).toBe(0);
  const [wanted, got] = [await read(host, store.byteLength(type)), await read(device, store.byteLength(type))];
  for (const { buffer } of buffers) buffer.destroy();
  expect(Buffer.compare(got, wanted)).toBe(0);
});

it('leaves small rows and plain types to the host, and gives its room back', () => {
  const upload = new WeightUpload(gpu);
  expect(upload.takes({ dtype: 'q4_k', shape: [4, 256] }, 576)).toBe(false);
  expect(upload.takes({ dtype: 'f16', shape: [4096, 4096] }, 1 << 25)).toBe(false);
  expect(gpu.memory.ledger().byClass.staging.bytes).toBe(0);
});
