import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { syntheticFile, syntheticModel } from '../../bench/synthetic/model.js';
import { parseSpec } from '../../bench/synthetic/shapes.js';
import { byteLengthOf } from '../../src/core/dtype.js';
import { elementCount } from '../../src/core/tensor.js';
import { openGguf } from '../../src/formats/gguf/index.js';
import { describeModel } from '../../src/model/describe.js';
import { dequantize } from '../../src/quant/index.js';
import { loadTokenizer } from '../../src/text/index.js';

const folder = mkdtempSync(join(tmpdir(), 'centella-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('synthetic models', () => {
  it.each(['tiny:q4_k_m', 'tiny:q8_0', 'tiny:q4_0', 'tiny:f16', 'tiny:f32'])('%s is a model whose weights spread by 0.02 about 0', async (text) => {
    const { path } = await syntheticFile(text, folder);
    const file = await openGguf(path);
    expect(describeModel(file).config).toMatchObject({ layers: 2, width: 256, heads: 4, kvHeads: 2, vocabulary: 2048 });
    for (const name of ['token_embd.weight', 'blk.0.attn_q.weight', 'blk.1.ffn_down.weight']) {
      const values = dequantize(file.tensors.get(name)?.dtype ?? 'f32', await file.readTensor(name));
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
      // The 4-bit numbers of Q4_0 go from -8 to 7.
      expect(Math.abs(mean)).toBeLessThan(text.endsWith('q4_0') ? 0.003 : 0.001);
      expect(deviation).toBeGreaterThan(0.018);
      expect(deviation).toBeLessThan(0.022);
    }
    await file.close();
  });

  it('have a vocabulary that writes every text', async () => {
    const file = await openGguf((await syntheticFile('tiny:q8_0', folder)).path);
    const tokenizer = loadTokenizer(file);
    const text = 'The cat, 42 ñ\n\t語';
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    await file.close();
  });

  it('are written once', async () => {
    await syntheticFile('tiny:q4_0', folder);
    expect(await syntheticFile('tiny:q4_0', folder)).toMatchObject({ written: false });
  });

  it.each([
    ['llama-3.1-8b:q4_k_m', 4.9, 'q4_k', 'q6_k', 16],
    ['llama-3.2-1b:q4_k_m', 0.8, 'q6_k', undefined, 8],
    ['qwen3-0.6b:q8_0', 0.63, 'q8_0', undefined, 0],
    ['qwen2.5-1.5b:q4_k_m', 0.98, 'q6_k', undefined, 14],
  ])('%s has the bytes and the types of the released one', (text, gigabytes, embedding, head, moreBits) => {
    const { tensors } = syntheticModel(parseSpec(text));
    const bytes = tensors.reduce((sum, { dtype, shape }) => sum + byteLengthOf(dtype, elementCount(shape)), 0);
    expect(bytes / 1e9).toBeCloseTo(gigabytes, 1);
    const typeOf = (name: string): string | undefined => tensors.find((tensor) => tensor.name === name)?.dtype;
    expect([typeOf('token_embd.weight'), typeOf('output.weight')]).toEqual([embedding, head]);
    expect(tensors.filter(({ name, dtype }) => name.endsWith('ffn_down.weight') && dtype === 'q6_k')).toHaveLength(moreBits);
  });

  it('are known by name: others are refused', () => {
    expect(() => parseSpec('llama-9')).toThrow('llama-3.1-8b');
    for (const text of ['tiny:q3_k', 'tiny:q8_0:q8_0']) expect(() => parseSpec(text)).toThrow('q4_k_m');
  });
});
