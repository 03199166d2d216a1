import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { foldPartials, type MatrixView, tiledReduce2d, tiledReducePartial } from '../../src/compute/tiled/reduce.js';
import { MaxOp, MinOp, type ReduceOp, SumOp } from '../../src/compute/tiled/reduce-op.js';
import { bytesOf } from '../../src/core/bytes.js';
import { TensorView } from '../../src/core/views/tensor-view.js';
import { bufferUsage } from '../../src/gpu/constants.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { tiledReduceKernel, tiledReducePartials, tiledReduceUniform } from '../../src/kernels/tiled-reduce.js';

let gpu: GpuDevice;

beforeAll(async () => {
  gpu = await GpuDevice.request({ checked: true });
});

afterAll(() => gpu.dispose());

const ops = [SumOp, MaxOp, MinOp];
const usage = bufferUsage.storage | bufferUsage.copyDst | bufferUsage.copySrc;

/** The partials of a strided view, computed by the kernel. */
async function onDevice(op: ReduceOp, view: TensorView<Float32Array<ArrayBuffer>>, maxWorkgroups?: number): Promise<Float32Array> {
  const [rows, columns] = [view.dim(0), view.dim(1)];
  const shape = { rows, columns, offset: view.offset, rowStride: view.stride(0), columnStride: view.stride(1) };
  const kernel = tiledReduceKernel(op.name, shape, maxWorkgroups);
  const pipeline = await gpu.pipelines.get(kernel);
  const matrix = await gpu.memory.allocate({ label: 'matrix', size: view.data.byteLength, usage, memoryClass: 'arena' });
  const partials = await gpu.memory.allocate({ label: 'partials', size: 4 * tiledReducePartials(shape), usage, memoryClass: 'arena' });
  const uniform = await gpu.memory.allocate({ label: 'shape', size: 32, usage: bufferUsage.uniform | bufferUsage.copyDst, memoryClass: 'constants' });
  const ring = gpu.createReadback({ depth: 1 });
  await gpu.uploader.write(matrix.buffer, 0, bytesOf(view.data));
  gpu.queue.writeBuffer(uniform.buffer, 0, tiledReduceUniform(shape, maxWorkgroups));
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, gpu.pipelines.bindGroup(kernel, [matrix, partials, uniform]));
  pass.dispatchWorkgroups(...kernel.workgroups);
  pass.end();
  const ticket = ring.copyInto(encoder, partials.buffer, 0, partials.size);
  gpu.queue.submit([encoder.finish()]);
  const result = new Float32Array(await ticket.read());
  ring.dispose();
  matrix.free();
  partials.free();
  uniform.free();
  return result;
}

/** Bit patterns; one for every NaN, whose sign no standard fixes. */
function bits(values: Float32Array): Uint32Array {
  return new Uint32Array(values.map((value) => (Number.isNaN(value) ? Number.NaN : value)).buffer);
}

/** Numbers of all magnitudes, in an order that is the same in every run. */
function mixed(count: number, seed = 1): Float32Array<ArrayBuffer> {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state / 2 ** 31 - 1) * 10 ** ((state >>> 8) % 7);
  });
}

async function expectSameBits(view: TensorView<Float32Array<ArrayBuffer>>): Promise<void> {
  for (const op of ops) {
    const wanted = tiledReducePartial(op, view as MatrixView);
    const got = await onDevice(op, view);
    expect(bits(got)).toEqual(bits(wanted));
    expect(foldPartials(op, got)).toBe(tiledReduce2d(op, view as MatrixView));
  }
}

describe('the kernel of tiled reductions', () => {
  it.each([
    [1, 1],
    [4, 4],
    [16, 16],
    [32, 32],
    [20, 20],
    [5, 100],
    [100, 5],
    [11, 9],
    [17, 17],
    [64, 64],
    [129, 255],
  ])('gives the bits of the CPU for %i rows of %i', async (rows, columns) => {
    await expectSameBits(TensorView.over(mixed(rows * columns), [rows, columns]));
  });

  it('does so for slices, transposes, flips and broadcasts', async () => {
    const matrix = TensorView.over(mixed(40 * 56), [40, 56]);
    await expectSameBits(matrix.slice(3, 38).sliceDim(1, 5, 50));
    await expectSameBits(matrix.transpose(0, 1).slice(7));
    await expectSameBits(matrix.flip(0).flip(1));
    await expectSameBits(matrix.slice(2, 3).broadcastTo([33, 56]));
  });

  it('does so for zeros of both signs, infinities and negative numbers alone', async () => {
    const special = [0, -0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 3.4028234663852886e38, -3.4028234663852886e38, 1.1754943508222875e-38, -1];
    for (const chosen of [[-0], [-0, 0], [Number.NEGATIVE_INFINITY], [Number.POSITIVE_INFINITY], [-3, -5], special]) {
      await expectSameBits(
        TensorView.over(
          mixed(19 * 23).map((_, index) => chosen[index % chosen.length] ?? 0),
          [19, 23],
        ),
      );
    }
  });

  it('lets NaN through in sums and passes over it in maxima and minima', async () => {
    const view = TensorView.over(
      new Float32Array(20 * 20).map((_, index) => (index % 3 === 0 ? Number.NaN : index)),
      [20, 20],
    );
    await expectSameBits(view);
    await expectSameBits(TensorView.over(new Float32Array(20 * 20).fill(Number.NaN), [20, 20]));
    expect(foldPartials(SumOp, await onDevice(SumOp, view))).toBeNaN();
    expect(foldPartials(MaxOp, await onDevice(MaxOp, view))).toBe(398);
  });

  it('keeps subnormal maxima and minima', async () => {
    const view = TensorView.over(new Float32Array([2 ** -149, -(2 ** -149), 2 ** -140, 0]), [2, 2]);
    for (const op of [MaxOp, MinOp]) expect(bits(await onDevice(op, view))).toEqual(bits(tiledReducePartial(op, view as MatrixView)));
  });

  it('takes several rows of workgroups where the tiles are too many for one', async () => {
    const view = TensorView.over(mixed(49 * 70), [49, 70]);
    for (const op of ops) expect(bits(await onDevice(op, view, 7))).toEqual(bits(tiledReducePartial(op, view as MatrixView)));
    const shape = { rows: 49, columns: 70 };
    expect(tiledReduceKernel('sum', shape, 7).workgroups).toEqual([7, 3, 1]);
    expect(tiledReduceKernel('sum', shape, 6).workgroups).toEqual([5, 4, 1]);
    expect(tiledReduceKernel('sum', { rows: 16 * 65_536, columns: 16 }).workgroups).toEqual([32_768, 2, 1]);
  });

  it('compiles once for each operation, whatever the shapes', () => {
    expect(gpu.pipelines.stats).toMatchObject({ compiles: 3, size: 3 });
  });
});
