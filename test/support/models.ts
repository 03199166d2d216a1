/** Fixture models on any backend, and their f64 references. */

import { elementCount } from '../../src/core/tensor.js';
import { openGguf } from '../../src/formats/gguf/index.js';
import { openSafetensors } from '../../src/formats/safetensors/reader.js';
import { evaluate } from '../../src/graph/evaluate.js';
import { Decoder, type DecoderOptions } from '../../src/model/decoder.js';
import { decoderGraph, decoderNames } from '../../src/model/decoder-graph.js';
import { describeModel, type ModelDescription } from '../../src/model/describe.js';
import { ropeTable } from '../../src/model/rope-table.js';
import { tensorNames } from '../../src/model/tensors.js';
import { stateWord, stateWords } from '../../src/ops/state.js';
import { dequantize } from '../../src/quant/index.js';
import type { Backend } from '../../src/runtime/backend.js';
import { fixture } from './fixtures.js';

/** A model file's description and the bytes of its tensors. */
export interface LoadedFile extends ModelDescription {
  readonly bytes: ReadonlyMap<string, Uint8Array>;
  readonly ropeFactors: Float32Array | undefined;
}

export async function readModel(path: string): Promise<LoadedFile> {
  const file = await openGguf(path);
  try {
    const description = describeModel(file);
    const bytes = new Map<string, Uint8Array>();
    for (const name of file.tensors.keys()) bytes.set(name, Uint8Array.from(await file.readTensor(name)));
    const factors = bytes.get(tensorNames.ropeFactors);
    return { ...description, bytes, ropeFactors: factors && dequantize('f32', factors) };
  } finally {
    await file.close();
  }
}

/** The model on a backend, ready to run. */
export async function makeDecoder(backend: Backend, model: LoadedFile, options: Partial<DecoderOptions> = {}): Promise<Decoder> {
  const settings: DecoderOptions = { contextLength: 64, cacheType: 'f32', prefillChunk: 64, ...options };
  const decoder = await Decoder.create(backend, model.config, model.weights, settings, model.ropeFactors);
  for (const [name, bytes] of model.bytes) if (decoder.tensors.get(name) !== undefined) await decoder.tensors.write(name, bytes);
  return decoder;
}

/** Logits after every id by the f64 references over the dequantised weights: [ids, vocabulary]. */
export function referenceLogits(model: LoadedFile, ids: readonly number[]): Float64Array {
  const rows = ids.length;
  const graph = decoderGraph(model.config, model.weights, { rows, maxRows: rows, contextLength: rows, cacheType: 'f32', logits: 'all' });
  const { rotated, ropeBase: base, ropePositionScale: positionScale } = model.config;
  const table = ropeTable({ positions: rows, rotated, base, positionScale, ...(model.ropeFactors ? { factors: model.ropeFactors } : {}) });
  const params = new Map<string, Float64Array>([[decoderNames.ropeTable, Float64Array.from(table)]]);
  for (const [name, type] of model.weights) params.set(name, Float64Array.from(dequantize(type.dtype, model.bytes.get(name) ?? new Uint8Array())));
  const session = new Float64Array(stateWords(rows));
  session[stateWord.rows] = rows;
  session.set(ids, stateWord.ids);
  const states = new Map<string, Float64Array>();
  for (const node of graph.nodes) if (node.op === 'state') states.set(node.params.name, new Float64Array(elementCount(node.type.shape)));
  states.set(decoderNames.session, session);
  return evaluate(graph, { params, states }).outputs.get(decoderNames.logits)?.data ?? new Float64Array();
}

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
  let total = 0;
  for (let row = 0; row < rows; row++) {
    const p = softmax(Array.prototype.slice.call(wanted, row * width, (row + 1) * width));
    const q = softmax(Array.prototype.slice.call(got, row * width, (row + 1) * width));
    total += p.reduce((sum, value, i) => sum + (value > 0 ? value * Math.log(value / (q[i] ?? 0)) : 0), 0);
  }
  return total / rows;
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
