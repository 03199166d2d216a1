import { byteLengthOf, dtypes } from '../core/dtype.js';
import { ArgumentError } from '../core/errors.js';
import { roundUp, type TensorType } from '../core/tensor.js';
import { bufferUsage } from '../gpu/constants.js';
import type { GpuDevice } from '../gpu/device.js';
import type { GpuAllocation } from '../gpu/memory.js';
import { maxGridAxis } from '../kernels/template.js';
import { rowGroup } from '../kernels/weights.js';
import { isBlockType, type WeightLayout, weightLayout } from '../kernels/weights-layout.js';
import { rearrangeKernel, rearrangeParams, rearrangeThreads, threadsOfBlock } from '../kernels/weights-rearrange.js';

/** Below this many bytes of rows a thread of the host is done sooner than a kernel is compiled. */
const leastBytes = 1 << 20;

/** Most room for rows on their way; a group of longer ones gets more. */
const stagingBytes = 16 << 20;

interface Staging {
  readonly rows: GpuAllocation;
  readonly params: GpuAllocation;
}

/**
 * Uploads rows of packed weights as they are in the file and rearranges them on the device. One buffer takes all rows: the queue keeps writes and dispatches in order. It is freed by
 * `release`, which whoever has uploaded a model calls.
 */
export class WeightUpload {
  readonly #gpu: GpuDevice;
  readonly #leastBytes: number;
  #staging: Staging | undefined;
  /** Writes take turns: they share the room. */
  #turn: Promise<void> = Promise.resolve();
  #writing = 0;
  #releasing = false;

  constructor(gpu: GpuDevice, options: { readonly leastBytes?: number } = {}) {
    this.#gpu = gpu;
    this.#leastBytes = options.leastBytes ?? leastBytes;
  }

  /** Whether rows of this type and size are better rearranged by the device. */
  takes({ dtype }: TensorType, byteLength: number): boolean {
    return isBlockType(dtype) && byteLength >= this.#leastBytes;
  }

  /** Whole rows in ggml's layout, from `firstRow` of a weight (or of one shard of it, of this type) on, into its storage. `rows` may be reused when the promise resolves. */
  async write(target: GPUBuffer, type: TensorType, firstRow: number, rows: Uint8Array): Promise<void> {
    const before = this.#turn;
    const work = before.catch(() => undefined).then(() => this.#writeAll(target, type, firstRow, rows));
    this.#turn = work;
    this.#writing++;
    try {
      await work;
    } finally {
      this.#writing--;
      if (this.#releasing) this.release();
    }
  }

  /** Pieces that the room takes, each of whole groups of rows. */
  async #writeAll(target: GPUBuffer, type: TensorType, firstRow: number, rows: Uint8Array): Promise<void> {
    const layout = weightLayout(type);
    const rowBytes = byteLengthOf(layout.dtype, layout.columns);
    const most = Math.max(rowGroup, Math.floor(stagingBytes / rowBytes / rowGroup) * rowGroup);
    for (let done = 0; done * rowBytes < rows.byteLength; done += most) {
      await this.#writePiece(target, layout, firstRow + done, rows.subarray(done * rowBytes, (done + most) * rowBytes));
    }
  }

  async #writePiece(target: GPUBuffer, layout: WeightLayout, firstRow: number, rows: Uint8Array): Promise<void> {
    if (!isBlockType(layout.dtype)) throw new ArgumentError('type', `${layout.dtype} has no blocks to rearrange`);
    const gpu = this.#gpu;
    const kernel = rearrangeKernel(layout.dtype);
    const pipeline = await gpu.pipelines.get(kernel);
    const staging = this.#room(roundUp(rows.byteLength, 4));
    const blocks = rows.byteLength / dtypes[layout.dtype].bytes;
    const params = new Uint32Array(rearrangeParams);
    params[0] = blocks;
    layout.planes.forEach((plane, index) => {
      params[4 + index] = (plane.offset + firstRow * plane.rowBytes) / 4;
    });
    await gpu.uploader.write(staging.rows.buffer, 0, rows);
    gpu.queue.writeBuffer(staging.params.buffer, 0, params);
    const bindGroup = gpu.pipelines.bindGroup(kernel, [{ buffer: staging.rows.buffer }, { buffer: target }, { buffer: staging.params.buffer }]);
    const groups = Math.ceil((blocks * threadsOfBlock[layout.dtype]) / rearrangeThreads);
    const width = Math.min(groups, maxGridAxis);
    const encoder = gpu.device.createCommandEncoder({ label: kernel.key });
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(width, Math.ceil(groups / width));
    pass.end();
    gpu.queue.submit([encoder.finish()]);
  }

  /** Gives the room for rows back, once the writes that are on their way are done; the next one takes new. */
  release(): void {
    this.#releasing = this.#writing > 0;
    if (!this.#releasing) this.#free();
  }

  #free(): void {
    this.#staging?.rows.free();
    this.#staging?.params.free();
    this.#staging = undefined;
  }

  #room(byteLength: number): Staging {
    if (this.#staging !== undefined && this.#staging.rows.size >= byteLength) return this.#staging;
    this.#free();
    const rows = this.#gpu.memory.allocateNow({ label: 'rows', size: byteLength, usage: bufferUsage.storage | bufferUsage.copyDst, memoryClass: 'staging' });
    const params = this.#gpu.memory.allocateNow({
      label: 'planes of rows',
      size: rearrangeParams * 4,
      usage: bufferUsage.uniform | bufferUsage.copyDst,
      memoryClass: 'staging',
    });
    this.#staging = { rows, params };
    return this.#staging;
  }
}
