import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ggufValue, writeGguf } from '../../src/gguf.js';
import { loadModel } from '../../src/llm.js';
import { centella, centellaHere, outputOf } from '../support/cli.js';
import { describeExternal, fixture, repositoryFile } from '../support/fixtures.js';
import { containerCodes, contentCodes } from '../support/malformed-codes.js';

const tales = repositoryFile('models/tales-7m.Q8_0.gguf');

describe('centella inspect', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'centella-inspect-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('shows what a model holds', async () => {
    const text = await outputOf(['inspect', tales]);
    for (const line of [
      /^architecture +llama$/m,
      /^vocabulary +gpt2 \(gpt-2\), 4,096 tokens/m,
      /block_count +8$/m,
      /rope\.scaling\.type +unknown$/m,
      /q8_0 +57 tensors/m,
    ]) {
      expect(text).toMatch(line);
    }
    expect(text).toMatch(/^ +blk\.7\.ffn_up\.weight +q8_0 \[768, 256\] +204\.0 KiB$/m);
  });

  it.each([
    [tales, undefined],
    [tales, 'q8_0'],
    [fixture('gguf/llama3.gguf'), undefined],
  ] as const)('tells the memory that loading then takes: %s with a cache of type %s', async (source, cacheType) => {
    const { memory } = JSON.parse(await outputOf(['inspect', source, '--context', '48', '--json', ...(cacheType === undefined ? [] : ['--kv', cacheType])]));
    const model = await loadModel(source, { device: 'cpu', contextLength: 48, ...(cacheType === undefined ? {} : { cacheType }) });
    const { bytes, byClass } = model.ledger();
    model.dispose();
    expect(memory.context).toBe(48);
    expect(memory.cpu).toEqual({
      weights: byClass.weights.bytes,
      kv: byClass.kv.bytes,
      arena: byClass.arena.bytes,
      other: byClass.constants.bytes + byClass.state.bytes,
      total: bytes,
    });
    expect(memory.webgpu.weights).toBeGreaterThan(0.9 * memory.cpu.weights);
  });

  it('shows what a file says, and obeys none of it', async () => {
    const command = '\u001b]0;title\u0007\u009b31m\r\n\u202e';
    const path = join(folder, 'commands.gguf');
    const metadata = ['general.architecture', 'general.name', 'tokenizer.ggml.model', `key ${command}`].map(
      (key) => [key, ggufValue.string(`of ${key}: ${command}${'x'.repeat(1000)}`)] as const,
    );
    const tensor = { name: `t${command}`, dtype: 'f32', shape: [1], data: new Uint8Array(4) } as const;
    writeFileSync(path, writeGguf({ metadata, tensors: [{ ...tensor, name: 'token_embd.weight', shape: [1, 1] }, tensor] }));
    for (const args of [
      ['inspect', path],
      ['inspect', path, '--json'],
      ['run', path, '--device', 'cpu', '--prompt', 'a'],
    ]) {
      const { status, stdout, stderr } = await centellaHere(args);
      expect(status).toBe(args[0] === 'inspect' ? 0 : 1);
      expect((stdout + stderr).replaceAll('\n', '')).not.toMatch(/[\p{Cc}\u202e]/u);
      expect(stdout + stderr).toContain('\\u001b]0;title');
    }
  });

  it('looks at files that it cannot run, and says what it does not know', async () => {
    const path = join(folder, 'other.gguf');
    writeFileSync(
      path,
      writeGguf({
        metadata: [['general.architecture', ggufValue.string('sequoia')]],
        tensors: [{ name: 'a', dtype: 'f32', shape: [2, 3], data: new Uint8Array(24) }],
      }),
    );
    const found = JSON.parse(await outputOf(['inspect', path, '--json']));
    expect(found).toMatchObject({
      architecture: 'sequoia',
      name: null,
      vocabulary: null,
      bytes_by_type: [{ dtype: 'f32', tensors: 1, elements: 6, bytes: 24 }],
    });
    expect(found.hyperparameters.block_count).toBeNull();
    expect(found.memory.reason).toContain('token_embd.weight');
    const nameless = join(folder, 'nameless.gguf');
    writeFileSync(nameless, writeGguf({ metadata: [], tensors: [] }));
    expect(await outputOf(['inspect', nameless])).toMatch(/^architecture +unknown$/m);
  });
});

/** What each of the generator's files must say, by number; the others load. */
const codes = new Map([...containerCodes, ...contentCodes]);

describeExternal('centella inspect of malformed files', ['tools/bad_gguf.mjs'], (generator) => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'centella-bad-'));
    expect(spawnSync(process.execPath, [generator, folder]).status).toBe(0);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it.each([0, 1, 54, 57, 60])('file %i: a process ends as the command says', async (number) => {
    const path = join(folder, readdirSync(folder).find((entry) => Number(entry.slice(0, 2)) === number) ?? '');
    expect(await centella(['inspect', path])).toEqual(await centellaHere(['inspect', path]));
  });

  it('are 61, of which 57 are refused', () => {
    expect(readdirSync(folder)).toHaveLength(61);
    expect(codes.size).toBe(57);
  });

  it.each(Array.from({ length: 61 }, (_, number) => [number, codes.get(number) ?? 'loads'] as const))('file %i: %s', async (number, code) => {
    const name = readdirSync(folder).find((entry) => Number(entry.slice(0, 2)) === number) ?? '';
    const { status, stdout, stderr } = await centellaHere(['inspect', join(folder, name)]);
    const verdict = { status, code: /\[(E_[A-Z0-9_]+)\]$/m.exec(stderr)?.[1] ?? 'loads', warns: stderr.startsWith('warning: '), shown: stdout !== '' };
    expect(verdict).toEqual({ status: code === 'loads' ? 0 : 1, code, warns: number === 54, shown: code === 'loads' });
  });
});
