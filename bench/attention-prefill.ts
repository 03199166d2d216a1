/**
 * Attention of the last rows of a prompt over an f16 cache, causal: on subgroup matrices and without them, by head sizes, lengths and windows, in TFLOP/s of what a row sees. Rows at random
 * are compared with f64 before anything is timed. Arguments: shapes as HEADS,KVHEADS,WIDTH,ROWS,LENGTH[,WINDOW].
 */

import { GpuDevice } from '../src/gpu/device.js';
import { selectPrefill } from '../src/kernels/attention/attention.js';
import { attentionMatrixKernel, selectMatrixAttention } from '../src/kernels/attention/matrix.js';
import { attentionPrefillKernel } from '../src/kernels/attention/prefill.js';
import type { AttentionProblem } from '../src/kernels/attention/text.js';
import { stateWord, stateWords } from '../src/ops/state.js';
import { halfToFloat } from '../src/quant/half.js';
import { jobOf, randomHalves, readBuffer, runJobs, storageBuffer, timeSteady } from './gpu-timer.js';
import { BenchArgs } from './support/args.js';
import { type BenchResult, type Figure, formatFigure } from './support/result.js';

export const summary = 'attention of a prompt on a GPU, with and without subgroup matrices';

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly width: number;
  readonly rows: number;
  readonly length: number;
  readonly window?: number | undefined;
}

const shape = (heads: number, kvHeads: number, width: number, rows: number, length: number, window?: number): Shape => ({
  ...{ heads, kvHeads, width, rows, length, window },
});

const shapes: readonly Shape[] = [
  ...[2048, 8192].flatMap((length) => [
    shape(32, 8, 128, 2048, length),
    shape(32, 8, 64, 2048, length),
    shape(16, 8, 128, 2048, length),
    shape(12, 2, 128, 2048, length),
    shape(32, 8, 96, 2048, length),
    shape(16, 8, 256, 2048, length),
  ]),
  shape(32, 8, 128, 512, 512),
  shape(32, 8, 128, 2048, 8192, 1024),
  shape(32, 8, 64, 2048, 8192, 128),
];

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['checked'] });
  const gpu = await GpuDevice.request({ checked: known.flag('checked') });
  const asked = known.rest.map((text) => {
    const [heads = 1, kvHeads = 1, width = 1, rows = 1, length = rows, window] = text.split(',').map(Number);
    return shape(heads, kvHeads, width, rows, length, window);
  });
  const figures: Figure[] = [];
  for (const one of asked.length > 0 ? asked : shapes) figures.push(...(await measure(gpu, one)));
  return { adapter: gpu.adapterInfo.name, figures };
}

interface Operands {
  readonly buffers: readonly GPUBuffer[];
  readonly query: Float32Array;
  readonly keys: Uint16Array;
  readonly values: Uint16Array;
}

async function measure(gpu: GpuDevice, { heads, kvHeads, width, rows, length, window }: Shape): Promise<Figure[]> {
  const problem: AttentionProblem = { rows, heads, kvHeads, width, capacity: length, keys: 'f16', values: 'f16', scale: 1 / Math.sqrt(width), window };
  const operands = prepare(gpu, problem);
  const matrix = selectMatrixAttention(problem, gpu.capabilities);
  const kernels = [
    ...(matrix === undefined ? [] : [{ how: 'f16 matrices', kernel: attentionMatrixKernel(problem, matrix.shape) }]),
    { how: 'f32', kernel: attentionPrefillKernel(problem, selectPrefill(problem, gpu.capabilities).shape) },
  ];
  const work = operationsOf(problem);
  const figures: Figure[] = [];
  for (const { how, kernel } of kernels) {
    const jobs = [await jobOf(gpu, kernel, operands.buffers)];
    await runJobs(gpu, jobs);
    const error = await worstError(gpu, problem, operands);
    if (!(error < 2e-3)) throw new Error(`${kernel.key}: ${error} from f64`);
    const { median, least, most } = await timeSteady(gpu, jobs, 10);
    const what = `${heads}/${kvHeads} heads of ${width}, ${rows} rows of ${length}${window === undefined ? '' : `, window ${window}`}, ${how}`;
    const [value, slowest, fastest] = [work / median / 1e12, work / most / 1e12, work / least / 1e12];
    const figure: Figure = {
      name: what,
      value,
      unit: 'TFLOP/s',
      least: slowest,
      most: fastest,
      samples: 5,
      checks: gpu.checks,
      details: { us: median * 1e6, error },
    };
    console.error(`${what}: ${(median * 1e6).toFixed(1)} us, ${formatFigure(figure)}, error ${error.toExponential(1)}`);
    figures.push(figure);
  }
  for (const buffer of operands.buffers) buffer.destroy();
  return figures;
}

/** Two products of the head's width for every pair of a row and a position that it sees. */
function operationsOf({ rows, heads, width, capacity, window = capacity }: AttentionProblem): number {
  let pairs = 0;
  for (let row = 0; row < rows; row++) pairs += Math.min(capacity - rows + row + 1, window);
  return 4 * pairs * heads * width;
}

function prepare(gpu: GpuDevice, { rows, heads, kvHeads, width, capacity }: AttentionProblem): Operands {
  const query = Float32Array.from(randomHalves(rows * heads * width, 1), halfToFloat);
  const [keys, values] = [randomHalves(kvHeads * capacity * width, 2), randomHalves(kvHeads * capacity * width, 3)];
  const state = new Uint32Array(stateWords(rows));
  state[stateWord.position] = capacity - rows;
  state[stateWord.rows] = rows;
  const buffers = [query, keys, values, state].map((data) => {
    const buffer = storageBuffer(gpu, data.byteLength);
    gpu.queue.writeBuffer(buffer, 0, data);
    return buffer;
  });
  return { buffers: [...buffers, storageBuffer(gpu, query.byteLength)], query, keys, values };
}

/** Root mean square error of 4 rows of one head each, relative to their values. */
async function worstError(gpu: GpuDevice, problem: AttentionProblem, { buffers, query, keys, values }: Operands): Promise<number> {
  const { rows, heads, kvHeads, width, capacity, window = capacity, scale } = problem;
  const y = buffers.at(-1);
  if (y === undefined) throw new Error('the result has no buffer');
  let [squares, errors] = [0, 0];
  for (const [row, head] of [0, 1, 2, 3].map((i) => [Math.floor((i * (rows - 1)) / 3), (i * 5) % heads] as const)) {
    const end = capacity - rows + row + 1;
    const positions = Array.from({ length: Math.min(end, window) }, (_, i) => (Math.floor((head * kvHeads) / heads) * capacity + end - 1 - i) * width);
    const start = (row * heads + head) * width;
    const scores = positions.map((at) => {
      let sum = 0;
      for (let i = 0; i < width; i++) sum += (query[start + i] ?? 0) * halfToFloat(keys[at + i] ?? 0);
      return Math.exp(sum * scale);
    });
    const total = scores.reduce((a, b) => a + b, 0);
    const got = new Float32Array(await readBuffer(gpu, y, start * 4, width * 4));
    for (let i = 0; i < width; i++) {
      const want = positions.reduce((sum, at, p) => sum + ((scores[p] ?? 0) / total) * halfToFloat(values[at + i] ?? 0), 0);
      squares += want ** 2;
      errors += ((got[i] ?? Number.NaN) - want) ** 2;
    }
  }
  return Math.sqrt(errors / squares);
}
