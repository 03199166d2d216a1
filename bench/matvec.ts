/**
 * Weights times one row, over a ladder of sizes and weight types, as a decode step does them: with 8-bit activations where the device multiplies them, and with f32 ones. Device time of many
 * products in one pass, each with weights of its own, so that no cache holds them; GB/s count the weights' bytes.
 * Arguments: --type=q4_k,... --size=NxK,... (outputs by inputs) --checked.
 */

import { byteLengthOfType, type TensorType } from '../src/core/tensor.js';
import { GpuDevice } from '../src/gpu/device.js';
import { GraphBuilder } from '../src/graph/builder.js';
import { gpuTarget } from '../src/kernels/target.js';
import type { PackedWrite } from '../src/ops/target.js';
import { lower } from '../src/plan/lower.js';
import { jobOf, storageBuffer, timeSteady } from './gpu-timer.js';
import { BenchArgs } from './support/args.js';
import { type BenchResult, type Figure, formatFigure, formatNumber } from './support/result.js';
import type { SyntheticType } from './synthetic/shapes.js';
import { randomBlocks } from './synthetic/weights.js';

export const summary = 'weights times one row over sizes and types, in GB/s';

const allTypes = ['q4_0', 'q4_k', 'q6_k', 'q8_0', 'f16', 'f32'] as const satisfies readonly SyntheticType[];
const allSizes = ['1024x1024', '2048x2048', '4096x4096', '14336x4096', '4096x14336', '128256x4096'];
/** More than a large device's cache. */
const leastBytes = 256e6;
const mostCopies = 32;

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['checked'], values: ['type', 'size'] });
  const gpu = await GpuDevice.request({ checked: known.flag('checked') });
  const [types, sizes] = [known.list('type'), known.list('size')];
  const figures: Figure[] = [];
  console.error(`${gpu.adapterInfo.name}, ${gpu.checks}`);
  for (const dtype of allTypes.filter((type) => types.length === 0 || types.includes(type))) {
    for (const size of sizes.length > 0 ? sizes : allSizes) {
      const [rows = 0, columns = 0] = size.split('x').map(Number);
      if (!(rows > 0 && columns > 0)) throw new Error(`a size is OUTPUTSxINPUTS, got ${size}`);
      for (const activations of ['int8', 'f32'] as const) {
        const figure = await measure(gpu, { dtype, rows, columns, activations });
        if (figure !== undefined) figures.push(figure);
      }
    }
  }
  return { adapter: gpu.adapterInfo.name, figures };
}

interface Product {
  readonly dtype: SyntheticType;
  readonly rows: number;
  readonly columns: number;
  readonly activations: 'int8' | 'f32';
}

/** None where the device has no product with such activations, or holds the weight in several bindings. */
async function measure(gpu: GpuDevice, { dtype, rows, columns, activations }: Product): Promise<Figure | undefined> {
  const type: TensorType = { dtype, shape: [rows, columns] };
  const target = gpuTarget(gpu.capabilities, { activations: activations === 'f32' ? 'f32' : 'auto' });
  const x: TensorType = { dtype: 'f32', shape: [1, columns] };
  const node = { op: 'tokenLinear', params: { bias: false, residual: false }, inputs: [x, type] } as const;
  if (target.weights.shards(type).length > 1) return undefined;
  if (activations === 'int8' && target.refuses?.(node) !== undefined) return undefined;
  const bytes = byteLengthOfType(type);
  const copies = Math.max(1, Math.min(mostCopies, Math.ceil(leastBytes / bytes)));
  const g = new GraphBuilder();
  const input = g.input('x', x);
  for (let i = 0; i < copies; i++) {
    const w = g.param(`w${i}`, type);
    g.output(`y${i}`, activations === 'int8' ? g.add('tokenLinear', node.params, [input, w]) : g.linear(input, w));
  }
  const { steps, values } = lower(g.build(), target);
  const writes = target.weights.pack(type, 0, joined(dtype, bytes));
  const buffers = new Map<number, GPUBuffer>();
  for (const { id, byteLength, storage, isInput } of values.values()) {
    const buffer = storageBuffer(gpu, Math.ceil(byteLength / 16) * 16);
    buffers.set(id, buffer);
    if (storage === 'param') await upload(gpu, buffer, writes);
    if (isInput)
      gpu.queue.writeBuffer(
        buffer,
        0,
        Float32Array.from({ length: columns }, (_, i) => ((i * 7919) % 1024) / 1024 - 0.5),
      );
  }
  const jobs = await Promise.all(
    steps.map(({ kernel, args }) =>
      jobOf(
        gpu,
        kernel,
        args.flatMap(({ value }) => buffers.get(value) ?? []),
      ),
    ),
  );
  const { median, least, most } = await timeSteady(gpu, jobs);
  for (const buffer of buffers.values()) buffer.destroy();
  const rate = (seconds: number): number => (bytes * copies) / seconds / 1e9;
  const details = { us: (median / copies) * 1e6, copies };
  const name = `${dtype} ${rows} x ${columns}, ${activations} activations`;
  const figure: Figure = { name, value: rate(median), least: rate(most), most: rate(least), samples: 5, unit: 'GB/s', checks: gpu.checks, details };
  console.error(`  ${name.padEnd(44)} ${formatNumber(details.us).padStart(7)} us  ${formatFigure(figure)}`);
  return figure;
}

/** Random rows in ggml's layout. */
function joined(dtype: SyntheticType, byteLength: number): Uint8Array {
  const bytes = new Uint8Array(byteLength);
  let at = 0;
  for (const piece of randomBlocks(dtype, byteLength, 0)) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

async function upload(gpu: GpuDevice, buffer: GPUBuffer, writes: readonly PackedWrite[]): Promise<void> {
  for (const { offset, bytes } of writes) await gpu.uploader.write(buffer, offset, bytes);
}
