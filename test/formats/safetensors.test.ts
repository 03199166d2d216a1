import { describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/gguf.js';
import { fixture } from '../support/fixtures.js';

function safetensors(header: unknown, dataBytes: number, headerBytes?: bigint): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, headerBytes ?? BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const tensor = (from: number, to: number, change: object = {}) => ({ dtype: 'F32', shape: [(to - from) / 4], data_offsets: [from, to], ...change });

describe('safetensors', () => {
  it('opens files written by another program', async () => {
    const file = await openSafetensors(fixture('hf/llama/expected.safetensors'));
    const ids = file.tensors.get('input_ids');
    const logits = file.tensors.get('logits');
    expect(logits?.dtype).toBe('f32');
    expect(logits?.shape[0]).toBe(ids?.shape[0]);
    expect((await file.readTensor('logits')).length).toBe(4 * (logits?.shape[0] ?? 0) * (logits?.shape[1] ?? 0));
    await expect(file.readTensor('nope')).rejects.toMatchObject({ code: 'E_TENSOR_MISSING' });
    await file.close();
  });

  it('reads tensors and metadata', async () => {
    const file = await openSafetensors(
      safetensors(
        { __metadata__: { format: 'pt' }, b: tensor(8, 12), a: tensor(0, 8, { shape: [2, 1] }), c: { dtype: 'BF16', shape: [], data_offsets: [12, 14] } },
        14,
      ),
    );
    expect(file.metadata.get('format')).toBe('pt');
    expect([...file.tensors.values()].map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual([
      ['a', 'f32', [2, 1]],
      ['b', 'f32', [1]],
      ['c', 'bf16', []],
    ]);
  });

  it.each([
    ['too short', new Uint8Array(7), 'E_TRUNCATED'],
    ['a header of 2^63 bytes', safetensors({}, 0, 2n ** 63n), 'E_COUNT'],
    ['a header past the end', safetensors({}, 0, 3n), 'E_TRUNCATED'],
    ['no JSON', safetensors('{"a":', 0), 'E_METADATA'],
    [
      'not UTF-8',
      (() => {
        const bytes = safetensors('{"a":1}', 0);
        bytes[10] = 0xff;
        return bytes;
      })(),
      'E_UTF8',
    ],
    ['a list', safetensors([], 0), 'E_METADATA'],
    ['an entry that is a number', safetensors({ a: 1 }, 0), 'E_METADATA'],
    ['metadata that is not text', safetensors({ __metadata__: { a: 1 } }, 0), 'E_METADATA'],
    ['an unknown type', safetensors({ a: tensor(0, 4, { dtype: 'F3' }) }, 4), 'E_TENSOR_TYPE'],
    ['a negative size', safetensors({ a: tensor(0, 4, { shape: [-1] }) }, 4), 'E_SHAPE'],
    ['a size that is not the span', safetensors({ a: tensor(0, 4, { shape: [2] }) }, 4), 'E_SHAPE'],
    ['more than 2^53 bytes', safetensors({ a: tensor(0, 4, { shape: [2 ** 30, 2 ** 30] }) }, 4), 'E_OVERFLOW'],
    ['one offset', safetensors({ a: tensor(0, 4, { data_offsets: [0] }) }, 4), 'E_OFFSET'],
    ['a gap', safetensors({ a: tensor(0, 4), b: tensor(8, 12) }, 12), 'E_OFFSET'],
    ['an overlap', safetensors({ a: tensor(0, 8), b: tensor(4, 12) }, 12), 'E_OFFSET'],
    ['data that is short', safetensors({ a: tensor(0, 8) }, 4), 'E_DATA_BOUNDS'],
    ['bytes after the data', safetensors({ a: tensor(0, 8) }, 9), 'E_DATA_BOUNDS'],
  ])('refuses %s', async (_, bytes, code) => {
    await expect(openSafetensors(bytes)).rejects.toMatchObject({ name: 'FormatError', code });
  });

  it('keeps a tensor named __proto__ a tensor', async () => {
    const file = await openSafetensors(safetensors(`{"__proto__":${JSON.stringify(tensor(0, 4))}}`, 4));
    expect(file.tensors.get('__proto__')?.shape).toEqual([1]);
  });
});
