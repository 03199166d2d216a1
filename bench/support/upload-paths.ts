/** Ways from a file in the system's cache to a buffer of a GPU, each alone: what loading a model can at best reach. */

import { type FileHandle, open } from 'node:fs/promises';
import type { GpuDevice } from '../../src/gpu/device.js';
import type { Figure } from './result.js';

const usage = { mapWrite: 0x02, copySrc: 0x04, copyDst: 0x08, storage: 0x80 } as const;
const mapModeWrite = 2;
const mib = 1 << 20;
/** Buffers of the device that stand for the weights; the pieces go round in them. */
const targetBytes = 256 * mib;

/** GB/s of reading `path`, of writing, and of both, up to `most` bytes each. */
export async function uploadPaths(gpu: GpuDevice, path: string, most: number): Promise<Figure[]> {
  const file = await open(path);
  const bytes = Math.floor(Math.min((await file.stat()).size, most) / (64 * mib)) * 64 * mib;
  const target = gpu.device.createBuffer({ size: targetBytes, usage: usage.storage | usage.copyDst });
  const figures: Figure[] = [];
  const add = async (name: string, run: () => Promise<void>): Promise<void> => {
    const started = performance.now();
    await run();
    const figure: Figure = { name: `path: ${name}`, value: bytes / (performance.now() - started) / 1e6, unit: 'GB/s', checks: gpu.checks };
    figures.push(figure);
    console.error(`  ${figure.name}: ${figure.value.toFixed(2)} GB/s`);
  };
  await add('read into 8 MiB of new memory, 2 in flight', () => readFresh(file, bytes, 8 * mib, 2));
  for (const [size, flights] of [
    [4, 1],
    [4, 4],
    [16, 2],
    [16, 4],
  ] as const)
    await add(`read into ${size} MiB that stay, ${flights} in flight`, () => readReused(file, bytes, size * mib, flights));
  for (const size of [1, 2, 4, 16]) await add(`writeBuffer of ${size} MiB pieces`, () => writePieces(gpu, target, bytes, size * mib));
  await add('read into 4 MiB that stay, 4 in flight, and writeBuffer', () => readAndWrite(gpu, file, target, bytes, 4 * mib, 4));
  for (const [size, slots] of [
    [4, 8],
    [8, 6],
    [16, 4],
    [16, 8],
  ] as const) {
    await add(`${slots} mapped buffers of ${size} MiB, copied into by this thread`, () => throughMapped(gpu, target, bytes, size * mib, slots, undefined));
    await add(`${slots} mapped buffers of ${size} MiB, read into by the file`, () => throughMapped(gpu, target, bytes, size * mib, slots, file));
  }
  target.destroy();
  await file.close();
  return figures;
}

async function readFresh(file: FileHandle, bytes: number, size: number, flights: number): Promise<void> {
  await inTurns(bytes, size, flights, (at) => file.read(new Uint8Array(size), 0, size, at));
}

async function readReused(file: FileHandle, bytes: number, size: number, flights: number): Promise<void> {
  const buffers = Array.from({ length: flights }, () => new Uint8Array(size));
  await inTurns(bytes, size, flights, (at, slot) => file.read(buffers[slot] as Uint8Array, 0, size, at));
}

async function writePieces({ queue }: GpuDevice, target: GPUBuffer, bytes: number, size: number): Promise<void> {
  const piece = new Uint8Array(size).fill(1);
  for (let at = 0; at < bytes; at += size) {
    queue.writeBuffer(target, at % targetBytes, piece);
    if (at % (64 * mib) === 0) queue.submit([]);
    if (at % (256 * mib) === 0) await queue.onSubmittedWorkDone();
  }
  queue.submit([]);
  await queue.onSubmittedWorkDone();
}

async function readAndWrite({ queue }: GpuDevice, file: FileHandle, target: GPUBuffer, bytes: number, size: number, flights: number): Promise<void> {
  const buffers = Array.from({ length: flights }, () => new Uint8Array(size));
  let done: Promise<unknown> = Promise.resolve();
  await inTurns(bytes, size, flights, async (at, slot) => {
    const piece = buffers[slot] as Uint8Array<ArrayBuffer>;
    await file.read(piece, 0, size, at);
    queue.writeBuffer(target, at % targetBytes, piece);
    if (at % (64 * mib) === 0) queue.submit([]);
    if (at % (256 * mib) !== 0) return;
    await done;
    done = queue.onSubmittedWorkDone();
  });
  queue.submit([]);
  await queue.onSubmittedWorkDone();
}

async function throughMapped(gpu: GpuDevice, target: GPUBuffer, bytes: number, size: number, slots: number, file: FileHandle | undefined): Promise<void> {
  const { device, queue } = gpu;
  const piece = new Uint8Array(size).fill(1);
  const buffers = Array.from({ length: slots }, () => device.createBuffer({ size, usage: usage.mapWrite | usage.copySrc, mappedAtCreation: true }));
  const fresh = new Set(buffers);
  await inTurns(bytes, size, slots, async (at, slot) => {
    const buffer = buffers[slot] as GPUBuffer;
    if (!fresh.delete(buffer)) await buffer.mapAsync(mapModeWrite);
    const memory = new Uint8Array(buffer.getMappedRange());
    if (file === undefined) memory.set(piece);
    else await file.read(memory, 0, size, at);
    buffer.unmap();
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, target, at % targetBytes, size);
    queue.submit([encoder.finish()]);
  });
  await queue.onSubmittedWorkDone();
  for (const buffer of buffers) buffer.destroy();
}

/** Calls `work` for every piece of `bytes`, `flights` at a time, each in a slot that no other one in flight has. */
async function inTurns(bytes: number, size: number, flights: number, work: (at: number, slot: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: flights }, async (_, slot) => {
      while (next < bytes) {
        const at = next;
        next += size;
        await work(at, slot);
      }
    }),
  );
}
