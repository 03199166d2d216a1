/** Model files with the shapes and block types of released models and random weights: what speed depends on, in seconds and without a download. */

import { mkdir, open, rename, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { byteLengthOf } from '../../src/core/dtype.js';
import { elementCount } from '../../src/core/tensor.js';
import { type GgufInput, type GgufTensorInput, type GgufValue, ggufChunks, ggufValue } from '../../src/gguf.js';
import { parseSpec, type SyntheticSpec, type SyntheticType, typeOf } from './shapes.js';
import { vocabularyMetadata } from './vocabulary.js';
import { randomBlocks } from './weights.js';

export interface SyntheticFile {
  readonly path: string;
  readonly bytes: number;
  /** False where an earlier run had left it. */
  readonly written: boolean;
}

/** The file of "llama-3.1-8b:q4_k_m", written where it is not there yet. It stays: files of several gigabytes are worth keeping between runs. */
export async function syntheticFile(text: string, folder = join(tmpdir(), 'centella-synthetic')): Promise<SyntheticFile> {
  const spec = parseSpec(text);
  const input = syntheticModel(spec);
  const path = join(folder, `${spec.name}-${spec.mix}.gguf`);
  const known = await stat(path).catch(() => undefined);
  if (known !== undefined && known.size === (await byteLength(input))) return { path, bytes: known.size, written: false };
  await mkdir(folder, { recursive: true });
  // Under another name until it is whole: a run that was stopped leaves no half model.
  const unfinished = `${path}.${process.pid}`;
  const file = await open(unfinished, 'w');
  let bytes = 0;
  for await (const chunk of ggufChunks(input)) {
    await file.writeFile(chunk);
    bytes += chunk.length;
  }
  await file.close();
  await rename(unfinished, path);
  return { path, bytes, written: true };
}

/** Bytes of the file, from its header alone. */
async function byteLength(input: GgufInput): Promise<number> {
  const aligned = (bytes: number): number => Math.ceil(bytes / 32) * 32;
  for await (const header of ggufChunks(input)) {
    return input.tensors.reduce((sum, { dtype, shape }) => sum + aligned(byteLengthOf(dtype, elementCount(shape))), header.length);
  }
  return 0;
}

export function syntheticModel(spec: SyntheticSpec): GgufInput {
  return { metadata: metadata(spec), tensors: tensors(spec) };
}

function metadata({ name, mix, shape, config }: SyntheticSpec): [string, GgufValue][] {
  const { architecture } = shape;
  const numbers: Record<string, number> = {
    block_count: shape.layers,
    context_length: shape.trainedContext,
    embedding_length: shape.width,
    feed_forward_length: shape.feedForward,
    'attention.head_count': shape.heads,
    'attention.head_count_kv': shape.kvHeads,
    'attention.key_length': shape.headWidth,
    'attention.value_length': shape.headWidth,
    'rope.dimension_count': config.rotated,
  };
  return [
    ['general.architecture', ggufValue.string(architecture)],
    ['general.name', ggufValue.string(`random weights in the shape of ${name}, ${mix}`)],
    ...Object.entries(numbers).map(([key, value]): [string, GgufValue] => [`${architecture}.${key}`, ggufValue.u32(value)]),
    [`${architecture}.rope.freq_base`, ggufValue.f32(shape.ropeBase)],
    [`${architecture}.attention.layer_norm_rms_epsilon`, ggufValue.f32(config.eps)],
    ...vocabularyMetadata(shape.vocabulary, architecture === 'llama' ? 'llama-bpe' : 'qwen2'),
  ];
}

function tensors(spec: SyntheticSpec): GgufTensorInput[] {
  const { shape, config } = spec;
  const { width, feedForward, headWidth, vocabulary } = shape;
  const [queries, keys] = [shape.heads * headWidth, shape.kvHeads * headWidth];
  const list: GgufTensorInput[] = [];
  const matrix = (prefix: string, part: string, layer: number, rows: number, columns: number): void => {
    const dtype = typeOf(part, layer, spec);
    list.push({ name: `${prefix}${part}`, dtype, shape: [rows, columns], data: blocks(dtype, rows * columns, list.length) });
  };
  const vector = (name: string, length: number, value: number): void => {
    list.push({ name, dtype: 'f32', shape: [length], data: new Uint8Array(new Float32Array(length).fill(value).buffer) });
  };
  matrix('', 'token_embd.weight', 0, vocabulary, width);
  if (shape.ropeFactor !== undefined) list.push(ropeFactors(shape.ropeBase, headWidth, shape.ropeFactor));
  for (let layer = 0; layer < shape.layers; layer++) {
    const prefix = `blk.${layer}.`;
    vector(`${prefix}attn_norm.weight`, width, 1);
    matrix(prefix, 'attn_q.weight', layer, queries, width);
    matrix(prefix, 'attn_k.weight', layer, keys, width);
    matrix(prefix, 'attn_v.weight', layer, keys, width);
    matrix(prefix, 'attn_output.weight', layer, width, queries);
    vector(`${prefix}ffn_norm.weight`, width, 1);
    matrix(prefix, 'ffn_gate.weight', layer, feedForward, width);
    matrix(prefix, 'ffn_up.weight', layer, feedForward, width);
    matrix(prefix, 'ffn_down.weight', layer, width, feedForward);
    if (config.qkNorm) for (const part of ['attn_q_norm.weight', 'attn_k_norm.weight']) vector(`${prefix}${part}`, headWidth, 1);
    if (config.qkvBias)
      for (const [part, length] of [
        ['attn_q.bias', queries],
        ['attn_k.bias', keys],
        ['attn_v.bias', keys],
      ] as const)
        vector(`${prefix}${part}`, length, 0);
  }
  vector('output_norm.weight', width, 1);
  if (!shape.tied) matrix('', 'output.weight', 0, vocabulary, width);
  return list;
}

function blocks(dtype: SyntheticType, elements: number, tensor: number): () => Iterable<Uint8Array> {
  return () => randomBlocks(dtype, byteLengthOf(dtype, elements), tensor);
}

/** Llama 3's factors: waves longer than the first training's context are stretched, short ones are left, those between are blended. */
function ropeFactors(base: number, headWidth: number, factor: number): GgufTensorInput {
  const [trained, low, high] = [8192, 1, 4];
  const factors = Float32Array.from({ length: headWidth / 2 }, (_, i) => {
    const turns = trained / (2 * Math.PI * base ** ((2 * i) / headWidth));
    const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return 1 / (kept + (1 - kept) / factor);
  });
  return { name: 'rope_freqs.weight', dtype: 'f32', shape: [factors.length], data: new Uint8Array(factors.buffer) };
}
