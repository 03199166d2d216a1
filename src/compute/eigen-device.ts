/** Round-robin Jacobi in f32 on a WebGPU device: one dispatch a round, a few submits and one read a sweep. */

import { CentellaError, throwIfAborted, UnsupportedError } from '../core/errors.js';
import type { MemoryClass } from '../core/memory.js';
import { bufferUsage } from '../gpu/constants.js';
import type { GpuDevice } from '../gpu/device.js';
import type { GpuAllocation } from '../gpu/memory.js';
import type { ReadbackRing, ReadbackTicket } from '../gpu/readback.js';
import { Recorder } from '../gpu/recorder.js';
import { jacobiCheckKernel, jacobiCheckWords, jacobiMatrixElements, jacobiRoundKernel, jacobiUniform } from '../kernels/jacobi.js';
import { jacobiProductKernel, productUnit } from '../kernels/jacobi-product.js';
import type { EigenPair, EigenProblem } from './eigen-problem.js';
import { refineEigen, type TransposedProduct } from './eigen-refine.js';

/** Bytes that the rounds of one submit read and write at most: half a second of a slow GPU, far from where an operating system takes it for hung. */
const bytesPerSubmit = 2 ** 34;

interface Buffers {
  /** The matrix before and after a round, in turns. */
  readonly matrices: readonly [GpuAllocation, GpuAllocation];
  readonly vectors: GpuAllocation;
  readonly check: GpuAllocation;
  /** i32 [size, size], for the products of the refinement. */
  readonly whole: GpuAllocation;
  readonly shape: GpuAllocation;
}

/**
 * A sweep that starts in either matrix, for a sweep has an odd number of rounds: dispatches 0 to size - 1 and size to 2 size - 1 of the recorder; the last of each
 * is the check.
 */
interface Sweeps {
  readonly recorder: Recorder;
  readonly size: number;
}

/**
 * Rotates until no element off the diagonal exceeds `limit`, or for `maxSweeps` sweeps (at least 1). An odd n gets one more index, whose row and column are zero.
 * @throws UnsupportedError where the matrix exceeds one binding of the device.
 */
export async function eigenOnDevice(gpu: GpuDevice, problem: EigenProblem): Promise<EigenPair> {
  const { n, limit, maxSweeps, signal } = problem;
  const size = n + (n % 2);
  assertFits(gpu, n, size);
  // A power of two, so that scaling is exact: the largest element becomes 1 to 2.
  const scale = 2 ** Math.floor(Math.log2(problem.largest));
  const held: GpuAllocation[] = [];
  const ring = gpu.createReadback({ depth: 2, label: 'eigen result' });
  try {
    const buffers = await allocate(gpu, size, held);
    await upload(gpu, buffers, problem, size, scale);
    const sweeps = await record(gpu, buffers, size);
    let check = new Float32Array();
    let rest = Number.POSITIVE_INFINITY;
    let done = 0;
    while (rest > limit && done < maxSweeps) {
      throwIfAborted(signal, 'the eigendecomposition');
      const ticket = submitSweep(gpu, ring, sweeps, buffers.check, done % 2);
      check = new Float32Array(await ticket.read());
      done++;
      rest = (check[0] as number) * scale;
      if (Number.isNaN(rest))
        throw new CentellaError('E_NUMERICAL', `sweep ${done} of a finite matrix [${n}, ${n}] gave NaN: the device's arithmetic is at fault`);
    }
    const vectors = await readVectors(gpu, ring, buffers, n, size);
    if (rest <= limit) {
      const refined = await refineEigen(n, scaledMatrix(problem, n, scale), vectors, await products(gpu, ring, buffers, n));
      return { values: refined.values.map((x) => x * scale), component: (row, column) => refined.vectors[row * n + column] as number, rest, sweeps: done };
    }
    const values = Float64Array.from({ length: n }, (_, i) => (check[1 + i] as number) * scale);
    return { values, component: (row, column) => vectors[row * n + column] as number, rest, sweeps: done };
  } finally {
    ring.dispose();
    for (const allocation of held) allocation.free();
  }
}

function assertFits(gpu: GpuDevice, n: number, size: number): void {
  const { maxStorageBufferBindingSize, maxBufferSize, maxComputeWorkgroupsPerDimension } = gpu.capabilities.limits;
  const bytes = jacobiMatrixElements(size) * 4;
  const most = Math.min(maxStorageBufferBindingSize, maxBufferSize);
  if (bytes > most || size > maxComputeWorkgroupsPerDimension) {
    throw new UnsupportedError(
      `the eigendecomposition of a matrix [${n}, ${n}] binds ${bytes} bytes and ${size} workgroups, this device allows ${most} and ${maxComputeWorkgroupsPerDimension}: use the CPU backend or a smaller matrix`,
    );
  }
}

/** Every buffer is in `held` from the moment it is there. */
async function allocate(gpu: GpuDevice, size: number, held: GpuAllocation[]): Promise<Buffers> {
  const make = async (label: string, bytes: number, usage: number, memoryClass: MemoryClass): Promise<GpuAllocation> => {
    const allocation = await gpu.memory.allocate({ label: `eigen ${label}`, size: bytes, usage, memoryClass });
    held.push(allocation);
    return allocation;
  };
  const storage = bufferUsage.storage | bufferUsage.copySrc | bufferUsage.copyDst;
  const matrixBytes = jacobiMatrixElements(size) * 4;
  return {
    matrices: [await make('matrix', matrixBytes, storage, 'arena'), await make('matrix', matrixBytes, storage, 'arena')],
    vectors: await make('vectors', size * size * 4, storage, 'arena'),
    check: await make('check', jacobiCheckWords(size) * 4, storage, 'arena'),
    whole: await make('product', size * size * 4, storage, 'arena'),
    shape: await make('shape', 16, bufferUsage.uniform | bufferUsage.copyDst, 'constants'),
  };
}

/** The scaled matrix with round 0 to come, and the axes as the first vectors. */
async function upload(gpu: GpuDevice, buffers: Buffers, problem: EigenProblem, size: number, scale: number): Promise<void> {
  const axes = new Float32Array(size * size);
  for (let index = 0; index < size; index++) axes[index * (size + 1)] = 1;
  await gpu.uploader.write(buffers.matrices[0].buffer, 0, new Uint8Array(scaledMatrix(problem, size, scale).buffer));
  await gpu.uploader.write(buffers.matrices[0].buffer, size * size * 4, new Uint8Array(4));
  await gpu.uploader.write(buffers.vectors.buffer, 0, new Uint8Array(axes.buffer));
  await gpu.uploader.write(buffers.shape.buffer, 0, new Uint8Array(jacobiUniform(size).buffer));
}

/** [size, size], with zeros past n. */
function scaledMatrix({ n, matrix }: EigenProblem, size: number, scale: number): Float32Array<ArrayBuffer> {
  const scaled = new Float32Array(size * size);
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < n; column++) scaled[row * size + column] = (matrix[row * n + column] as number) / scale;
  }
  return scaled;
}

async function record(gpu: GpuDevice, { matrices, vectors, check, shape }: Buffers, size: number): Promise<Sweeps> {
  const round = jacobiRoundKernel(size);
  const ending = jacobiCheckKernel(size);
  const [turn, look] = await Promise.all([gpu.pipelines.get(round), gpu.pipelines.get(ending)]);
  const [a, b] = matrices;
  const turns = [
    [a, b],
    [b, a],
  ].map(([from, to], index) => gpu.pipelines.bindGroup(round, [from as GpuAllocation, to as GpuAllocation, vectors, shape], `eigen round ${index}`));
  const looks = matrices.map((matrix) => gpu.pipelines.bindGroup(ending, [matrix, check, shape], 'eigen check'));
  const recorder = new Recorder();
  for (const start of [0, 1]) {
    for (let index = 0; index < size - 1; index++) {
      recorder.add({ label: 'jacobi round', pipeline: turn, bindGroup: turns[(start + index) % 2] as GPUBindGroup, grid: round.workgroups });
    }
    recorder.add({ label: 'jacobi check', pipeline: look, bindGroup: looks[1 - start] as GPUBindGroup, grid: ending.workgroups });
  }
  return { recorder, size };
}

/** Submits the sweep that starts in matrix `start`; the ticket gives its check. */
function submitSweep(gpu: GpuDevice, ring: ReadbackRing, { recorder, size }: Sweeps, check: GpuAllocation, start: number): ReadbackTicket {
  gpu.check();
  const first = start * size;
  const end = first + size;
  const perSubmit = Math.max(1, Math.floor(bytesPerSubmit / (16 * size * size)));
  for (let from = first; ; from += perSubmit) {
    const last = from + perSubmit >= end;
    const encoder = gpu.device.createCommandEncoder({ label: 'eigen sweep' });
    if (last) encoder.clearBuffer(check.buffer, 0, 4);
    const pass = encoder.beginComputePass();
    recorder.record(pass, from, Math.min(from + perSubmit, end));
    pass.end();
    const ticket = last ? ring.copyInto(encoder, check.buffer, 0, jacobiCheckWords(size) * 4) : undefined;
    gpu.queue.submit([encoder.finish()]);
    if (ticket !== undefined) return ticket;
  }
}

/** [n, n], without the index that an odd n got. */
async function readVectors(gpu: GpuDevice, ring: ReadbackRing, { vectors }: Buffers, n: number, size: number): Promise<Float32Array<ArrayBuffer>> {
  const encoder = gpu.device.createCommandEncoder({ label: 'eigenvectors' });
  const ticket = ring.copyInto(encoder, vectors.buffer, 0, size * n * 4);
  gpu.queue.submit([encoder.finish()]);
  const rows = new Float32Array(await ticket.read());
  return size === n ? rows : Float32Array.from({ length: n * n }, (_, index) => rows[index + Math.floor(index / n)] as number);
}

/** Products of matrices [n, n] in the buffers of the rounds, which are over. */
async function products(gpu: GpuDevice, ring: ReadbackRing, { matrices, vectors: part, whole, shape }: Buffers, n: number): Promise<TransposedProduct> {
  const kernel = jacobiProductKernel(n);
  const pipeline = await gpu.pipelines.get(kernel);
  const [left, right] = matrices;
  const recorder = new Recorder();
  recorder.add({ label: 'jacobi product', pipeline, bindGroup: gpu.pipelines.bindGroup(kernel, [left, right, whole, part, shape]), grid: kernel.workgroups });
  await gpu.uploader.write(shape.buffer, 0, new Uint8Array(Uint32Array.of(n, 0, 0, 0).buffer));
  return async (p, q) => {
    await gpu.uploader.write(left.buffer, 0, new Uint8Array(p.buffer));
    await gpu.uploader.write(right.buffer, 0, new Uint8Array(q.buffer));
    const encoder = gpu.device.createCommandEncoder({ label: 'eigen product' });
    const pass = encoder.beginComputePass();
    recorder.record(pass);
    pass.end();
    const tickets = [whole, part].map(({ buffer }) => ring.copyInto(encoder, buffer, 0, n * n * 4));
    gpu.queue.submit([encoder.finish()]);
    const [wholes = new ArrayBuffer(), parts = new ArrayBuffer()] = await Promise.all(tickets.map((ticket) => ticket.read()));
    const rest = new Float32Array(parts);
    return Float64Array.from(new Int32Array(wholes), (count, index) => count * productUnit + (rest[index] as number));
  };
}
