/** Host to device, for weights: in pieces, with the queue kept moving. */

import { ArgumentError } from '../core/errors.js';
import { roundUp } from '../core/tensor.js';
import type { DeviceHealth } from './health.js';

/** One `writeBuffer`: large enough that its fixed cost vanishes, small enough to bound staging. */
const pieceBytes = 16 << 20;
/** Dawn keeps the staging memory of a write until the next submit: 400 writes of 16 MB without one held 6.9 GB. */
const submitBytes = 64 << 20;
/** Bytes on their way after which `write` waits for the device. */
const highWaterBytes = 256 << 20;

/** The bytes in memory of one thread: Dawn in Node ends the process where `writeBuffer` is given memory that threads share (webgpu 0.6.2). */
export function unsharedBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer ? (bytes as Uint8Array<ArrayBuffer>) : Uint8Array.from(bytes);
}

export class Uploader {
  readonly #queue: GPUQueue;
  readonly #health: DeviceHealth;
  #sinceSubmit = 0;
  #sinceWait = 0;

  constructor(queue: GPUQueue, health: DeviceHealth) {
    this.#queue = queue;
    this.#health = health;
  }

  /**
   * Writes `data` at byte `offset` of `buffer`. `data` may be reused when the promise resolves. Where its length is no multiple of 4, up to three zero bytes
   * follow it.
   */
  async write(buffer: GPUBuffer, offset: number, data: Uint8Array): Promise<void> {
    this.#health.check();
    if (offset % 4 !== 0 || offset < 0) throw new ArgumentError('offset', `WebGPU writes at multiples of 4 bytes, got ${offset}`);
    const end = offset + roundUp(data.byteLength, 4);
    if (end > buffer.size) throw new ArgumentError('data', `${data.byteLength} bytes at ${offset} end at ${end}, past the buffer's ${buffer.size}`);
    const whole = data.byteLength - (data.byteLength % 4);
    for (let done = 0; done < whole; done += pieceBytes) {
      const length = Math.min(pieceBytes, whole - done);
      this.#queue.writeBuffer(buffer, offset + done, unsharedBytes(data.subarray(done, done + length)));
      await this.#count(length);
    }
    if (whole === data.byteLength) return;
    const tail = new Uint8Array(4);
    tail.set(data.subarray(whole));
    this.#queue.writeBuffer(buffer, offset + whole, tail);
    await this.#count(4);
  }

  /** Waits until everything written so far has arrived. */
  async flush(): Promise<void> {
    this.#queue.submit([]);
    this.#sinceSubmit = 0;
    this.#sinceWait = 0;
    await this.#queue.onSubmittedWorkDone().catch(async (error: unknown) => {
      throw await this.#health.explain(error, 'an upload');
    });
    this.#health.check();
  }

  async #count(bytes: number): Promise<void> {
    this.#sinceSubmit += bytes;
    this.#sinceWait += bytes;
    if (this.#sinceWait >= highWaterBytes) {
      await this.flush();
    } else if (this.#sinceSubmit >= submitBytes) {
      this.#queue.submit([]);
      this.#sinceSubmit = 0;
    }
  }
}
