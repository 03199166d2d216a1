/** A model file on any backend, its logits by the f64 references over the same weights, and how far two rows of logits are apart. */

import { elementCount } from '../../src/core/tensor.js';
import { openGguf } from '../../src/formats/gguf/index.js';
import { evaluate } from '../../src/graph/evaluate.js';
import { Decoder } from '../../src/model/decoder.js';
import { decoderGraph, decoderNames } from '../../src/model/decoder-graph.js';
import type { DecoderOptions } from '../../src/model/decoder-runs.js';
import { describeModel, type ModelDescription } from '../../src/model/describe.js';
import { ropeTable } from '../../src/model/rope-table.js';
import { tensorNames } from '../../src/model/tensors.js';
import { stateWord, stateWords } from '../../src/ops/state.js';
import { dequantize } from '../../src/quant/index.js';
import type { Backend } from '../../src/runtime/backend.js';

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

/** ln softmax of a row. */
export function logSoftmax(row: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(row);
  const max = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const norm = max + Math.log(values.reduce((sum, value) => sum + Math.exp(value - max), 0));
  return values.map((value) => value - norm);
}

/** KL(p || q) in nats of two rows of logarithms of probabilities. */
export function divergence(logP: Float64Array, logQ: Float64Array): number {
  return logP.reduce((sum, value, i) => sum + (value === Number.NEGATIVE_INFINITY ? 0 : Math.exp(value) * (value - (logQ[i] ?? Number.NEGATIVE_INFINITY))), 0);
}
