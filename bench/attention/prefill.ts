/** A prompt's attention, causal: what selection takes, on matrices and without. */

import type { GpuKernel } from '../../src/core/kernel.js';
import type { GpuDevice } from '../../src/gpu/device.js';
import { selectPrefill } from '../../src/kernels/attention.js';
import { attentionMatrixKernel, selectMatrixAttention } from '../../src/kernels/attention-matrix.js';
import { attentionPrefillKernel } from '../../src/kernels/attention-prefill.js';
import type { AttentionProblem } from '../../src/kernels/attention-text.js';
import { stateWord, stateWords } from '../../src/ops/state.js';
import { jobOf, readBuffer, runJobs, storageBuffer, timeJobs, warmUp } from '../gpu-timer.js';
import { type Figure, formatFigure } from '../support/result.js';
import { attendHead, HalfPattern, relativeError } from './data.js';
import type { AttentionShape } from './shapes.js';

export async function prefillFigures(gpu: GpuDevice, shape: AttentionShape, rows: number, warmMs: number): Promise<readonly Figure[]> {
  const { heads, kvHeads, width } = shape;
  const problem: AttentionProblem = { rows, heads, kvHeads, width, capacity: rows, keys: 'f16', values: 'f16', scale: 1 / Math.sqrt(width) };
  const matrix = selectMatrixAttention(problem, gpu.capabilities);
  const kernels: [string, GpuKernel][] = [['f32', attentionPrefillKernel(problem, selectPrefill(problem, gpu.capabilities).shape)]];
  if (matrix !== undefined) kernels.unshift(['f16 matrices', attentionMatrixKernel(problem, matrix.shape)]);
  const patterns = [new HalfPattern(gpu, 1), new HalfPattern(gpu, 2)] as const;
  const caches = patterns.map((pattern) => pattern.filled(kvHeads * rows * width));
  const query = Float32Array.from({ length: rows * heads * width }, (_, i) => 4 * patterns[0].at(i * 31 + 7));
  const words = new Uint32Array(stateWords(1));
  words[stateWord.rows] = rows;
  const [queries, state, y] = [storageBuffer(gpu, query.byteLength), storageBuffer(gpu, words.byteLength), storageBuffer(gpu, query.byteLength)];
  gpu.queue.writeBuffer(queries, 0, query);
  gpu.queue.writeBuffer(state, 0, words);
  const figures: Figure[] = [];
  const flops = 2 * heads * width * rows * (rows + 1);
  for (const [name, kernel] of kernels) {
    const jobs = [await jobOf(gpu, kernel, [queries, ...caches, state, y])];
    await runJobs(gpu, jobs);
    const base = (kvHeads - 1) * rows * width;
    const last = (rows * heads - 1) * width;
    const wanted = attendHead({
      ...{ query: query.subarray(last), scale: problem.scale, length: rows },
      key: (position, i) => patterns[0].at(base + position * width + i),
      value: (position, i) => patterns[1].at(base + position * width + i),
    });
    const error = relativeError(new Float32Array(await readBuffer(gpu, y, last * 4, width * 4)), wanted);
    if (!(error < 5e-3)) throw new Error(`${shape.name} prefill of ${rows}, ${name}: wrong by ${error}`);
    await warmUp(gpu, jobs, warmMs);
    const { median, least, most } = await timeJobs(gpu, jobs, Math.max(2, Math.min(100, Math.ceil(5e11 / flops))));
    const rate = (seconds: number): number => flops / seconds / 1e12;
    const figure: Figure = {
      ...{
        name: `${shape.name} prefill of ${rows}, ${name}`,
        unit: 'TFLOP/s',
        checks: gpu.checks,
        value: rate(median),
        least: rate(most),
        most: rate(least),
        samples: 5,
      },
      details: { microseconds: median * 1e6, error },
    };
    console.error(`${figure.name}: ${formatFigure(figure)}, ${JSON.stringify(figure.details)}`);
    figures.push(figure);
  }
  for (const pattern of patterns) pattern.dispose();
  for (const buffer of [...caches, queries, state, y]) buffer.destroy();
  return figures;
}
