import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type GgufInput, ggufValue, openGguf, splitGguf, writeGguf } from '../../src/gguf.js';
import { countingSource, mostReads, pattern } from './support.js';

const model: GgufInput = {
  metadata: [['general.architecture', ggufValue.string('llama')]],
  tensors: Array.from({ length: 7 }, (_, i) => ({ name: `t${i}`, dtype: 'f32' as const, shape: [100 + i], data: pattern(400 + 4 * i, i) })),
};
const shards = splitGguf('model', model, 1300).map(({ name, input }) => ({ name, bytes: writeGguf(input) }));
const shard = (i: number): Uint8Array => shards[i]?.bytes ?? new Uint8Array(0);
const refusal = { code: 'E_SPLIT' };

describe('split models', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'split-gguf-'));
    for (const { name, bytes } of shards) writeFileSync(join(folder, name), bytes);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('are cut and named as gguf-split does', () => {
    expect(shards.map(({ name }) => name)).toEqual(['model-00001-of-00003.gguf', 'model-00002-of-00003.gguf', 'model-00003-of-00003.gguf']);
  });

  it('open by the first path', async () => {
    const file = await openGguf(join(folder, 'model-00001-of-00003.gguf'));
    expect(file.getString('general.architecture')).toBe('llama');
    expect([...file.tensors.values()].map(({ name, shard }) => `${name}@${shard}`)).toEqual(['t0@0', 't1@0', 't2@0', 't3@1', 't4@1', 't5@1', 't6@2']);
    for (const { name, data } of model.tensors) expect(await file.readTensor(name)).toEqual(new Uint8Array(data as Uint8Array));
    await file.close();
  });

  it('open as a list in any order, read once, and stream in order', async () => {
    const sources = [2, 0, 1].map((i) => countingSource(shard(i), shards[i]?.name));
    const file = await openGguf(sources);
    const order: string[] = [];
    for await (const { tensor, offset, bytes } of file.streamTensors(undefined, { chunkBytes: 64 })) {
      if (offset === 0) order.push(tensor.name);
      expect(bytes).toEqual(pattern(tensor.byteLength, Number(tensor.name.slice(1))).slice(offset, offset + bytes.length));
    }
    expect(order).toEqual(model.tensors.map(({ name }) => name));
    for (const source of sources) expect(mostReads(source.reads)).toBe(1);
    await file.close();
    expect(sources.every((source) => source.closed)).toBe(true);
  });

  it('are refused when a shard is missing, doubled, foreign or not the first', async () => {
    await expect(openGguf([shard(0), shard(1)])).rejects.toMatchObject(refusal);
    await expect(openGguf([shard(0), shard(1), shard(1)])).rejects.toMatchObject(refusal);
    await expect(openGguf([shard(0), shard(1), writeGguf(model)])).rejects.toMatchObject(refusal);
    await expect(openGguf(shard(0))).rejects.toMatchObject(refusal);
    await expect(openGguf(join(folder, 'model-00002-of-00003.gguf'))).rejects.toThrow(/open the first/);
    const foreign = splitGguf('other', { ...model, tensors: model.tensors.slice(0, 6) }, 900)[2];
    await expect(openGguf([shard(0), shard(1), foreign === undefined ? shard(0) : writeGguf(foreign.input)])).rejects.toMatchObject(refusal);
    const renamed = join(folder, 'renamed.gguf');
    writeFileSync(renamed, shard(0));
    await expect(openGguf(renamed)).rejects.toThrow(/rename it/);
    const lonely = mkdtempSync(join(tmpdir(), 'lonely-gguf-'));
    writeFileSync(join(lonely, 'model-00001-of-00003.gguf'), shard(0));
    await expect(openGguf(join(lonely, 'model-00001-of-00003.gguf'))).rejects.toThrow(/model-00002-of-00003\.gguf cannot be opened/);
    rmSync(lonely, { recursive: true });
  });

  it('are refused when tensors are missing from the count or in two shards', async () => {
    const [first, second] = splitGguf('two', model, 2000);
    if (first === undefined || second === undefined) throw new Error('two shards expected');
    const fewer = { ...second.input, tensors: second.input.tensors.slice(1) };
    await expect(openGguf([writeGguf(first.input), writeGguf(fewer)])).rejects.toThrow(/7, but the 2 shards have 6/);
    const twice = { ...second.input, tensors: [...second.input.tensors.slice(1), ...first.input.tensors.slice(0, 1)] };
    await expect(openGguf([writeGguf(first.input), writeGguf(twice)])).rejects.toMatchObject({ code: 'E_NAME', tensor: 't0' });
  });

  it('close what they opened when a later shard is bad', async () => {
    const sources = [countingSource(shard(0)), countingSource(shard(1).slice(0, -100)), countingSource(shard(2))];
    await expect(openGguf(sources)).rejects.toMatchObject({ code: 'E_DATA_BOUNDS' });
    expect(sources.map(({ closed }) => closed)).toEqual([true, true, false]);
  });

  it('may consist of one', async () => {
    const [only] = splitGguf('one', model, 1e6);
    if (only === undefined) throw new Error('one shard expected');
    expect((await openGguf(writeGguf(only.input))).tensors.size).toBe(7);
  });
});
