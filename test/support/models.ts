/** Fixture models on any backend, and what transformers computed for them. */

import { divergence, logSoftmax } from '../../bench/accuracy/model.js';
import { openSafetensors } from '../../src/formats/safetensors/reader.js';
import { fixture } from './fixtures.js';

export { type LoadedFile, makeDecoder, readModel, referenceLogits } from '../../bench/accuracy/model.js';

export interface Expected {
  readonly ids: readonly number[];
  readonly logits: Float32Array;
  readonly greedy: readonly number[];
  readonly vocabulary: number;
}

/** What transformers computed for a fixture model. */
export function expectedOf(folder: string): Promise<Expected> {
  return readExpected(fixture(`hf/${folder}/expected.safetensors`));
}

/** What transformers computed, from the file that says it. */
export async function readExpected(path: string): Promise<Expected> {
  const file = await openSafetensors(path);
  try {
    const ids = await integers(file, 'input_ids');
    const logits = new Float32Array(Uint8Array.from(await file.readTensor('logits')).buffer);
    return { ids, logits, greedy: await integers(file, 'greedy'), vocabulary: logits.length / ids.length };
  } finally {
    await file.close();
  }
}

async function integers(file: Awaited<ReturnType<typeof openSafetensors>>, name: string): Promise<number[]> {
  const { buffer } = Uint8Array.from(await file.readTensor(name));
  return file.tensors.get(name)?.dtype === 'i64' ? Array.from(new BigInt64Array(buffer), Number) : [...new Int32Array(buffer)];
}

export function softmax(row: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(row);
  const max = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const weights = values.map((value) => Math.exp(value - max));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/** Mean over rows of KL(softmax(wanted) || softmax(got)). */
export function meanKl(wanted: ArrayLike<number>, got: ArrayLike<number>, width: number): number {
  const rows = wanted.length / width;
  const row = (values: ArrayLike<number>, index: number): Float64Array => logSoftmax(Array.prototype.slice.call(values, index * width, (index + 1) * width));
  return Array.from({ length: rows }, (_, i) => divergence(row(wanted, i), row(got, i))).reduce((sum, value) => sum + value, 0) / rows;
}

/** Largest difference of the rows' softmax. */
export function softmaxError(wanted: ArrayLike<number>, got: ArrayLike<number>, width: number): number {
  let worst = 0;
  for (let start = 0; start < wanted.length; start += width) {
    const p = softmax(Array.prototype.slice.call(wanted, start, start + width));
    const q = softmax(Array.prototype.slice.call(got, start, start + width));
    worst = p.reduce((max, value, i) => Math.max(max, Math.abs(value - (q[i] ?? Number.NaN))), worst);
  }
  return worst;
}

export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let worst = a.length === b.length ? 0 : Number.POSITIVE_INFINITY;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] ?? Number.NaN) - (b[i] ?? Number.NaN));
    worst = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(worst, difference);
  }
  return worst;
}

/** Index of the largest value of each row. */
export function argmaxRows(values: ArrayLike<number>, width: number): number[] {
  return Array.from({ length: values.length / width }, (_, row) => {
    let best = 0;
    for (let i = 1; i < width; i++) if ((values[row * width + i] ?? 0) > (values[row * width + best] ?? 0)) best = i;
    return best;
  });
}
