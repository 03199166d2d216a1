/**
 * The CPU backend's products: matrix times vector in GB/s of packed weights, matrix times matrix in GOP/s, and both for one pass of a model's shapes.
 * Arguments: rounds (default 5), then weight types (default: all).
 */

import { byteLengthOf, type DType } from '../src/core/dtype.js';
import type { Step } from '../src/core/step.js';
import { byteLengthOfType, type TensorType } from '../src/core/tensor.js';
import { CpuDevice, type CpuStep } from '../src/cpu/executor.js';
import { blockFormats, groupBytes, groupRows, isPackedType, packedTypes } from '../src/cpu/formats.js';
import type { CpuKernel } from '../src/cpu/kernel.js';
import { cpuTarget } from '../src/cpu/target.js';
import type { TensorRef } from '../src/ops/target.js';

/** [rows, columns] of the products of a 0.6-billion-parameter decoder: 28 layers of these, then the output matrix. */
const layerProducts = [
  [4096, 1024],
  [1024, 2048],
  [6144, 1024],
  [1024, 3072],
] as const;
const layers = 28;
const outputProduct = [151_936, 1024] as const;
const promptTokens = 128;

interface Product {
  run(): void;
  free(): void;
  readonly weightBytes: number;
}

function ref(id: number, type: TensorType): TensorRef {
  return { id, type, shards: [{ start: 0, rows: type.shape[0] ?? 1 }] };
}

/** A product on random weights; scales are ordinary f16 numbers, since subnormal ones are slower. */
async function product(device: CpuDevice, dtype: DType, rows: number, columns: number, tokens: number): Promise<Product> {
  const target = cpuTarget();
  const [x, w, y] = [
    ref(0, { dtype: 'f32', shape: [tokens, columns] }),
    ref(1, { dtype, shape: [rows, columns] }),
    ref(2, { dtype: 'f32', shape: [tokens, rows] }),
  ];
  const refs = [x, w, y];
  const steps: readonly Step<CpuKernel>[] = target.rules.linear(
    { op: 'linear', params: { bias: false, residual: false }, inputs: [x, w], output: y, label: 'bench', id: 2 },
    {
      scratch(type) {
        const made = ref(refs.length, type);
        refs.push(made);
        return made;
      },
    },
  );
  const allocations = refs.map((entry) => device.allocate('bench', 'arena', entry === w ? target.weights.byteLength(w.type) : byteLengthOfType(entry.type)));
  const [, weights] = allocations;
  if (weights !== undefined) device.write(weights.offset, randomBytes(target.weights.byteLength(w.type)));
  const input = allocations[0];
  if (input !== undefined) device.write(input.offset, new Uint8Array(Float32Array.from({ length: tokens * columns }, () => Math.random() - 0.5).buffer));
  const bound: CpuStep[] = steps.map(({ kernel, args }) => ({
    kernel,
    args: args.map(({ value }) => {
      const allocation = allocations[value];
      if (allocation === undefined) throw new Error(`argument ${value} has no bytes`);
      return { offset: allocation.offset, byteLength: allocation.size };
    }),
  }));
  const executable = await device.prepare(bound);
  return {
    run: () => executable.run(),
    free() {
      for (const allocation of allocations) allocation.free();
    },
    weightBytes: isPackedType(dtype) ? (rows / groupRows) * groupBytes(blockFormats[dtype], columns) : byteLengthOf(dtype, rows * columns),
  };
}

/** Any two bytes are an f16 near 0.0005, any four an f32 of ordinary size. */
function randomBytes(count: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(count / 4));
  let state = 1;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[i] = (state & 0x97979797) | 0x10101010;
  }
  return new Uint8Array(words.buffer, 0, count);
}

/** Median milliseconds of `rounds` runs, after enough for the engine's optimising compiler. */
async function time(run: () => void, rounds: number): Promise<number> {
  const warm = performance.now();
  do run();
  while (performance.now() - warm < 150);
  await new Promise((resolve) => setTimeout(resolve, 50));
  const times = Array.from({ length: rounds }, () => {
    const start = performance.now();
    run();
    return performance.now() - start;
  });
  return times.sort((a, b) => a - b)[rounds >> 1] ?? Number.NaN;
}

async function measure(dtype: DType, rounds: number): Promise<void> {
  const device = new CpuDevice();
  const [rows, columns] = outputProduct;
  const vector = await product(device, dtype, rows, columns, 1);
  const head = await time(vector.run, rounds);
  vector.free();
  let [decode, prompt, prepared] = [head, 0, 0];
  for (const [n, k] of layerProducts) {
    const start = performance.now();
    const [one, many] = [await product(device, dtype, n, k, 1), await product(device, dtype, n, k, promptTokens)];
    prepared += performance.now() - start;
    decode += layers * (await time(one.run, rounds * 3));
    prompt += layers * (await time(many.run, rounds));
    one.free();
    many.free();
  }
  device.dispose();
  const operations = 2 * promptTokens * layers * layerProducts.reduce((sum, [n, k]) => sum + n * k, 0);
  console.log(
    `${dtype.padEnd(5)} head ${head.toFixed(2)} ms ${(vector.weightBytes / head / 1e6).toFixed(1)} GB/s | decode ${decode.toFixed(1)} ms ${(1000 / decode).toFixed(1)} tok/s (small products from cache)` +
      ` | prompt ${prompt.toFixed(0)} ms ${((1000 * promptTokens) / prompt).toFixed(0)} tok/s ${(operations / prompt / 1e6).toFixed(1)} GOP/s | prepared in ${prepared.toFixed(0)} ms`,
  );
}

export async function run(args: string[]): Promise<void> {
  const rounds = Number(args[0] ?? 5);
  const wanted = args.slice(1);
  for (const dtype of [...packedTypes, 'f16', 'bf16', 'f32'] as const) {
    if (wanted.length === 0 || wanted.includes(dtype)) await measure(dtype, rounds);
  }
}
