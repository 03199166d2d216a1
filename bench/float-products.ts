/**
 * The products of a decode step with f32 activations, kernel by kernel, in several shapes: many dispatches in one pass, each with weights of its own, so that no cache holds them. Prints the
 * microseconds of one dispatch (its launch included) for the shape that is selected and for the fastest of a grid.
 * Arguments: --model=1b,0.6b --type=f16,q8_0,... --kind=qkv,output,gated,down,head --grid --top=N (default 4) --tiny (few weights, for rasterisers).
 */

import type { DType } from '../src/core/dtype.js';
import { GpuDevice } from '../src/gpu/device.js';
import { floatKernel } from '../src/kernels/decode/product-float.js';
import { selectFloat } from '../src/kernels/decode/product-float-select.js';
import { type FloatProblem, type FloatShape, floatBytes, floatGroups } from '../src/kernels/decode/product-float-shape.js';
import { noiseKernel } from '../src/kernels/noise.js';
import { weightLayout, weightTypes } from '../src/kernels/weights-layout.js';
import { jobOf, runJobs, storageBuffer, timeJobs, warmUp } from './gpu-timer.js';
import { BenchArgs } from './support/args.js';

export const summary = 'products of a decode step with f32 activations by shape';

const models = {
  '8b': { width: 4096, q: 4096, kv: 1024, hidden: 14_336, vocabulary: 128_256 },
  '1b': { width: 2048, q: 2048, kv: 512, hidden: 8192, vocabulary: 128_256 },
  '0.6b': { width: 1024, q: 2048, kv: 1024, hidden: 3072, vocabulary: 151_936 },
} as const;

type Model = (typeof models)[keyof typeof models];

function problemsOf({ width, q, kv, hidden, vocabulary }: Model, dtype: DType): readonly (readonly [kind: string, problem: FloatProblem])[] {
  const matrix = (rows: number, columns: number, start = 0) => ({ layout: weightLayout({ dtype, shape: [rows, columns] }), start, biasStart: undefined });
  const none = { eps: undefined, end: 'none', plain: true, best: undefined } as const;
  const gated = [matrix(hidden, width), matrix(hidden, width)];
  return [
    ['qkv', { ...none, depth: width, eps: 1e-5, matrices: [matrix(q, width), matrix(kv, width, q), matrix(kv, width, q + kv)] }],
    ['output', { ...none, depth: q, end: 'residual', matrices: [matrix(width, q)] }],
    ['gated', { ...none, depth: width, eps: 1e-5, end: 'gated', matrices: gated }],
    ['down', { ...none, depth: hidden, end: 'residual', matrices: [matrix(width, hidden)] }],
    ['head', { ...none, depth: width, eps: 1e-5, plain: false, best: 0, matrices: [matrix(vocabulary, width)] }],
  ];
}

/** Shapes around the sensible ones that fit the device. */
function candidates(problem: FloatProblem, gpu: GpuDevice): FloatShape[] {
  const base = selectFloat(problem, gpu.capabilities);
  const { limits } = gpu.capabilities;
  const gated = problem.end === 'gated';
  const shapes: FloatShape[] = [];
  for (const teams of [4, 8, 16])
    for (const rows of gated ? [2, 4] : [1, 2, 4])
      for (const split of gated || base.adding === 'memory' ? [1] : [1, 2, 4])
        for (const ahead of [1, 2, 4])
          for (const staged of [true, false]) {
            const shape = { ...base, teams, rows, together: rows, split, ahead, staged };
            const blocks = floatGroups(problem, shape).reduce((sum, count) => sum + count, 0);
            const fits = floatBytes(problem, shape) <= limits.maxComputeWorkgroupStorageSize && teams * shape.lanes <= limits.maxComputeInvocationsPerWorkgroup;
            if (fits && rows * ahead <= 8 && teams % split === 0 && blocks >= 96) shapes.push(shape);
          }
  return shapes;
}

const describe = ({ teams, rows, together, split, ahead, staged }: FloatShape): string =>
  `${teams} teams x ${rows} rows (${together} together), split ${split}, ahead ${ahead}${staged ? '' : ', not staged'}`;

export async function run(args: readonly string[]): Promise<void> {
  const known = new BenchArgs(args, { flags: ['grid', 'tiny', 'checked'], values: ['model', 'type', 'kind', 'top'] });
  const gpu = await GpuDevice.request({ checked: known.flag('checked') });
  const [names, types, kinds] = [known.list('model'), known.list('type'), known.list('kind')];
  for (const [name, model] of Object.entries(models).filter(([name]) => names.length === 0 || names.includes(name)))
    for (const dtype of weightTypes.filter((type) => (types.length === 0 ? type === 'f16' : types.includes(type))))
      for (const [kind, problem] of problemsOf(model, dtype)) {
        if (kinds.length > 0 && !kinds.includes(kind)) continue;
        await measure(gpu, `${name} ${dtype} ${kind}`, problem, { grid: known.flag('grid'), tiny: known.flag('tiny'), top: known.count('top', 4) });
      }
}

async function measure(gpu: GpuDevice, name: string, problem: FloatProblem, { grid, tiny, top }: { grid: boolean; tiny: boolean; top: number }): Promise<void> {
  const bytes = problem.matrices.reduce((sum, { layout }) => sum + layout.byteLength, 0);
  const copies = tiny ? 1 : Math.min(32, Math.max(2, Math.ceil(200e6 / bytes)));
  const rows = problem.matrices.reduce((sum, { layout }) => sum + layout.rows, 0);
  const buffer = async (size: number): Promise<GPUBuffer> => {
    const made = storageBuffer(gpu, Math.ceil(size / 256) * 256);
    await runJobs(gpu, [await jobOf(gpu, noiseKernel(made.size / 4), [made])]);
    return made;
  };
  const vector = await buffer(Math.max(rows, problem.depth) * 4);
  const output = await buffer(rows * 8);
  const weights: GPUBuffer[][] = [];
  for (let i = 0; i < copies; i++) weights.push(await Promise.all(problem.matrices.map(({ layout }) => buffer(layout.byteLength))));
  const selected = selectFloat(problem, gpu.capabilities);
  const shapes = grid ? [selected, ...candidates(problem, gpu)] : [selected];
  const made = await Promise.all(
    shapes.map(async (shape) => {
      const kernel = floatKernel(problem, shape);
      const before = problem.eps === undefined ? [vector] : [vector, vector];
      const after = problem.end === 'residual' ? [vector, output] : [output];
      return { shape, jobs: await Promise.all(weights.map((set) => jobOf(gpu, kernel, [...before, ...set, ...after]))), us: Number.POSITIVE_INFINITY };
    }),
  );
  if (!tiny) await warmUp(gpu, made[0]?.jobs ?? [], 300);
  for (let sweep = 0; sweep < (tiny ? 1 : 2); sweep++)
    for (const entry of made) {
      const { median } = await timeJobs(gpu, entry.jobs, tiny ? 1 : Math.max(1, Math.ceil(32 / copies)));
      entry.us = Math.min(entry.us, (median * 1e6) / copies);
    }
  const [first, ...others] = made;
  const line = ({ us, shape }: { us: number; shape: FloatShape }): string => `${us.toFixed(2)} us, ${(bytes / us / 1e3).toFixed(0)} GB/s; ${describe(shape)}`;
  if (first !== undefined) console.log(`${name}: ${line(first)}`);
  for (const entry of others.sort((a, b) => a.us - b.us).slice(0, top)) console.log(`    ${line(entry)}`);
  for (const old of [vector, output, ...weights.flat()]) old.destroy();
}
