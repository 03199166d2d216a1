import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ArgumentError, FormatError } from '../../src/core/errors.js';
import { TensorStore } from '../../src/runtime/tensors.js';
import { storingBackend } from './support.js';

const bytes = (count: number): Uint8Array => Uint8Array.from({ length: count }, (_, i) => (i * 37 + 1) % 251);
/** 10 rows of 8 bytes in shards of 4 rows. */
const matrix = { dtype: 'f16', shape: [10, 4] } as const;

describe('TensorStore', () => {
  test('streams a weight in pieces of any size into its shards', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(80), { maxLength: 6 }), async (cuts) => {
        const { backend, live } = storingBackend();
        const tensors = new TensorStore(backend);
        const { shards, byteLength } = await tensors.allocate('w', matrix, 'weights');
        expect([shards.length, byteLength]).toEqual([3, 80]);
        const writer = tensors.writer('w');
        const borders = [0, ...cuts.sort((a, b) => a - b), 80];
        for (const [i, start] of borders.entries()) await writer.push(bytes(80).slice(start, borders[i + 1] ?? 80));
        await writer.finish();
        expect([...live.values()].flatMap((part) => [...part])).toEqual([...bytes(80)]);
      }),
    );
  });

  test('streams what is no weight as it comes, odd lengths too', async () => {
    const { backend, live } = storingBackend();
    const tensors = new TensorStore(backend);
    await tensors.allocate('s', { dtype: 'f16', shape: [9] }, 'state');
    const writer = tensors.writer('s');
    for (const [start, end] of [
      [0, 3],
      [3, 3],
      [3, 11],
      [11, 18],
    ] as const)
      await writer.push(bytes(18).subarray(start, end));
    await writer.finish();
    expect([...(live.get('s') ?? [])]).toEqual([...bytes(18)]);
  });

  test('refuses too few and too many bytes, and names the tensor', async () => {
    const tensors = new TensorStore(storingBackend().backend);
    await tensors.allocate('w', matrix, 'weights');
    await tensors.allocate('v', { dtype: 'f32', shape: [4] }, 'weights');
    for (const [name, count] of [
      ['w', 79],
      ['w', 88],
      ['v', 12],
      ['v', 17],
    ] as const) {
      await expect(tensors.write(name, bytes(count))).rejects.toMatchObject({ code: 'E_DATA_BOUNDS', tensor: name });
      await expect(tensors.write(name, bytes(count))).rejects.toBeInstanceOf(FormatError);
    }
    expect(() => tensors.writer('unknown')).toThrow(ArgumentError);
  });

  test('a name is one tensor of one type and layout', async () => {
    const tensors = new TensorStore(storingBackend().backend);
    const first = await tensors.allocate('w', matrix, 'weights');
    expect(await tensors.allocate('w', matrix, 'weights')).toBe(first);
    await expect(tensors.allocate('w', { dtype: 'f32', shape: [10, 4] }, 'weights')).rejects.toThrow('is f16[10, 4] already');
    await expect(tensors.allocate('w', matrix, 'state')).rejects.toThrow('cannot be a weight and a state');
    const cache = { dtype: 'f32', shape: [2, 3, 4] } as const;
    expect(await tensors.allocate('cache', cache, 'kv')).toBe(await tensors.allocate('cache', cache, 'state'));
  });

  test('gives everything back, and what it had taken where it fails', async () => {
    const storing = storingBackend();
    const tensors = new TensorStore(storing.backend);
    storing.remaining = 2;
    await expect(tensors.allocate('w', matrix, 'weights')).rejects.toThrow('no room');
    expect(storing.live.size).toBe(0);
    expect(tensors.get('w')).toBeUndefined();
    storing.remaining = 10;
    await tensors.allocate('w', matrix, 'weights');
    await tensors.allocate('v', matrix, 'weights');
    tensors.free('v');
    tensors.free('v');
    expect(storing.live.size).toBe(3);
    tensors.dispose();
    expect(storing.live.size).toBe(0);
  });
});
