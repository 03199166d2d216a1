/** Round-robin Jacobi in f32 on a WebGPU device: one dispatch a round, a few submits and one read a sweep. */

import { CentellaError, throwIfAborted, UnsupportedError } from '../core/errors.js';
import { bufferUsage } from '../gpu/constants.js';
import type { GpuDevice } from '../gpu/device.js';
import type { GpuAllocation, MemoryClass } from '../gpu/memory.js';
import type { ReadbackRing, ReadbackTicket } from '../gpu/readback.js';
import { Recorder } from '../gpu/recorder.js';
import { jacobiCheckKernel, jacobiCheckWords, jacobiMatrixElements, jacobiRoundKernel, jacobiUniform } from '../kernels/jacobi.js';
import type { EigenPair, EigenProblem } from './eigen-problem.js';

/** Bytes that the rounds of one submit read and write at most: half a second of a slow GPU, far from where an operating system takes it for hung. */
const bytesPerSubmit = 2 ** 34;

interface Buffers {
  /** The matrix before and after a round, in turns. */
  readonly matrices: readonly [GpuAllocation, GpuAllocation];
  readonly vectors: GpuAllocation;
  readonly check: GpuAllocation;
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
  const ring = gpu.createReadback({ depth: 1, label: 'eigen result' });
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
    const encoder = gpu.device.createCommandEncoder({ label: 'eigenvectors' });
    const ticket = ring.copyInto(encoder, buffers.vectors.buffer, 0, size * n * 4);
    gpu.queue.submit([encoder.finish()]);
    const vectors = new Float32Array(await ticket.read());
    const values = Float64Array.from({ length: n }, (_, i) => (check[1 + i] as number) * scale);
    return { values, component: (row, column) => vectors[row * size + column] as number, rest, sweeps: done };
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
    shape: await make('shape', 16, bufferUsage.uniform | bufferUsage.copyDst, 'constants'),
  };
}

/** The scaled matrix with round 0 to come, and the axes as the first vectors. */
async function upload(gpu: GpuDevice, buffers: Buffers, { n, matrix }: EigenProblem, size: number, scale: number): Promise<void> {
  const scaled = new Float32Array(jacobiMatrixElements(size));
  const axes = new Float32Array(size * size);
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < n; column++) scaled[row * size + column] = (matrix[row * n + column] as number) / scale;
  }
  for (let index = 0; index < size; index++) axes[index * (size + 1)] = 1;
  await gpu.uploader.write(buffers.matrices[0].buffer, 0, new Uint8Array(scaled.buffer));
  await gpu.uploader.write(buffers.vectors.buffer, 0, new Uint8Array(axes.buffer));
  await gpu.uploader.write(buffers.shape.buffer, 0, new Uint8Array(jacobiUniform(size).buffer));
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
