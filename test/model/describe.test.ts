import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FormatError, UnsupportedError } from '../../src/core/errors.js';
import type { TensorType } from '../../src/core/tensor.js';
import { openGguf } from '../../src/formats/gguf/index.js';
import { type DecoderConfig, decoderConfig } from '../../src/model/decoder-config.js';
import { describeModel, type ModelFile } from '../../src/model/describe.js';
import { readHyperparameters } from '../../src/model/hyperparameters.js';
import { describeExternal, fixture } from '../support/fixtures.js';

type Value = string | number;

/** A file with one layer of 2 heads of 4 over width 8; `changes` replace keys and tensors, undefined removes them. */
function modelFile(keys: Record<string, Value | undefined> = {}, tensors: Record<string, TensorType | undefined> = {}): ModelFile {
  const architecture = `${keys['general.architecture'] ?? 'llama'}`;
  const metadata = new Map<string, Value | undefined>(
    Object.entries({
      'general.architecture': 'llama',
      [`${architecture}.block_count`]: 1,
      [`${architecture}.context_length`]: 128,
      [`${architecture}.embedding_length`]: 8,
      [`${architecture}.feed_forward_length`]: 12,
      [`${architecture}.attention.head_count`]: 2,
      [`${architecture}.attention.layer_norm_rms_epsilon`]: 1e-5,
      ...keys,
    }),
  );
  const matrix = (rows: number, columns: number): TensorType => ({ dtype: 'f16', shape: [rows, columns] });
  const vector = (size: number): TensorType => ({ dtype: 'f32', shape: [size] });
  const all: Record<string, TensorType | undefined> = {
    'token_embd.weight': matrix(10, 8),
    'output_norm.weight': vector(8),
    'blk.0.attn_norm.weight': vector(8),
    'blk.0.attn_q.weight': matrix(8, 8),
    'blk.0.attn_k.weight': matrix(8, 8),
    'blk.0.attn_v.weight': matrix(8, 8),
    'blk.0.attn_output.weight': matrix(8, 8),
    'blk.0.ffn_norm.weight': vector(8),
    'blk.0.ffn_gate.weight': matrix(12, 8),
    'blk.0.ffn_up.weight': matrix(12, 8),
    'blk.0.ffn_down.weight': matrix(8, 12),
    ...tensors,
  };
  const look =
    <T extends Value>(type: 'string' | 'number') =>
    (key: string): T | undefined => {
      const value = metadata.get(key);
      return typeof value === type ? (value as T) : undefined;
    };
  return {
    getString: look<string>('string'),
    getUint: look<number>('number'),
    getFloat: look<number>('number'),
    tensors: new Map(Object.entries(all).flatMap(([name, type]) => (type === undefined ? [] : [[name, type] as const]))),
  };
}

const configOf = (keys: Record<string, Value | undefined> = {}): DecoderConfig => decoderConfig(readHyperparameters(modelFile(keys)), 10);

function refused(file: ModelFile): unknown {
  try {
    describeModel(file);
    return undefined;
  } catch (error) {
    return error;
  }
}

describe('hyperparameters', () => {
  test('of a small file, with the defaults of what it leaves out', () => {
    expect(configOf()).toEqual({
      architecture: 'llama',
      ropePairing: 'adjacent',
      qkvBias: false,
      qkNorm: false,
      layers: 1,
      width: 8,
      feedForward: 12,
      heads: 2,
      kvHeads: 2,
      headWidth: 4,
      vocabulary: 10,
      eps: 1e-5,
      rotated: 4,
      ropeBase: 10_000,
      ropePositionScale: 1,
      trainedContext: 128,
    });
    expect(
      configOf({ 'llama.attention.head_count_kv': 1, 'llama.rope.dimension_count': 2, 'llama.rope.freq_base': 5e5, 'llama.attention.key_length': 6 }),
    ).toMatchObject({
      kvHeads: 1,
      rotated: 2,
      ropeBase: 5e5,
      headWidth: 6,
    });
  });

  test('absent ones are undefined until a decoder needs them', () => {
    const file = modelFile({ 'llama.block_count': undefined, 'llama.context_length': undefined });
    expect(readHyperparameters(file)).toMatchObject({ blockCount: undefined, contextLength: undefined, headCount: 2 });
    expect(refused(file)).toMatchObject({ code: 'E_HPARAM', key: 'llama.block_count' });
  });

  test.each<[string, Record<string, Value | undefined>]>([
    ['general.architecture', { 'general.architecture': undefined }],
    ['llama.block_count', { 'llama.block_count': 2 ** 31 }],
    ['llama.block_count', { 'llama.block_count': 0 }],
    ['llama.attention.head_count', { 'llama.attention.head_count': 0 }],
    ['llama.attention.head_count', { 'llama.attention.head_count': 3 }],
    ['llama.attention.head_count_kv', { 'llama.attention.head_count_kv': 3 }],
    ['llama.attention.head_count_kv', { 'llama.attention.head_count': 4, 'llama.attention.head_count_kv': 3 }],
    ['llama.attention.layer_norm_rms_epsilon', { 'llama.attention.layer_norm_rms_epsilon': Number.NaN }],
    ['llama.attention.layer_norm_rms_epsilon', { 'llama.attention.layer_norm_rms_epsilon': -1 }],
    ['llama.rope.dimension_count', { 'llama.rope.dimension_count': 3 }],
    ['llama.rope.dimension_count', { 'llama.rope.dimension_count': 6 }],
    ['llama.rope.freq_base', { 'llama.rope.freq_base': 0 }],
    ['llama.rope.scaling.factor', { 'llama.rope.scaling.factor': Number.POSITIVE_INFINITY }],
    ['llama.embedding_length', { 'llama.embedding_length': 2 ** 21 }],
  ])('%s is refused as in %o', (key, keys) => {
    const error = refused(modelFile(keys));
    expect(error).toBeInstanceOf(FormatError);
    expect(error).toMatchObject({ code: 'E_HPARAM', key });
  });

  test('RoPE scaling is none, linear or by rope_freqs; others are refused, not ignored', () => {
    expect(configOf({ 'llama.rope.scaling.type': 'none', 'llama.rope.scaling.factor': 4 }).ropePositionScale).toBe(1);
    expect(configOf({ 'llama.rope.scaling.type': 'linear', 'llama.rope.scaling.factor': 4 }).ropePositionScale).toBe(4);
    expect(configOf({ 'llama.rope.scaling.type': 'linear' }).ropePositionScale).toBe(1);
    for (const type of ['yarn', 'longrope', 'dynamic']) expect(() => configOf({ 'llama.rope.scaling.type': type })).toThrow(UnsupportedError);
  });

  test('other architectures and value heads of their own width are refused with what there is', () => {
    expect(() => configOf({ 'general.architecture': 'rwkv7' })).toThrow('this build runs llama, qwen2, qwen3');
    expect(() => configOf({ 'llama.attention.value_length': 8 })).toThrow(UnsupportedError);
  });
});

describe('tensors', () => {
  test('are found with their types; those of other uses are left out', () => {
    const { weights } = describeModel(modelFile({}, { 'rope_freqs.weight': { dtype: 'f32', shape: [2] }, 'extra.weight': { dtype: 'f32', shape: [3] } }));
    expect(weights.size).toBe(12);
    expect(weights.get('rope_freqs.weight')).toEqual({ dtype: 'f32', shape: [2] });
    expect(weights.has('extra.weight')).toBe(false);
  });

  test.each<[string, string, Record<string, TensorType | undefined>]>([
    ['E_TENSOR_MISSING', 'token_embd.weight', { 'token_embd.weight': undefined }],
    ['E_TENSOR_MISSING', 'blk.0.ffn_up.weight', { 'blk.0.ffn_up.weight': undefined }],
    ['E_TENSOR_SHAPE', 'blk.0.attn_k.weight', { 'blk.0.attn_k.weight': { dtype: 'f16', shape: [4, 8] } }],
    ['E_TENSOR_SHAPE', 'output.weight', { 'output.weight': { dtype: 'f16', shape: [11, 8] } }],
    ['E_TENSOR_SHAPE', 'rope_freqs.weight', { 'rope_freqs.weight': { dtype: 'f32', shape: [4] } }],
    ['E_TENSOR_SHAPE', 'output_norm.weight', { 'output_norm.weight': { dtype: 'f32', shape: [1, 8] } }],
    ['E_TENSOR_TYPE', 'output_norm.weight', { 'output_norm.weight': { dtype: 'f16', shape: [8] } }],
  ])('%s for %s', (code, tensor, tensors) => {
    const error = refused(modelFile({}, tensors));
    expect(error).toBeInstanceOf(FormatError);
    expect(error).toMatchObject({ code, tensor });
  });

  test('Qwen 2 needs the biases, Qwen 3 the norms of its heads', () => {
    expect(refused(modelFile({ 'general.architecture': 'qwen2' }))).toMatchObject({ code: 'E_TENSOR_MISSING', tensor: 'blk.0.attn_q.bias' });
    expect(refused(modelFile({ 'general.architecture': 'qwen3' }))).toMatchObject({ code: 'E_TENSOR_MISSING', tensor: 'blk.0.attn_q_norm.weight' });
  });

  test('of the fixture are those of its configuration', async () => {
    const file = await openGguf(fixture('gguf/llama3.gguf'));
    const { config, weights } = describeModel(file);
    expect(weights.get('blk.0.attn_k.weight')?.shape).toEqual([config.kvHeads * config.headWidth, config.width]);
    await file.close();
  });
});

describeExternal('the generator of malformed files', ['tools/bad_gguf.mjs'], (generator) => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'bad-model-'));
    expect(spawnSync(process.execPath, [generator, folder]).status).toBe(0);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.each([
    [58, 'llama.block_count'],
    [59, 'llama.attention.head_count'],
    [60, 'llama.attention.layer_norm_rms_epsilon'],
  ])('file %d is refused for %s', async (number, key) => {
    const name = readdirSync(folder).find((entry) => entry.startsWith(`${number}`));
    const file = await openGguf(join(folder, name ?? ''));
    expect(refused(file)).toMatchObject({ code: 'E_HPARAM', key });
    await file.close();
  });
});
