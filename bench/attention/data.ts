/** Caches with random contents and attention over them in f64. */

import type { GpuDevice } from '../../src/gpu/device.js';
import { halfToFloat } from '../../src/quant/half.js';
import { randomHalves, storageBuffer } from '../gpu-timer.js';

/** Halves after which a cache repeats: no multiple of a power of two, so that no two rows are alike. */
const period = 999_992;

/** f16 in (-1, 1), repeated over a buffer on the device. */
export class HalfPattern {
  readonly values: Float32Array;
  readonly #source: GPUBuffer;
  readonly #gpu: GpuDevice;

  constructor(gpu: GpuDevice, seed: number) {
    const bits = randomHalves(period, seed);
    this.#gpu = gpu;
    this.#source = storageBuffer(gpu, period * 2);
    gpu.queue.writeBuffer(this.#source, 0, bits);
    this.values = Float32Array.from(bits, halfToFloat);
  }

  /** A buffer of `count` halves. */
  filled(count: number): GPUBuffer {
    const size = Math.ceil(count / 2) * 4;
    const buffer = storageBuffer(this.#gpu, size);
    const encoder = this.#gpu.device.createCommandEncoder();
    for (let offset = 0; offset < size; offset += period * 2) encoder.copyBufferToBuffer(this.#source, 0, buffer, offset, Math.min(period * 2, size - offset));
    this.#gpu.queue.submit([encoder.finish()]);
    return buffer;
  }

  at(index: number): number {
    return this.values[index % period] ?? 0;
  }

  dispose(): void {
    this.#source.destroy();
  }
}

export interface ReferenceHead {
  readonly query: ArrayLike<number>;
  readonly scale: number;
  readonly length: number;
  key(position: number, column: number): number;
  value(position: number, column: number): number;
}

/** softmax(scale q k) v of one query in f64. */
export function attendHead({ query, scale, length, key, value }: ReferenceHead): Float64Array {
  const width = query.length;
  const scores = Float64Array.from({ length }, (_, position) => {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += (query[i] ?? 0) * key(position, i);
    return sum * scale;
  });
  const most = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const result = new Float64Array(width);
  let total = 0;
  for (let position = 0; position < length; position++) {
    const weight = Math.exp((scores[position] ?? 0) - most);
    total += weight;
    for (let i = 0; i < width; i++) result[i] = (result[i] ?? 0) + weight * value(position, i);
  }
  return result.map((sum) => sum / total);
}

/** Root mean square error relative to the reference's size. */
export function relativeError(got: ArrayLike<number>, wanted: Float64Array): number {
  let [squares, errors] = [0, 0];
  wanted.forEach((want, i) => {
    squares += want ** 2;
    errors += ((got[i] ?? Number.NaN) - want) ** 2;
  });
  return Math.sqrt(errors / squares);
}
