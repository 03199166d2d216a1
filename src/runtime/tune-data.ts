/** What a product is measured with: weights in several copies, so that no cache holds them between dispatches, and activations in their 8-bit form. */

import { byteLengthOfType, roundUp } from '../core/tensor.js';
import { bufferUsage } from '../gpu/constants.js';
import type { GpuDevice } from '../gpu/device.js';
import type { GpuAllocation } from '../gpu/memory.js';
import { Recorder } from '../gpu/recorder.js';
import { activationParts, activationType } from '../kernels/decode/activations.js';
import type { ProductProblem } from '../kernels/decode/product.js';
import { noiseKernel } from '../kernels/noise.js';

/** Bytes of weights that are read before the first are read again: more than caches hold. */
const leastBytes = { hardware: 256e6, software: 0 } as const;
const mostCopies = 48;

export interface ProductData {
  readonly x: GpuAllocation;
  /** One buffer a matrix, by copies. */
  readonly weights: readonly (readonly GpuAllocation[])[];
  /** f32 numbers in [-1, 1): biases, residual and gain. */
  readonly vector: GpuAllocation;
  readonly outputs: readonly GpuAllocation[];
}

export function freeProductData({ x, weights, vector, outputs }: ProductData): void {
  for (const allocation of [x, vector, ...weights.flat(), ...outputs]) allocation.free();
}

export async function makeProductData(gpu: GpuDevice, { depth, matrices }: ProductProblem): Promise<ProductData> {
  const made: GpuAllocation[] = [];
  const allocate = async (label: string, size: number): Promise<GpuAllocation> => {
    const usage = bufferUsage.storage | bufferUsage.copySrc | bufferUsage.copyDst;
    const allocation = await gpu.memory.allocate({ label: `tune ${label}`, size: roundUp(size, 256), usage, memoryClass: 'staging' });
    made.push(allocation);
    return allocation;
  };
  const bytes = matrices.reduce((sum, { layout }) => sum + layout.byteLength, 0);
  const rows = matrices.reduce((sum, { layout }) => sum + layout.rows, 0);
  const copies = Math.min(mostCopies, Math.max(2, Math.ceil(leastBytes[gpu.capabilities.software ? 'software' : 'hardware'] / bytes)));
  try {
    const weights: GpuAllocation[][] = [];
    for (let copy = 0; copy < copies; copy++) {
      const set: GpuAllocation[] = [];
      for (const { layout } of matrices) set.push(await allocate('weights', layout.byteLength));
      weights.push(set);
    }
    await fill(gpu, weights.flat());
    const x = await allocate('activations', byteLengthOfType(activationType(depth)));
    const vector = await allocate('vector', rows * 4);
    await gpu.uploader.write(x.buffer, 0, activations(depth));
    const numbers = Float32Array.from({ length: rows }, (_, i) => ((Math.imul(i + 1, 1_664_525) >>> 8) & 0xffff) / 0x8000 - 1);
    await gpu.uploader.write(vector.buffer, 0, new Uint8Array(numbers.buffer));
    // f32 results, their 8-bit form, or pairs of 8 bytes.
    const outputs = [await allocate('output', rows * 8), await allocate('output', rows * 8), await allocate('output', rows * 8)];
    return { x, weights, vector, outputs };
  } catch (error) {
    for (const allocation of made) allocation.free();
    throw error;
  }
}

/** Activations of `depth` values in [-1, 1), in the form that activations.ts describes. */
function activations(depth: number): Uint8Array {
  const bytes = new Uint8Array(roundUp(byteLengthOfType(activationType(depth)), 16));
  const view = new DataView(bytes.buffer);
  const { odd, scales, squares } = activationParts(depth);
  for (let block = 0; block < depth / 16; block++) {
    let sum = 0;
    let square = 0;
    for (let i = 0; i < 16; i++) {
      const quant = ((Math.imul(block * 16 + i + 1, 2_654_435_761) >>> 9) % 255) - 127;
      view.setInt8(((block & 1) * odd + (block >> 1)) * 16 + i, quant);
      sum += quant;
      square += (quant / 127) ** 2;
    }
    view.setFloat32(scales * 16 + block * 8, 1 / 127, true);
    view.setFloat32(scales * 16 + block * 8 + 4, sum / 127, true);
    view.setFloat32(squares * 16 + block * 4, square, true);
  }
  return bytes;
}

async function fill(gpu: GpuDevice, buffers: readonly GpuAllocation[]): Promise<void> {
  const recorder = new Recorder();
  for (const { buffer, size, label } of buffers) {
    const kernel = noiseKernel(size / 4);
    recorder.add({ label, pipeline: await gpu.pipelines.get(kernel), bindGroup: gpu.pipelines.bindGroup(kernel, [{ buffer }]), grid: kernel.workgroups });
  }
  const encoder = gpu.device.createCommandEncoder({ label: 'tune weights' });
  const pass = encoder.beginComputePass();
  recorder.record(pass);
  pass.end();
  gpu.queue.submit([encoder.finish()]);
  await gpu.idle();
}

/** The buffers of a product's bindings, in order: activations, weights, biases, residual, gain, outputs. */
export function bindProduct(problem: ProductProblem, { x, weights, vector, outputs }: ProductData, copy: number): { readonly buffer: GPUBuffer }[] {
  const { matrices, end, packed, plain, best } = problem;
  const vectors = matrices.filter(({ bias }) => bias).length + Number(end === 'residual') + Number(packed === 'gain');
  const written = Number(plain) + Number(packed !== 'none') + Number(best);
  return [x, ...(weights[copy] ?? []), ...new Array<GpuAllocation>(vectors).fill(vector), ...outputs.slice(0, written)].map(({ buffer }) => ({ buffer }));
}
