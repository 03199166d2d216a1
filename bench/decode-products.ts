/**
 * The products of a decode step, kernel by kernel, in several shapes: many dispatches in one pass, one after another as in a step, each with weights of its own, so that no cache holds them.
 * Prints the microseconds of one dispatch (its launch included) for the shape that is selected and for the fastest of a grid.
 * Arguments: --model=8b,1b,0.6b,1.5b --kind=qkv,output,gated,down,head --grid (try the grid, not the selected shape alone), --shapes=FILE (those of a JSON file of lists, and no other products), --write (keep what is faster by 2%, as `centella tune` does) --top=N (default 6) --tiny (few weights, for rasterisers).
 */

import { readFileSync } from 'node:fs';
import type { DType } from '../src/core/dtype.js';
import { byteLengthOfType } from '../src/core/tensor.js';
import { formatShape, type TunedProduct } from '../src/core/tuning.js';
import { GpuDevice } from '../src/gpu/device.js';
import { activationType } from '../src/kernels/decode/activations.js';
import { chooseKernel } from '../src/kernels/decode/choose.js';
import { type ProductProblem, type ProductShape, productGroups, productKernel } from '../src/kernels/decode/product.js';
import { selectProduct, workgroupThreads } from '../src/kernels/decode/select.js';
import { fitShape, needsOf, productCandidates, tunedName } from '../src/kernels/decode/tuned.js';
import { noiseKernel } from '../src/kernels/noise.js';
import { subgroupRange } from '../src/kernels/template.js';
import { weightLayout } from '../src/kernels/weights-layout.js';
import { need } from '../src/ops/definition.js';
import { tuningOf } from '../src/runtime/tune.js';
import { writeTuning } from '../src/runtime/tuning-file.js';
import { type Job, jobOf, runJobs, storageBuffer, timeSets } from './gpu-timer.js';

export const summary = 'products of a decode step by shape';

interface Case {
  readonly kind: 'qkv' | 'output' | 'gated' | 'down' | 'head';
  readonly name: string;
  readonly problem: ProductProblem;
}

interface Model {
  readonly width: number;
  readonly q: number;
  readonly kv: number;
  readonly hidden: number;
  readonly vocabulary: number;
  readonly bias: boolean;
  /** Types of most weights, and of the head and some values and downs. */
  readonly types: readonly [DType, DType];
}

const models: { readonly [name: string]: Model } = {
  '8b': { width: 4096, q: 4096, kv: 1024, hidden: 14336, vocabulary: 128256, bias: false, types: ['q4_k', 'q6_k'] },
  '1b': { width: 2048, q: 2048, kv: 512, hidden: 8192, vocabulary: 128256, bias: false, types: ['q4_k', 'q6_k'] },
  '0.6b': { width: 1024, q: 2048, kv: 1024, hidden: 3072, vocabulary: 151936, bias: false, types: ['q8_0', 'q8_0'] },
  '1.5b': { width: 1536, q: 1536, kv: 256, hidden: 8960, vocabulary: 151936, bias: true, types: ['q4_k', 'q6_k'] },
};

function casesOf({ width, q, kv, hidden, vocabulary, bias, types: [most, some] }: Model): Case[] {
  const matrix = (dtype: DType, rows: number, columns: number, start = 0, biased = false) => ({
    layout: weightLayout({ dtype, shape: [rows, columns] }),
    start,
    bias: biased,
  });
  const none = { eps: undefined, plain: true, packed: 'none', best: false } as const;
  const residual = { ...none, end: 'residual', packed: 'gain' } as const;
  const qkv = (values: DType): ProductProblem => ({
    ...none,
    depth: width,
    matrices: [matrix(most, q, width, 0, bias), matrix(most, kv, width, q, bias), matrix(values, kv, width, q + kv, bias)],
    eps: 1e-5,
    end: 'none',
  });
  const two = most === some ? [most] : [most, some];
  return [
    ...two.map((dtype): Case => ({ kind: 'qkv', name: `qkv ${dtype}`, problem: qkv(dtype) })),
    { kind: 'output', name: 'output', problem: { ...residual, depth: q, matrices: [matrix(most, width, q)] } },
    {
      kind: 'gated',
      name: 'gated',
      problem: {
        ...none,
        depth: width,
        matrices: [matrix(most, hidden, width), matrix(most, hidden, width)],
        eps: 1e-5,
        end: 'gated',
        plain: false,
        packed: 'plain',
      },
    },
    ...two.map((dtype): Case => ({ kind: 'down', name: `down ${dtype}`, problem: { ...residual, depth: hidden, matrices: [matrix(dtype, width, hidden)] } })),
    { kind: 'head', name: 'head', problem: { ...none, depth: width, matrices: [matrix(some, vocabulary, width)], eps: 1e-5, end: 'none', best: true } },
  ];
}

/** Writes noise over a buffer of a multiple of 16 bytes. */
async function fill(gpu: GpuDevice, buffer: GPUBuffer): Promise<void> {
  await runJobs(gpu, [await jobOf(gpu, noiseKernel(buffer.size / 4), [buffer])]);
}

interface Data {
  readonly x: GPUBuffer;
  readonly weights: readonly (readonly GPUBuffer[])[];
  readonly vector: GPUBuffer;
  readonly outputs: readonly GPUBuffer[];
}

async function dataOf(gpu: GpuDevice, { depth, matrices }: ProductProblem, leastBytes: number): Promise<Data> {
  const bytes = matrices.reduce((sum, { layout }) => sum + layout.byteLength, 0);
  const copies = Math.min(48, Math.max(2, Math.ceil(leastBytes / bytes)));
  const noise = async (size: number): Promise<GPUBuffer> => {
    const buffer = storageBuffer(gpu, Math.ceil(size / 256) * 256);
    await fill(gpu, buffer);
    return buffer;
  };
  const weights: GPUBuffer[][] = [];
  for (let i = 0; i < copies; i++) {
    const set: GPUBuffer[] = [];
    for (const { layout } of matrices) set.push(await noise(layout.byteLength));
    weights.push(set);
  }
  const rows = matrices.reduce((sum, { layout }) => sum + layout.rows, 0);
  return {
    x: await noise(byteLengthOfType(activationType(depth))),
    weights,
    vector: await noise(rows * 4),
    outputs: [0, 1, 2].map(() => storageBuffer(gpu, rows * 8)),
  };
}

/** The dispatches of a shape, one for each copy of the weights; the head's each with the choice behind it, since its shape decides how many pairs that has to read. */
async function jobsOf(gpu: GpuDevice, problem: ProductProblem, shape: ProductShape, data: Data): Promise<Job[]> {
  const kernel = productKernel(problem, shape);
  const outputs = Number(problem.plain) + Number(problem.packed !== 'none') + Number(problem.best);
  const vectors = kernel.bindings.length - 1 - problem.matrices.length - outputs;
  const products = await Promise.all(
    data.weights.map((weights) =>
      jobOf(gpu, kernel, [data.x, ...weights, ...Array.from({ length: vectors }, () => data.vector), ...data.outputs.slice(0, outputs)]),
    ),
  );
  if (!problem.best) return products;
  const pairs = productGroups(problem, shape).reduce((sum, count) => sum + count, 0);
  const choice = chooseKernel(pairs, subgroupRange(gpu.capabilities), workgroupThreads(gpu.capabilities));
  const choose = await jobOf(gpu, choice, [data.vector, need(data.outputs[outputs - 1])]);
  return products.flatMap((product) => [product, choose]);
}

const describe = (shape: ProductShape): string => `${formatShape(shape, shape.subgroupSize)}${shape.staged ? '' : ', not staged'}`;

interface Measured {
  readonly shape: ProductShape;
  readonly us: number;
}

/** Microseconds of a dispatch (of the head with its choice) for each shape. */
async function timed(gpu: GpuDevice, problem: ProductProblem, shapes: readonly ProductShape[], data: Data, tiny: boolean): Promise<Measured[]> {
  const copies = data.weights.length;
  // Enough dispatches in a pass that what a pass costs itself, 5 to 6 us on an H200, does not matter.
  const again = tiny ? 1 : Math.ceil(40 / copies);
  const sets = await Promise.all(
    shapes.map(async (shape) => {
      const jobs = await jobsOf(gpu, problem, shape, data);
      return Array.from({ length: again }, () => jobs).flat();
    }),
  );
  const seconds = await timeSets(gpu, sets, tiny ? 1 : 12, tiny ? 0 : 250);
  return shapes.map((shape, i) => ({ shape, us: (need(seconds[i]) * 1e6) / again / copies }));
}

/** Lists of [subgroups, lanes, rows, together, split, ahead] by product, as in "8b gated". */
type ShapeLists = { readonly [product: string]: readonly (readonly [number, number, number, number, number, number])[] };

function listed(lists: ShapeLists, name: string, problem: ProductProblem, gpu: GpuDevice): ProductShape[] {
  return (lists[name] ?? []).map(([subgroups, lanes, rows, together, split, ahead]) => {
    const shape = fitShape(needsOf(tunedName(problem)), { subgroups, lanes, rows, together, split, ahead }, gpu.capabilities);
    if (typeof shape === 'string') throw new RangeError(`${name} ${[subgroups, lanes, rows, together, split, ahead].join()}: ${shape}`);
    return shape;
  });
}

export async function run(args: readonly string[]): Promise<void> {
  const option = (name: string, otherwise: string): string => args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3) ?? otherwise;
  const tiny = args.includes('--tiny');
  const kinds = option('kind', 'qkv,output,gated,down,head').split(',');
  const file = option('shapes', '');
  const lists = file === '' ? {} : (JSON.parse(readFileSync(file, 'utf8')) as ShapeLists);
  const gpu = await GpuDevice.request({ checked: args.includes('--checked') });
  const fastest: TunedProduct[] = [];
  for (const name of option('model', Object.keys(models).join()).split(',')) {
    const model = models[name];
    if (model === undefined) throw new RangeError(`no model is called ${name}: ${Object.keys(models).join(', ')}`);
    for (const { kind, name: what, problem } of casesOf(model)) {
      if (!kinds.includes(kind) || (file !== '' && lists[`${name} ${what}`] === undefined)) continue;
      const bytes = problem.matrices.reduce((sum, { layout }) => sum + layout.byteLength, 0);
      const data = await dataOf(gpu, problem, tiny ? 0 : 200e6);
      const shipped = selectProduct(needsOf(tunedName(problem)), gpu.capabilities);
      const others = [...(args.includes('--grid') ? productCandidates(problem, gpu.capabilities) : []), ...listed(lists, `${name} ${what}`, problem, gpu)];
      const shapes = new Map([shipped, ...others].map((shape) => [productKernel(problem, shape).key, shape]));
      const measured = await timed(gpu, problem, [...shapes.values()], data, tiny);
      const now = need(measured[0]);
      const groups = productGroups(problem, shipped).reduce((sum, count) => sum + count, 0);
      console.log(`${name} ${what}: ${now.us.toFixed(2)} us, ${(bytes / now.us / 1e3).toFixed(0)} GB/s; ${describe(shipped)}, ${groups} workgroups`);
      measured.sort((a, b) => a.us - b.us);
      if (measured.length > 1)
        for (const { us, shape } of measured.slice(0, Number(option('top', '6')))) console.log(`    ${us.toFixed(2)} us  ${describe(shape)}`);
      const [best] = measured;
      if (best !== undefined && best.us < now.us * 0.98) fastest.push({ ...tunedName(problem), shape: best.shape, microseconds: best.us });
      for (const buffer of [data.x, data.vector, ...data.weights.flat(), ...data.outputs]) buffer.destroy();
    }
    if (args.includes('--write')) console.log(`written ${await writeTuning(tuningOf(gpu.capabilities, fastest), gpu.capabilities)}`);
  }
}
