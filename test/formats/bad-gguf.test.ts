import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { badFiles } from '../../bench/gguf/bad-files.js';
import { FormatError, ggufValue, openGguf, quantize, writeGguf } from '../../src/gguf.js';
import { describeExternal } from '../support/fixtures.js';
import { containerCodes } from '../support/malformed-codes.js';

async function failureOf(bytes: Uint8Array): Promise<unknown> {
  try {
    const file = await openGguf(bytes);
    await file.close();
    return undefined;
  } catch (error) {
    return error;
  }
}

describe('malformed files', () => {
  it.each(badFiles.filter(({ code }) => code !== undefined))('refuses: $name ($code)', async ({ bytes, code, key, tensor }) => {
    const error = await failureOf(bytes);
    expect(error).toBeInstanceOf(FormatError);
    expect(error).toMatchObject({ code, ...(key === undefined ? {} : { key }), ...(tensor === undefined ? {} : { tensor }) });
    // Faults of a set of files have no byte of their own.
    if (code !== 'E_SPLIT') expect((error as FormatError).offset).toBeGreaterThanOrEqual(0);
  });

  it.each(badFiles.filter(({ code }) => code === undefined))('loads: $name', async ({ bytes, warns = false }) => {
    const file = await openGguf(bytes);
    expect(file.warnings.length).toBe(warns ? 1 : 0);
    await file.close();
  });

  it('keeps keys that look like parts of objects harmless', async () => {
    const file = await openGguf(badFiles.find(({ name }) => name === 'key __proto__')?.bytes ?? new Uint8Array(0));
    expect(file.getIntArray('__proto__')).toEqual(Uint32Array.of(7));
    expect(file.metadata.get('constructor')).toBeUndefined();
    expect(Object.getPrototypeOf({})).toBe(Object.prototype);
  });

  it('says what to do about the byte order', async () => {
    expect(String(await failureOf(badFiles.find(({ name }) => name === 'big-endian')?.bytes ?? new Uint8Array(0)))).toContain('big-endian');
  });
});

describeExternal('the generator of malformed files', ['tools/bad_gguf.mjs'], (generator) => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'bad-gguf-'));
    expect(spawnSync(process.execPath, [generator, folder]).status).toBe(0);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('has 61 files, each of which gets its code', async () => {
    const names = readdirSync(folder).sort();
    const verdicts = await Promise.all(
      names.map(async (name) => {
        const error = await failureOf(readFileSync(join(folder, name)));
        return [name, error instanceof FormatError ? error.code : error];
      }),
    );
    expect(verdicts).toEqual(names.map((name) => [name, containerCodes.get(Number(name.slice(0, 2)))]));
    expect(names.length).toBe(61);
    expect(containerCodes.size).toBe(51);
  });
});

describe('mutated files', () => {
  const values = Float32Array.from({ length: 256 }, (_, i) => Math.sin(i));
  const seed = writeGguf({
    metadata: [
      ['general.architecture', ggufValue.string('llama')],
      ['llama.block_count', ggufValue.u32(1)],
      ['general.alignment', ggufValue.u32(32)],
      ['tokenizer.ggml.tokens', ggufValue.strings(['a', 'é', '', '😀', '<s>'])],
      ['tokenizer.ggml.scores', ggufValue.f32s([1, 2, 3, 4, 5])],
      ['flags', ggufValue.bools([true, false])],
      ['big', ggufValue.u64(2n ** 60n)],
    ],
    tensors: [
      { name: 'token_embd.weight', dtype: 'q4_k', shape: [1, 256], data: quantize('q4_k', values, 256) },
      { name: 'output_norm.weight', dtype: 'f32', shape: [4], data: new Uint8Array(16) },
      { name: 'blk.0.ffn_up.weight', dtype: 'f16', shape: [2, 3, 5], data: new Uint8Array(60) },
    ],
  });
  const edge = fc.constantFrom(0n, 1n, 0x7fn, 0xffn, 0xffffn, 2n ** 31n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n);
  const at = fc.nat(seed.length - 9);
  const mutation = fc.oneof(
    fc.record({ kind: fc.constant('byte' as const), at, value: fc.nat(255) }),
    fc.record({ kind: fc.constant('number' as const), at, value: edge, wide: fc.boolean() }),
    fc.record({ kind: fc.constant('copy' as const), at, from: at, length: fc.nat(40) }),
    fc.record({ kind: fc.constant('remove' as const), at, length: fc.nat(40) }),
    fc.record({ kind: fc.constant('cut' as const), at }),
  );

  function mutate(bytes: Uint8Array, change: typeof mutation extends fc.Arbitrary<infer M> ? M : never): Uint8Array {
    if (change.at + 9 > bytes.length) return bytes;
    const out = bytes.slice();
    const view = new DataView(out.buffer);
    switch (change.kind) {
      case 'byte':
        out[change.at] = change.value;
        return out;
      case 'number':
        if (change.wide) view.setBigUint64(change.at, change.value, true);
        else view.setUint32(change.at, Number(BigInt.asUintN(32, change.value)), true);
        return out;
      case 'copy':
        out.copyWithin(change.at, change.from, change.from + change.length);
        return out;
      case 'remove':
        return Uint8Array.from([...out.subarray(0, change.at), ...out.subarray(change.at + change.length)]);
      case 'cut':
        return out.subarray(0, change.at);
    }
  }

  it('load, or are refused with a typed error; what loads can be read to the end', async () => {
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 4 }), async (changes) => {
        const bytes = changes.reduce(mutate, seed);
        try {
          const file = await openGguf(bytes);
          for (const key of file.metadata.keys()) JSON.stringify(file.metadata.get(key), (_, value) => (typeof value === 'bigint' ? String(value) : value));
          for await (const piece of file.streamTensors()) expect(piece.offset + piece.bytes.length).toBeLessThanOrEqual(piece.tensor.byteLength);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
          refused++;
        }
      }),
      { numRuns: 10_000 },
    );
    expect(refused).toBeGreaterThan(1000);
  });
});
