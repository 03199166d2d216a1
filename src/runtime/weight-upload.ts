import { byteLengthOf, dtypes } from '../core/dtype.js';
import { byteLengthOfType, roundUp, type TensorType } from '../core/tensor.js';
import { bufferUsage, mapModeWrite } from '../gpu/constants.js';
import type { GpuDevice } from '../gpu/device.js';
import type { GpuAllocation } from '../gpu/memory.js';
import { maxGridAxis } from '../kernels/template.js';
import { rowGroup } from '../kernels/weights.js';
import { type BlockType, isBlockType, type WeightLayout, weightLayout } from '../kernels/weights-layout.js';
import { rearrangeKernel, rearrangeParams, rearrangeThreads, threadsOfBlock } from '../kernels/weights-rearrange.js';

/** Weights of fewer bytes are written and rearranged by the host: that is done sooner than a kernel is compiled. */
const leastBytes = 1 << 20;

/** Room of a slot; longer groups of rows get more. */
const slotBytes = 8 << 20;

/** Slots: rows are copied into one while the device reads others, and knows of those that it has read a millisecond later. */
const slotCount = 6;

/** Memory of the host that the device copies from, mapped until rows are in it. */
interface Slot {
  readonly allocation: GpuAllocation;
  /** Until it may be written to (again). */
  readonly mapped: Promise<void>;
}

/** On the device: rows as they are in the file, and where their parts go. */
interface Room {
  readonly rows: GpuAllocation;
  readonly params: GpuAllocation;
}

/**
 * Brings rows of packed weights to the device as they are in the file, and rearranges them there. They go through a ring of mapped buffers: the queue's own way of writing copies them into new
 * memory each time, at a third of the speed. One room on the device takes all rows: the queue keeps copies and dispatches in order. Ring and room are freed by `release`, which whoever has uploaded
 * a model calls.
 */
export class WeightUpload {
  readonly #gpu: GpuDevice;
  readonly #leastBytes: number;
  /** Oldest first. */
  readonly #slots: Slot[] = [];
  #room: Room | undefined;
  /** Writes take turns: they share the room. */
  #turn: Promise<void> = Promise.resolve();
  #writing = 0;
  #releasing = false;

  constructor(gpu: GpuDevice, options: { readonly leastBytes?: number } = {}) {
    this.#gpu = gpu;
    this.#leastBytes = options.leastBytes ?? leastBytes;
  }

  /** Whether weights of this type are better brought this way: large ones whose rows are blocks, or are stored as they are. */
  takes(type: TensorType): boolean {
    return byteLengthOfType(type) >= this.#leastBytes && (isBlockType(type.dtype) || keepsRows(weightLayout(type)));
  }

  /** Compiles what writing weights of these types takes. */
  async warm(types: Iterable<TensorType>): Promise<void> {
    const dtypes = new Set([...types].filter((type) => this.takes(type)).map(({ dtype }) => dtype));
    await this.#gpu.pipelines.warm([...dtypes].filter(isBlockType).map(rearrangeKernel));
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

  /** Pieces that a slot takes, each of whole groups of rows. */
  async #writeAll(target: GPUBuffer, type: TensorType, firstRow: number, rows: Uint8Array): Promise<void> {
    const layout = weightLayout(type);
    const rowBytes = byteLengthOf(layout.dtype, layout.columns);
    const most = Math.max(rowGroup, Math.floor(slotBytes / rowBytes / rowGroup) * rowGroup);
    for (let done = 0; done * rowBytes < rows.byteLength; done += most) {
      await this.#writePiece(target, layout, firstRow + done, rows.subarray(done * rowBytes, (done + most) * rowBytes));
    }
  }

  async #writePiece(target: GPUBuffer, layout: WeightLayout, firstRow: number, rows: Uint8Array): Promise<void> {
    const gpu = this.#gpu;
    const { dtype } = layout;
    const pipeline = isBlockType(dtype) ? await gpu.pipelines.get(rearrangeKernel(dtype)) : undefined;
    const allocation = await this.#freeSlot(roundUp(rows.byteLength, 8));
    try {
      gpu.check();
      new Uint8Array(allocation.buffer.getMappedRange(0, roundUp(rows.byteLength, 8))).set(rows);
      allocation.buffer.unmap();
      const encoder = gpu.device.createCommandEncoder({ label: 'weights' });
      if (pipeline !== undefined && isBlockType(dtype))
        this.#rearrange(encoder, pipeline, dtype, allocation.buffer, target, paramsOf(layout, dtype, firstRow, rows.byteLength));
      else encoder.copyBufferToBuffer(allocation.buffer, 0, target, firstRow * (layout.planes[0]?.rowBytes ?? 0), rows.byteLength);
      gpu.queue.submit([encoder.finish()]);
    } catch (error) {
      allocation.free();
      throw error;
    }
    this.#slots.push(slotOf(allocation));
  }

  #rearrange(
    encoder: GPUCommandEncoder,
    pipeline: GPUComputePipeline,
    dtype: BlockType,
    rows: GPUBuffer,
    target: GPUBuffer,
    params: Uint32Array<ArrayBuffer>,
  ): void {
    const gpu = this.#gpu;
    const [blocks = 0] = params;
    const byteLength = roundUp(blocks * dtypes[dtype].bytes, 4);
    const room = this.#roomFor(byteLength);
    encoder.copyBufferToBuffer(rows, 0, room.rows.buffer, 0, byteLength);
    gpu.queue.writeBuffer(room.params.buffer, 0, params);
    const bindings = [{ buffer: room.rows.buffer }, { buffer: target }, { buffer: room.params.buffer }];
    const groups = Math.ceil((blocks * threadsOfBlock[dtype]) / rearrangeThreads);
    const width = Math.min(groups, maxGridAxis);
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, gpu.pipelines.bindGroup(rearrangeKernel(dtype), bindings));
    pass.dispatchWorkgroups(width, Math.ceil(groups / width));
    pass.end();
  }

  /** Gives slots and room back, once the writes that are on their way are done; the next one takes new. */
  release(): void {
    this.#releasing = this.#writing > 0;
    if (!this.#releasing) this.#free();
  }

  #free(): void {
    for (const { allocation } of this.#slots.splice(0)) allocation.free();
    this.#freeRoom();
  }

  #freeRoom(): void {
    this.#room?.rows.free();
    this.#room?.params.free();
    this.#room = undefined;
  }

  /** A buffer that is mapped and of nobody else: a new one while there may be more, else the oldest. */
  async #freeSlot(byteLength: number): Promise<GpuAllocation> {
    const oldest = this.#slots.length < slotCount ? undefined : this.#slots.shift();
    const fits = oldest !== undefined && oldest.allocation.size >= byteLength;
    if (!fits) oldest?.allocation.free();
    const { allocation, mapped } = fits ? oldest : slotOf(this.#allocateSlot(byteLength));
    try {
      await mapped;
    } catch (error) {
      allocation.free();
      throw await this.#gpu.health.explain(error, 'uploading weights');
    }
    return allocation;
  }

  #allocateSlot(byteLength: number): GpuAllocation {
    const usage = bufferUsage.mapWrite | bufferUsage.copySrc;
    return this.#gpu.memory.allocateNow({ label: 'rows on their way', size: Math.max(slotBytes, byteLength), usage, memoryClass: 'staging' });
  }

  #roomFor(byteLength: number): Room {
    if (this.#room !== undefined && this.#room.rows.size >= byteLength) return this.#room;
    this.#freeRoom();
    const { memory } = this.#gpu;
    const size = Math.max(slotBytes, byteLength);
    const rows = memory.allocateNow({ label: 'rows', size, usage: bufferUsage.storage | bufferUsage.copyDst, memoryClass: 'staging' });
    const usage = bufferUsage.uniform | bufferUsage.copyDst;
    this.#room = { rows, params: memory.allocateNow({ label: 'planes of rows', size: rearrangeParams * 4, usage, memoryClass: 'staging' }) };
    return this.#room;
  }
}

function slotOf(allocation: GpuAllocation): Slot {
  const mapped = allocation.buffer.mapAsync(mapModeWrite);
  // Heard by whoever waits for the slot.
  mapped.catch(() => undefined);
  return { allocation, mapped };
}

/** Whether rows of a plain type have no padding in their storage. */
function keepsRows({ dtype, columns, planes }: WeightLayout): boolean {
  const [plane] = planes;
  return planes.length === 1 && plane?.rowBytes === byteLengthOf(dtype, columns) && plane.rowBytes % 4 === 0;
}

function paramsOf(layout: WeightLayout, dtype: BlockType, firstRow: number, byteLength: number): Uint32Array<ArrayBuffer> {
  const params = new Uint32Array(rearrangeParams);
  params[0] = byteLength / dtypes[dtype].bytes;
  layout.planes.forEach((plane, index) => {
    params[4 + index] = (plane.offset + firstRow * plane.rowBytes) / 4;
  });
  return params;
}
