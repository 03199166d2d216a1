/**
 * Tensor operations on a device, by timestamps of their steps: products of f32 matrices, elementwise sums, reductions, softmax, selection. Device-resident: nothing is read back.
 * Arguments: --checked leaves robustness checks on; --cases first holds every case of every operation to its reference; --only=TEXT measures what has TEXT in its name;
 * --without=subgroup-matrix,f16,subgroups,packed-dot as a device that lacks them.
 */

import { GpuDevice } from '../src/gpu/device.js';
import { GraphBuilder } from '../src/graph/builder.js';
import type { NodeId } from '../src/graph/graph.js';
import { rewrite } from '../src/graph/rewrite.js';
import { gpuTarget } from '../src/kernels/target.js';
import { allCases } from '../src/ops/cases/index.js';
import { lower } from '../src/plan/lower.js';
import type { Backend } from '../src/runtime/backend.js';
import { checkCase } from '../src/runtime/check.js';
import { openBackend } from '../src/runtime/select.js';
import { jobOf, storageBuffer, timeSteady } from './gpu-timer.js';
import { BenchArgs } from './support/args.js';
import { maskOf } from './support/mask.js';
import { type BenchResult, type Figure, formatNumber, resultOf } from './support/result.js';

export const summary = 'tensor operations on a device, by timestamps: matmul, elementwise, reductions, softmax, convolutions, topK';

interface Plan {
  readonly name: string;
  readonly shapes: readonly (readonly number[])[];
  readonly build: (g: GraphBuilder, inputs: readonly NodeId[]) => NodeId;
  /** What one run does, in the unit of the figure. */
  readonly work: number;
  readonly unit: 'TFLOP/s' | 'GB/s';
}

const product = (m: number, k: number, n: number, transposeA = false, transposeB = false, rounded = false): Plan => ({
  name: `matmul ${m}x${k}x${n}${transposeA ? ' a turned' : ''}${transposeB ? ' b turned' : ''}${rounded ? ' rounded' : ''}`,
  shapes: [transposeA ? [k, m] : [m, k], transposeB ? [n, k] : [k, n]],
  build: (g, [a = 0, b = 0]) => g.matmul(a, b, { transposeA, transposeB, rounded }),
  work: (2 * m * k * n) / 1e12,
  unit: 'TFLOP/s',
});

const stream = (name: string, shapes: Plan['shapes'], bytes: number, build: Plan['build']): Plan => ({ name, shapes, build, work: bytes / 1e9, unit: 'GB/s' });

const convolution = (name: string, x: readonly number[], kernel: readonly number[], stride = 1): Plan => {
  const [images = 1, , height = 1, width = 1] = x;
  const macs = kernel.reduce((product, size) => product * size, 1) * images * Math.ceil(height / stride) * Math.ceil(width / stride);
  return {
    name: `conv2d ${kernel.slice(2).join('x')}, ${name}`,
    shapes: [x, kernel],
    build: (g, [a = 0, b = 0]) => g.add('conv2d', { stride, padding: 'same' }, [a, b]),
    work: (2 * macs) / 1e12,
    unit: 'TFLOP/s',
  };
};

const million = 1_000_000;

const plans: readonly Plan[] = [
  product(4096, 4096, 4096),
  product(4096, 4096, 4096, true, false),
  product(4096, 4096, 4096, false, true),
  product(4097, 4095, 4099),
  product(2048, 2048, 2048),
  product(1024, 1024, 1024),
  product(512, 512, 512),
  product(256, 4096, 256),
  product(1, 4096, 4096),
  product(1, 4096, 4096, false, true),
  product(4096, 4096, 1),
  product(64, 4096, 4096),
  product(4096, 4096, 4096, false, false, true),
  product(1024, 1024, 1024, false, false, true),
  {
    ...product(2048, 2048, 2048),
    name: 'matmul 2048x2048x2048, bias and gelu',
    shapes: [[2048, 2048], [2048, 2048], [2048]],
    build: (g, [a = 0, b = 0, bias = 0]) => g.unary('gelu', g.binary('add', g.matmul(a, b), bias)),
  },
  stream('add of 40 million', [[40 * million], [40 * million]], 480e6, (g, [a = 0, b = 0]) => g.binary('add', a, b)),
  stream('sum of 20 million', [[20 * million]], 80e6, (g, [x = 0]) => g.reduce('sum', x)),
  stream('dot of 20 million', [[20 * million], [20 * million]], 160e6, (g, [a = 0, b = 0]) => g.dot(a, b)),
  stream('columns of 4096x4096', [[4096, 4096]], 67e6, (g, [x = 0]) => g.reduce('sum', x, { axes: [0] })),
  stream('softmax of 1 million', [[million]], 8e6, (g, [x = 0]) => g.softmax(x)),
  stream('softmax of 4096 rows of 4096', [[4096, 4096]], 134e6, (g, [x = 0]) => g.softmax(x)),
  stream('layerNorm of 4096 rows of 4096', [[4096, 4096], [4096]], 134e6, (g, [x = 0, gain = 0]) => g.layerNorm(x, gain, undefined, 1e-5)),
  stream('transpose of 4096x4096', [[4096, 4096]], 134e6, (g, [x = 0]) => g.permute(x, [1, 0])),
  stream('cumsum of 1 million', [[million]], 8e6, (g, [x = 0]) => g.cumsum(x)),
  stream('cumsum of 40 million', [[40 * million]], 320e6, (g, [x = 0]) => g.cumsum(x)),
  convolution('64 channels of 224x224', [1, 64, 224, 224], [64, 64, 3, 3]),
  convolution('256 channels of 56x56, 8 images', [8, 256, 56, 56], [256, 256, 3, 3]),
  convolution('3 channels of 224x224, 8 images', [8, 3, 224, 224], [64, 3, 7, 7], 2),
  convolution('one channel of 4096x4096', [1, 1, 4096, 4096], [1, 1, 5, 5]),
  stream('top 40 of 150 thousand', [[150_000]], 0.6e6, (g, [x = 0]) => g.topK(x, 40)),
];

async function checkAll(backend: Backend): Promise<void> {
  let failed = 0;
  const cases = allCases();
  for (const opCase of cases) {
    const { ok, worst, where } = await checkCase(backend, opCase);
    if (ok) continue;
    failed += 1;
    console.error(`  ${opCase.name}: ${worst.toFixed(2)} of the accepted error at ${where}`);
  }
  console.error(`${cases.length - failed} of ${cases.length} cases agree with the reference`);
}

/** The steps of one plan, each value in a buffer of its own, many rounds in one pass: what the device needs, without the host. */
async function measure(gpu: GpuDevice, { name, shapes, build, work, unit }: Plan): Promise<Figure> {
  const g = new GraphBuilder();
  const inputs = shapes.map((shape, i) => g.input(`x${i}`, { dtype: 'f32', shape }));
  g.output('y', build(g, inputs));
  const { steps, values } = lower(rewrite(g.build(), { regions: true }).graph, gpuTarget(gpu.capabilities));
  const buffers = new Map<number, GPUBuffer>();
  for (const { id, byteLength, isInput } of values.values()) {
    const buffer = storageBuffer(gpu, Math.ceil(byteLength / 4) * 4);
    if (isInput)
      gpu.queue.writeBuffer(
        buffer,
        0,
        Float32Array.from({ length: byteLength / 4 }, (_, i) => ((i * 7919) % 1024) / 1024 - 0.5),
      );
    buffers.set(id, buffer);
  }
  const start = performance.now();
  const jobs = await Promise.all(
    steps.map(({ kernel, args }) =>
      jobOf(
        gpu,
        kernel,
        args.flatMap(({ value }) => buffers.get(value) ?? []),
      ),
    ),
  );
  const compile = performance.now() - start;
  const { median, least, most } = await timeSteady(gpu, jobs);
  for (const buffer of buffers.values()) buffer.destroy();
  const details = { us: median * 1e6, steps: steps.length, compileMs: compile };
  const figure: Figure = { name, value: work / median, least: work / most, most: work / least, samples: 5, unit, checks: gpu.checks, details };
  const microseconds = formatNumber(median * 1e6).padStart(9);
  console.error(
    `  ${name.padEnd(36)} ${microseconds} us ${formatNumber(figure.value).padStart(8)} ${unit}   ${steps.length} steps, compiled in ${compile.toFixed(0)} ms`,
  );
  return figure;
}

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['checked', 'cases'], values: ['only', 'without'] });
  const gpu = await GpuDevice.request({ checked: known.flag('checked'), mask: maskOf(known.list('without')) });
  const backend = await openBackend({ device: gpu, tuning: 'none' });
  console.error(`${backend.name}, ${backend.checks}`);
  if (known.flag('cases')) await checkAll(backend);
  const figures: Figure[] = [];
  for (const plan of plans) if (plan.name.includes(known.text('only') ?? '')) figures.push(await measure(gpu, plan));
  const result = resultOf(backend, figures);
  backend.dispose();
  gpu.dispose();
  return result;
}
