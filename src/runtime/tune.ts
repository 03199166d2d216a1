/** Measures the shapes that a decode step's products could have on a device, by the device's clock. */

import type { GpuCapabilities } from '../core/capabilities.js';
import { DeviceError, throwIfAborted } from '../core/errors.js';
import type { GpuKernel } from '../core/kernel.js';
import { adapterKey, productKey, type TunedProduct, type Tuning, tuningVersion } from '../core/tuning.js';
import type { GpuDevice } from '../gpu/device.js';
import { profile } from '../gpu/profiler.js';
import { Recorder } from '../gpu/recorder.js';
import type { Graph } from '../graph/graph.js';
import { type ProductProblem, type ProductShape, productKernel } from '../kernels/decode/product.js';
import type { ActivationChoice } from '../kernels/decode/select.js';
import { selectProduct } from '../kernels/decode/select.js';
import { needsOf, productCandidates, tunedName } from '../kernels/decode/tuned.js';
import { gpuTarget } from '../kernels/target.js';
import { lower } from '../plan/lower.js';
import { bindProduct, freeProductData, makeProductData, type ProductData } from './tune-data.js';

export interface TuneOptions {
  /** Most shapes that are tried beside the shipped one, spread over the grid. Default: all. */
  readonly candidates?: number;
  readonly signal?: AbortSignal;
}

export interface TuneResult {
  readonly product: TunedProduct;
  /** Of one dispatch with the shipped shape. */
  readonly shippedMicroseconds: number;
  /** Shapes that were measured, the shipped one too. */
  readonly measured: number;
  /** Shapes that were faster and gave other results: none, on a sound driver. */
  readonly wrong: number;
}

/** Gains below this are within the spread of measurements: the shipped shape stays. */
const leastGain = 0.02;
/** Dispatches of a shape in one pass. */
const dispatches = { hardware: 48, software: 4 } as const;
/** Relative to the largest result: what another order of f32 sums may differ by. */
const tolerance = 1e-4;

/** The fused products of a decode step, each once. Pure. */
export function decodeProducts(graph: Graph, capabilities: GpuCapabilities, activations: ActivationChoice): readonly ProductProblem[] {
  const found = new Map<string, ProductProblem>();
  const onProduct = (problem: ProductProblem): void => {
    const key = productKey(tunedName(problem));
    if (!found.has(key)) found.set(key, problem);
  };
  lower(graph, gpuTarget(capabilities, { activations, onProduct }));
  return [...found.values()];
}

export function tuningOf(capabilities: GpuCapabilities, products: readonly TunedProduct[]): Tuning {
  return { version: tuningVersion, adapter: adapterKey(capabilities), products };
}

/**
 * The fastest shape of a product whose results agree with the shipped shape's; many dispatches of each in one pass, each with weights that no cache holds.
 * @throws UnsupportedError where the device has no timestamp queries, OutOfMemoryError where the weights have no room, AbortedError.
 */
export async function tuneProduct(gpu: GpuDevice, problem: ProductProblem, options: TuneOptions = {}): Promise<TuneResult> {
  throwIfAborted(options.signal, 'tuning');
  const name = tunedName(problem);
  const shipped = selectProduct(needsOf(name), gpu.capabilities);
  const shapes = [shipped, ...spread(productCandidates(problem, gpu.capabilities), options.candidates)];
  const data = await makeProductData(gpu, problem);
  try {
    const times = await timeShapes(gpu, problem, shapes, data);
    throwIfAborted(options.signal, 'tuning');
    const shippedMicroseconds = times[0] ?? 0;
    const faster = shapes
      .map((shape, index) => ({ shape, microseconds: times[index] ?? 0 }))
      .filter(({ microseconds }) => microseconds > 0 && microseconds < shippedMicroseconds * (1 - leastGain))
      .sort((a, b) => a.microseconds - b.microseconds);
    let wrong = 0;
    const wanted = await resultsOf(gpu, problem, shipped, data);
    for (const { shape, microseconds } of faster) {
      if (agree(await resultsOf(gpu, problem, shape, data), wanted))
        return { product: { ...name, shape: numbersOf(shape), microseconds }, shippedMicroseconds, measured: shapes.length, wrong };
      wrong++;
    }
    return { product: { ...name, shape: numbersOf(shipped), microseconds: shippedMicroseconds }, shippedMicroseconds, measured: shapes.length, wrong };
  } finally {
    freeProductData(data);
  }
}

/** At most `most` of the items, evenly spread. */
function spread<T>(items: readonly T[], most = items.length): readonly T[] {
  return items.length <= most
    ? items
    : items.filter((_, index) => Math.floor((index * most) / items.length) !== Math.floor(((index - 1) * most) / items.length));
}

function numbersOf({ subgroups, lanes, rows, together, split, ahead }: ProductShape): TunedProduct['shape'] {
  return { subgroups, lanes, rows, together, split, ahead };
}

/** Microseconds of a dispatch of each shape; passes of all shapes follow each other several times, and the median of each counts. */
async function timeShapes(gpu: GpuDevice, problem: ProductProblem, shapes: readonly ProductShape[], data: ProductData): Promise<number[]> {
  const recorder = new Recorder();
  const each = Math.max(data.weights.length, dispatches[gpu.capabilities.software ? 'software' : 'hardware']);
  const kernels = shapes.map((shape) => productKernel(problem, shape));
  const pipelines = await Promise.all(kernels.map((kernel) => gpu.pipelines.get(kernel)));
  kernels.forEach((kernel, index) => {
    const pipeline = pipelines[index];
    if (pipeline === undefined) throw new DeviceError('E_DEVICE', `${kernel.key} has no pipeline`);
    const groups = data.weights.map((_, copy) => gpu.pipelines.bindGroup(kernel, bindProduct(problem, data, copy)));
    for (let i = 0; i < each; i++) {
      const bindGroup = groups[i % groups.length];
      if (bindGroup !== undefined) recorder.add({ label: kernel.family, kind: kernel.key, pipeline, bindGroup, grid: kernel.workgroups });
    }
  });
  const times = await profile(gpu, recorder);
  return shapes.map((_, index) => (times[index * each]?.ns ?? 0) / 1e3);
}

/** The f32 results of one run with the first weights. */
async function resultsOf(gpu: GpuDevice, timed: ProductProblem, shape: ProductShape, data: ProductData): Promise<Float32Array> {
  const problem: ProductProblem = { ...timed, plain: true };
  const kernel: GpuKernel = productKernel(problem, shape);
  const pipeline = await gpu.pipelines.get(kernel);
  const recorder = new Recorder();
  recorder.add({ label: kernel.family, pipeline, bindGroup: gpu.pipelines.bindGroup(kernel, bindProduct(problem, data, 0)), grid: kernel.workgroups });
  const readback = gpu.createReadback({ depth: 1, label: 'tune' });
  try {
    const encoder = gpu.device.createCommandEncoder({ label: 'tune' });
    const output = data.outputs[0];
    if (output === undefined) throw new DeviceError('E_DEVICE', 'a product has no output to read');
    encoder.clearBuffer(output.buffer);
    const pass = encoder.beginComputePass();
    recorder.record(pass);
    pass.end();
    const ticket = readback.copyInto(encoder, output.buffer, 0, needsOf(tunedName(problem)).results * 4);
    gpu.queue.submit([encoder.finish()]);
    return new Float32Array(await ticket.read());
  } finally {
    readback.dispose();
  }
}

/** Whether two vectors are equal but for the order of sums; NaN agrees with nothing. */
export function agree(got: Float32Array, wanted: Float32Array): boolean {
  const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return got.length === wanted.length && wanted.every((value, i) => Math.abs((got[i] ?? Number.NaN) - value) <= tolerance * largest);
}
