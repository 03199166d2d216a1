import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type DType, dtypeNames, dtypes } from '../../src/core/dtype.js';
import { decodeStrings } from '../../src/formats/gguf/strings.js';
import type { ByteSource } from '../../src/formats/source.js';
import {
  AbortedError,
  ArgumentError,
  DisposedError,
  FormatError,
  type GgufFile,
  type GgufInput,
  type GgufTensorInput,
  type GgufValue,
  ggufChunks,
  ggufValue,
  openGguf,
  writeGguf,
  writeGgufTo,
} from '../../src/gguf.js';
import { fixture } from '../support/fixtures.js';
import { countingSource, expectBytes, mostReads, pattern } from './support.js';

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return new Uint8Array(Buffer.concat(parts));
}

/** All streamed bytes by tensor, and the order in which tensors came. */
async function streamed(file: GgufFile, names?: readonly string[], chunkBytes?: number): Promise<Map<string, Uint8Array>> {
  const all = new Map<string, Uint8Array>();
  for await (const { tensor, offset, bytes } of file.streamTensors(names, { chunkBytes })) {
    const target = all.get(tensor.name) ?? new Uint8Array(tensor.byteLength);
    all.set(tensor.name, target);
    expect(offset % 8).toBe(0);
    target.set(bytes, offset);
  }
  return all;
}

const word = fc.string({ unit: 'grapheme', maxLength: 12 });
const key = fc.string({ unit: fc.constantFrom(...'abc._é'), minLength: 1, maxLength: 20 });
const value: fc.Arbitrary<GgufValue> = fc.oneof(
  fc.nat(255).map(ggufValue.u8),
  fc.integer({ min: -128, max: 127 }).map(ggufValue.i8),
  fc.nat(65535).map(ggufValue.u16),
  fc.integer({ min: -32768, max: 32767 }).map(ggufValue.i16),
  fc.nat().map(ggufValue.u32),
  fc.integer().map(ggufValue.i32),
  fc.float().map(ggufValue.f32),
  fc.double().map(ggufValue.f64),
  fc.bigInt(0n, 2n ** 64n - 1n).map(ggufValue.u64),
  fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n).map(ggufValue.i64),
  fc.boolean().map(ggufValue.bool),
  word.map(ggufValue.string),
  fc.array(word).map(ggufValue.strings),
  fc.array(fc.nat()).map(ggufValue.u32s),
  fc.array(fc.integer()).map(ggufValue.i32s),
  fc.array(fc.float()).map(ggufValue.f32s),
  fc.array(fc.boolean()).map(ggufValue.bools),
  fc.bigUint64Array().map((values): GgufValue => ({ type: 'array', elementType: 'u64', values })),
  fc.float64Array().map((values): GgufValue => ({ type: 'array', elementType: 'f64', values })),
);
const dtype = fc.constantFrom<DType>(...dtypeNames.filter((name) => dtypes[name].ggml !== undefined));
const tensors = fc.uniqueArray(
  fc.record({
    name: fc.string({ unit: fc.constantFrom(...'abcé.'), minLength: 1, maxLength: 30 }),
    dtype,
    rows: fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 3 }),
    blocks: fc.integer({ min: 1, max: 3 }),
  }),
  { selector: ({ name }) => name, maxLength: 6 },
);
const input: fc.Arbitrary<GgufInput> = fc
  .record({
    version: fc.constantFrom(2 as const, 3 as const),
    metadata: fc.uniqueArray(fc.tuple(key, value), { selector: ([name]) => name, maxLength: 8 }),
    alignment: fc.constantFrom(8, 32, 256),
    tensors,
  })
  .map(({ tensors, ...rest }) => ({
    ...rest,
    tensors: tensors.map(({ name, dtype, rows, blocks }, i): GgufTensorInput => {
      const shape = [...rows, blocks * dtypes[dtype].block];
      const size = rows.reduce((a, b) => a * b, 1) * blocks * dtypes[dtype].bytes;
      return { name, dtype, shape, data: pattern(size, i) };
    }),
  }));

describe('what is written is read', () => {
  it('for any metadata and tensors, from memory, from chunks and through streams', async () => {
    await fc.assert(
      fc.asyncProperty(input, fc.constantFrom(8, 64, 4096), async (written, chunkBytes) => {
        const bytes = writeGguf(written);
        expectBytes(await collect(ggufChunks(written)), bytes);
        const source = countingSource(bytes);
        const file = await openGguf(source);
        expect(file.version).toBe(written.version);
        expect(file.warnings).toEqual([]);
        const metadata = new Map(written.metadata);
        if (written.alignment !== 32) metadata.set('general.alignment', ggufValue.u32(written.alignment ?? 0));
        expect(plain(file.metadata)).toEqual(plain(metadata));
        expect([...file.tensors.values()].map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual(
          written.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
        );
        const all = await streamed(file, undefined, chunkBytes);
        for (const tensor of written.tensors) expectBytes(all.get(tensor.name), tensor.data as Uint8Array);
        expect(mostReads(source.reads)).toBeLessThanOrEqual(1);
        for (const tensor of written.tensors) expectBytes(await file.readTensor(tensor.name), tensor.data as Uint8Array);
        await file.close();
        expect(source.closed).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  /** Array-likes as lists, so that lazily decoded strings compare with plain ones. */
  function plain(metadata: ReadonlyMap<string, GgufValue>): unknown {
    return [...metadata].map(([name, item]) => [name, item.type === 'array' ? { type: item.elementType, values: [...item.values] } : item]);
  }

  it('through a sink that is waited for, with tensors made on the way', async () => {
    const log: string[] = [];
    const parts: Uint8Array[] = [];
    const data = pattern(4096, 5);
    await writeGgufTo(
      {
        async write(bytes) {
          log.push('begin');
          await Promise.resolve();
          parts.push(bytes);
          log.push('end');
        },
      },
      {
        metadata: [],
        tensors: [
          {
            name: 'a',
            dtype: 'f32',
            shape: [4, 256],
            *data() {
              for (let at = 0; at < 4096; at += 1000) yield data.subarray(at, at + 1000);
            },
          },
        ],
      },
    );
    expect(log.join(' ')).toMatch(/^(begin end ?)+$/);
    const file = await openGguf(new Uint8Array(Buffer.concat(parts)));
    expect(await file.readTensor('a')).toEqual(data);
  });

  it('or it is not written', async () => {
    const tensor = (change: Partial<GgufTensorInput>): GgufInput => ({
      metadata: [],
      tensors: [{ name: 'a', dtype: 'q4_0', shape: [2, 32], data: new Uint8Array(36), ...change }],
    });
    expect(() => writeGguf(tensor({}))).not.toThrow();
    for (const change of [
      { name: '' },
      { name: 'n'.repeat(64) },
      { shape: [64, 1] },
      { shape: [] },
      { shape: [0, 32] },
      { data: new Uint8Array(35) },
      { dtype: 'u8' },
    ] as const) {
      expect(() => writeGguf(tensor(change)), JSON.stringify(change)).toThrow(ArgumentError);
    }
    expect(() => writeGguf({ metadata: [], tensors: [], alignment: 12 })).toThrow(ArgumentError);
    await expect(collect(ggufChunks(tensor({ data: () => [new Uint8Array(37)] })))).rejects.toThrow(ArgumentError);
    await expect(collect(ggufChunks(tensor({ data: () => [new Uint8Array(30)] })))).rejects.toThrow(ArgumentError);
  });
});

describe('reading', () => {
  const large = writeGguf({
    metadata: [['tokens', ggufValue.strings(Array.from({ length: 40_000 }, (_, i) => `token ${i}`))]],
    tensors: Array.from({ length: 20 }, (_, i) => ({ name: `t${i}`, dtype: 'f32' as const, shape: [1000 + i], data: pattern(4 * (1000 + i), i) })),
  });

  it('reads nothing twice, and header bytes in few growing reads', async () => {
    const source = countingSource(large);
    const file = await openGguf(source);
    const headerReads = source.reads.length;
    expect(headerReads).toBeLessThan(8);
    expect(source.reads[0]).toEqual([0, 65_536]);
    await streamed(file, undefined, 16_384);
    expect(mostReads(source.reads)).toBe(1);
    expect(source.reads.reduce((sum, [, length]) => sum + length, 0)).toBeLessThanOrEqual(large.length);
    expect(source.reads.length - headerReads).toBeLessThanOrEqual(8);
  });

  it('reads only what was asked for', async () => {
    const source = countingSource(large);
    const file = await openGguf(source);
    const before = source.reads.length;
    const all = await streamed(file, ['t19', 't10', 't11'], 8192);
    expect([...all.keys()]).toEqual(['t10', 't11', 't19']);
    for (const [name, bytes] of all) expectBytes(bytes, pattern(4 * (1000 + Number(name.slice(1))), Number(name.slice(1))));
    const read = source.reads.slice(before).reduce((sum, [, length]) => sum + length, 0);
    expect(read).toBeLessThanOrEqual([...all.values()].reduce((sum, bytes) => sum + bytes.length, 0) + 64);
  });

  it('keeps two reads at most in flight, and stops when the consumer stops', async () => {
    const source = countingSource(large);
    const file = await openGguf(source);
    const before = source.reads.length;
    for await (const piece of file.streamTensors(undefined, { chunkBytes: 1024 })) {
      expect(piece.bytes.length).toBeLessThanOrEqual(1024);
      if (source.reads.length - before > 6) break;
    }
    expect(source.reads.length - before).toBeLessThanOrEqual(8);
  });

  /** The beginning comes with the header: what is beyond it must be read. */
  const long = writeGguf({
    metadata: [],
    tensors: Array.from({ length: 6 }, (_, i) => ({ name: `t${i}`, dtype: 'f32' as const, shape: [10_000 + i], data: pattern(4 * (10_000 + i), i) })),
  });

  it('cuts tensors at multiples of their unit, one unit at least, and shares reads all the same', async () => {
    const source = countingSource(long);
    const file = await openGguf(source);
    const before = source.reads.length;
    const unitBytes = ({ name }: { readonly name: string }): number => (name === 't3' ? 65_536 : name === 't4' ? 120 : 8);
    const all = new Map<string, number[]>();
    for await (const { tensor, offset, bytes } of file.streamTensors(undefined, { chunkBytes: 16_384, unitBytes })) {
      expectBytes(bytes, pattern(4 * (10_000 + Number(tensor.name.slice(1))), Number(tensor.name.slice(1))).subarray(offset, offset + bytes.length));
      all.set(tensor.name, [...(all.get(tensor.name) ?? []), bytes.length]);
    }
    expect(all.get('t3')).toEqual([40_012]);
    const cuts = all.get('t4') ?? [];
    expect(cuts.slice(0, -1).every((length) => length % 120 === 0)).toBe(true);
    expect(cuts.reduce((sum, length) => sum + length, 0)).toBe(40_016);
    expect(mostReads(source.reads.slice(before))).toBe(1);
    await expect(
      file
        .streamTensors(undefined, { unitBytes: () => 12 })
        [Symbol.asyncIterator]()
        .next(),
    ).rejects.toThrow(ArgumentError);
    await expect(file.streamTensors(undefined, { reads: 0 })[Symbol.asyncIterator]().next()).rejects.toThrow(ArgumentError);
  });

  it('reads into the same memory again where it may, as many reads at once as it is told, and leaves none behind', async () => {
    const memory = new Set<ArrayBufferLike>();
    let [now, most] = [0, 0];
    const source: ByteSource = {
      ...countingSource(long),
      async readInto(offset, target) {
        memory.add(target.buffer);
        most = Math.max(most, ++now);
        await new Promise((resolve) => setTimeout(resolve, 1));
        target.set(long.subarray(offset, offset + target.byteLength));
        now--;
      },
    };
    const file = await openGguf(source);
    let bytes = 0;
    for await (const piece of file.streamTensors(undefined, { chunkBytes: 1024, reads: 3, reuse: true })) {
      const seed = Number(piece.tensor.name.slice(1));
      expectBytes(piece.bytes, pattern(4 * (10_000 + seed), seed).subarray(piece.offset, piece.offset + piece.bytes.length));
      bytes += piece.bytes.length;
      if (bytes > 0.8 * long.length) break;
    }
    expect([most, memory.size]).toEqual([3, 3]);
    // Who left the loop may close the file, or free what the reads went to.
    expect(now).toBe(0);
  });

  it.each([
    ['fewer bytes', (bytes: Uint8Array) => bytes.subarray(1)],
    ['no bytes', () => new Uint8Array()],
    ['more bytes', (bytes: Uint8Array) => new Uint8Array(bytes.byteLength + 5)],
    ['nothing', () => undefined as unknown as Uint8Array],
    ['a list', (bytes: Uint8Array) => [...bytes] as unknown as Uint8Array],
  ])('holds a source to its word: a read that gives %s', async (_, change) => {
    for (const broken of [0, 1]) {
      const source = countingSource(long);
      const lying: ByteSource = {
        ...source,
        read: async (...range) => (source.reads.length === broken ? change(await source.read(...range)) : source.read(...range)),
      };
      const load = async (): Promise<void> => {
        const file = await openGguf(lying);
        for await (const _piece of file.streamTensors());
      };
      await expect(load()).rejects.toMatchObject({ code: 'E_IO', message: expect.stringContaining('must give a Uint8Array of') });
    }
  });

  it.each([Number.NaN, -1, 5.5, Number.POSITIVE_INFINITY])('refuses a source whose size is %s', async (size) => {
    await expect(openGguf({ ...countingSource(long), size })).rejects.toThrow(ArgumentError);
  });

  it.each(['http://', 'https://[', 'file://a b/'])('says of %s that it is no address', async (address) => {
    await expect(openGguf(address)).rejects.toMatchObject({ code: 'E_ARGUMENT', argument: 'source' });
  });

  it('takes Blobs, Files, buffers, paths and file URLs', async () => {
    const bytes = readFileSync(fixture('gguf/llama.gguf'));
    const buffer = new Uint8Array(bytes).buffer;
    const path = fixture('gguf/llama.gguf');
    for (const source of [
      path,
      new URL(`file://${path}`),
      `file://${path}`,
      buffer,
      new Uint8Array(buffer),
      new Blob([buffer]),
      new File([buffer], 'llama.gguf'),
    ]) {
      const file = await openGguf(source);
      expect(file.getString('general.architecture')).toBe('llama');
      expect(file.tensors.get('token_embd.weight')?.dtype).toBe('f32');
      const tensor = await file.readTensor('output_norm.weight');
      expect(tensor.length).toBe(file.tensors.get('output_norm.weight')?.byteLength);
      await file.close();
      expect(() => file.streamTensors()).not.toThrow();
      await expect(file.readTensor('output_norm.weight')).rejects.toThrow(DisposedError);
    }
  });

  it.each(['llama3', 'llama3.Q4_0', 'llama3.Q8_0', 'llama3.Q4_K_M', 'llama3.Q6_K'])('opens %s, written by another program', async (name) => {
    const file = await openGguf(fixture(`gguf/${name}.gguf`));
    expect(file.warnings).toEqual([]);
    const rows = file.tensors.get('blk.0.ffn_down.weight')?.shape;
    expect(rows).toEqual([file.getUint('llama.embedding_length'), file.getUint('llama.feed_forward_length')]);
    let bytes = 0;
    for await (const piece of file.streamTensors()) bytes += piece.bytes.length;
    expect(bytes).toBe([...file.tensors.values()].reduce((sum, tensor) => sum + tensor.byteLength, 0));
    await file.close();
  });

  it('can be aborted', async () => {
    await expect(openGguf(large, { signal: AbortSignal.abort() })).rejects.toThrow(AbortedError);
    const controller = new AbortController();
    const file = await openGguf(large);
    const stream = async () => {
      for await (const piece of file.streamTensors(undefined, { chunkBytes: 1024, signal: controller.signal }))
        if (piece.tensor.name === 't3') controller.abort();
    };
    await expect(stream()).rejects.toThrow(AbortedError);
  });

  it('says which tensor is missing and what a source must be', async () => {
    const file = await openGguf(large);
    await expect(file.readTensor('nope')).rejects.toMatchObject({ code: 'E_TENSOR_MISSING', tensor: 'nope' });
    expect(() => file.streamTensors(['nope'])).toThrow(FormatError);
    await expect(openGguf(42 as unknown as string)).rejects.toThrow(ArgumentError);
    await expect(openGguf([])).rejects.toThrow(ArgumentError);
    await expect(openGguf('/no/such/file.gguf')).rejects.toMatchObject({ code: 'E_IO' });
  });

  it('does not promise a tensor that no array holds', async () => {
    const header = writeGguf({ metadata: [], tensors: [{ name: 'a', dtype: 'i8', shape: [64], data: new Uint8Array(64) }] });
    new DataView(header.buffer).setBigUint64(24 + 8 + 1 + 4, 2n ** 40n, true);
    const read = async (_: number, length: number): Promise<Uint8Array> => {
      const bytes = new Uint8Array(length);
      bytes.set(header.subarray(0, length));
      return bytes;
    };
    const source = { ...countingSource(header), size: 2 ** 40 + header.length, read };
    await expect((await openGguf(source)).readTensor('a')).rejects.toMatchObject({ code: 'E_OUT_OF_MEMORY', requested: 2 ** 40 });
  });

  it('keeps to limits that the caller sets', async () => {
    const refusal = (limits: object) => expect(openGguf(large, { limits })).rejects;
    await refusal({ arrayElements: 39_999 }).toMatchObject({ code: 'E_ARRAY', key: 'tokens' });
    await refusal({ stringBytes: 8 }).toMatchObject({ code: 'E_STRING', key: 'tokens' });
    await refusal({ keyBytes: 5 }).toMatchObject({ code: 'E_STRING' });
    await refusal({ tensors: 19 }).toMatchObject({ code: 'E_COUNT' });
    await refusal({ keyValues: 0 }).toMatchObject({ code: 'E_COUNT' });
    await refusal({ headerBytes: 100_000 }).toMatchObject({ code: 'E_COUNT' });
  });
});

describe('typed getters', () => {
  const bytes = writeGguf({
    metadata: [
      ['text', ggufValue.string('x')],
      ['yes', ggufValue.bool(true)],
      ['u8', ggufValue.u8(7)],
      ['i32', ggufValue.i32(-7)],
      ['u64', ggufValue.u64(2n ** 53n)],
      ['f32', ggufValue.f32(0.5)],
      ['texts', ggufValue.strings(['a', 'b'])],
      ['ints', ggufValue.i32s([1, -2])],
      ['floats', ggufValue.f32s([0.5])],
      ['bools', ggufValue.bools([true, false])],
    ],
    tensors: [],
  });

  it('give the value, undefined for an absent key, and E_METADATA for another type', async () => {
    const file = await openGguf(bytes);
    expect(file.getString('text')).toBe('x');
    expect(file.getBoolean('yes')).toBe(true);
    expect(file.getUint('u8')).toBe(7);
    expect(file.getInt('i32')).toBe(-7);
    expect(file.getFloat('f32')).toBe(0.5);
    expect(file.getStringArray('texts')).toEqual(['a', 'b']);
    expect(file.getIntArray('ints')).toEqual(Int32Array.of(1, -2));
    expect(file.getFloatArray('floats')).toEqual(Float32Array.of(0.5));
    expect(file.getBooleanArray('bools')).toEqual(Uint8Array.of(1, 0));
    const getters = [
      (name: string) => file.getString(name),
      (name: string) => file.getBoolean(name),
      (name: string) => file.getUint(name),
      (name: string) => file.getInt(name),
      (name: string) => file.getFloat(name),
      (name: string) => file.getStringArray(name),
      (name: string) => file.getIntArray(name),
      (name: string) => file.getFloatArray(name),
      (name: string) => file.getBooleanArray(name),
    ];
    const right = ['text', 'yes', 'u8', 'u8', 'f32', 'texts', 'ints', 'floats', 'bools'];
    for (const [i, getter] of getters.entries()) {
      expect(getter('absent')).toBeUndefined();
      for (const name of ['text', 'yes', 'u8', 'f32', 'texts', 'ints', 'floats', 'bools']) {
        if (name !== right[i]) expect(() => getter(name), `${name} by getter ${i}`).toThrow(expect.objectContaining({ code: 'E_METADATA', key: name }));
      }
    }
    expect(() => file.getUint('i32')).toThrow(/negative/);
    expect(() => file.getUint('u64')).toThrow(/2\^53/);
  });
});

describe('strings', () => {
  it('decode as one by one, valid UTF-8 or not', () => {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    const bytes = fc.oneof(
      word.map((text) => new TextEncoder().encode(text)),
      fc.uint8Array({ maxLength: 6 }),
      fc.constantFrom(Uint8Array.of(0xef, 0xbb, 0xbf), Uint8Array.of(0xc3), Uint8Array.of(0xa9), Uint8Array.of(0xed, 0xa0, 0x80)),
    );
    fc.assert(
      fc.property(fc.array(bytes, { maxLength: 20 }), (parts) => {
        let end = 0;
        const ends = Uint32Array.from(parts, (part) => (end += part.length));
        expect(decodeStrings(Uint8Array.from(parts.flatMap((part) => [...part])), ends)).toEqual(parts.map((part) => decoder.decode(part)));
      }),
      { numRuns: 3000 },
    );
  });
});
