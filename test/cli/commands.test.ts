import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ggufValue, writeGguf } from '../../src/gguf.js';
import { loadModel } from '../../src/llm.js';
import { centella, outputOf } from '../support/cli.js';
import { fixture, repositoryFile } from '../support/fixtures.js';
import { byteBpeKeys } from '../text/vocabulary-file.js';

const tales = repositoryFile('models/tales-7m.Q8_0.gguf');

let folder = '';
let vocabularyOnly = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'centella-cli-'));
  vocabularyOnly = join(folder, 'vocabulary.gguf');
  const keys = Object.entries(byteBpeKeys(['a b'], [{ text: '<|end|>' }]));
  const metadata = keys.map(([key, value]) => [`tokenizer.ggml.${key}`, value] as const);
  writeFileSync(vocabularyOnly, writeGguf({ metadata: [['general.architecture', ggufValue.string('llama')], ...metadata], tensors: [] }));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('centella', () => {
  it('shows examples first, and its version', async () => {
    const help = await outputOf(['--help']);
    expect(help.startsWith('Examples:\n  centella run ')).toBe(true);
    expect(help).toContain('Usage: centella');
    for (const command of ['run', 'eval', 'tokenize', 'inspect', 'doctor', 'tune']) {
      expect((await outputOf([command, '--help'])).startsWith(`Examples:\n  centella ${command}`)).toBe(true);
    }
    expect(await outputOf(['--version'])).toBe(`${JSON.parse(readFileSync(repositoryFile('package.json'), 'utf8')).version}\n`);
  });

  it('refuses no command and an unknown one', async () => {
    expect(await centella([])).toMatchObject({ status: 2, stdout: '' });
    const { status, stderr } = await centella(['rnu', tales]);
    expect(status).toBe(2);
    expect(stderr).toContain("unknown command 'rnu'");
  });
});

describe('centella eval', () => {
  it('writes the logits of every id as little-endian float32', async () => {
    const path = join(folder, 'logits.f32');
    const source = fixture('gguf/llama.gguf');
    const ids = [1, 5, 9];
    const { status, stdout, stderr } = await centella(['eval', source, '--ids', '1,5 9', '--logits', path, '--device', 'cpu']);
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
    const bytes = readFileSync(path);
    const written = Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
    const model = await loadModel(source, { device: 'cpu' });
    expect(written).toEqual(await model.evaluate(ids));
    expect(stderr).toContain(`float32 [3, ${model.config.vocabulary}]`);
    model.dispose();
  });

  it('refuses ids that are none, and places where nothing can be written', async () => {
    const source = fixture('gguf/llama.gguf');
    expect(await centella(['eval', source, '--ids', '1,x', '--logits', join(folder, 'x')])).toMatchObject({ status: 2 });
    expect(await centella(['eval', source, '--ids', '999999', '--logits', join(folder, 'x'), '--device', 'cpu'])).toMatchObject({ status: 2 });
    const unwritable = await centella(['eval', source, '--ids', '1', '--logits', join(folder, 'no/such/folder'), '--device', 'cpu']);
    expect(unwritable).toMatchObject({ status: 1, stderr: expect.stringContaining('[E_IO]') });
  });
});

describe('centella tokenize', () => {
  it('prints ids, and the text of ids, of a file without weights', async () => {
    const ids = await outputOf(['tokenize', vocabularyOnly, 'abc']);
    expect(ids).toMatch(/^256 \d+\n$/);
    expect(await outputOf(['tokenize', vocabularyOnly, '--decode', ids])).toBe('abc');
    expect(await outputOf(['tokenize', vocabularyOnly, '--decode', '-'], { input: ids })).toBe('abc');
    expect(await outputOf(['tokenize', vocabularyOnly, '-'], { input: 'abc\n' })).toBe(
      `${ids.trim()} ${(await outputOf(['tokenize', vocabularyOnly, '\n'])).trim()}\n`,
    );
  });

  it('reads control tokens and puts BOS first on demand only', async () => {
    expect(await outputOf(['tokenize', vocabularyOnly, '<|end|>'])).not.toBe('257\n');
    expect(await outputOf(['tokenize', vocabularyOnly, '--special', '<|end|>'])).toBe('257\n');
    expect(await outputOf(['tokenize', vocabularyOnly, '--decode', '257'])).toBe('');
    expect(await outputOf(['tokenize', vocabularyOnly, '--special', '--decode', '257'])).toBe('<|end|>');
    const plain = await outputOf(['tokenize', tales, 'Hello']);
    expect(await outputOf(['tokenize', tales, '--bos', 'Hello'])).toBe(`4095 ${plain}`);
  });

  it('refuses a text with ids, neither, BOS for ids, and ids that are none', async () => {
    for (const args of [['a', '--decode', '1'], [], ['--bos', '--decode', '1'], ['--decode', 'x'], ['--bos', 'a']]) {
      expect(await centella(['tokenize', vocabularyOnly, ...args])).toMatchObject({ status: 2, stdout: '' });
    }
  });
});

describe('centella doctor', () => {
  it('shows what the machine has, whatever that is', async () => {
    const text = await outputOf(['doctor', '--device', 'cpu']);
    expect(text).toMatch(/^centella +\d/);
    expect(text).toMatch(/why +the CPU was asked for/);
    expect(text).toMatch(/WebAssembly SIMD +yes/);
    const report = JSON.parse(await outputOf(['doctor', '--device', 'cpu', '--json']));
    expect(report).toMatchObject({ chosen: { kind: 'cpu', reason: 'the CPU was asked for' }, cpu: { simd: true, threads: 1 }, problem: null });
  });

  it('checks the CPU backend, all of it', async () => {
    const report = JSON.parse(await outputOf(['doctor', '--check', '--device', 'cpu', '--json']));
    expect(report).toMatchObject({ ok: true, trusted: ['cpu'] });
    const families: { family: string; passed: number; failed: number; worst: number }[] = report.modes[0].families;
    expect(families.map(({ family }) => family)).toContain('attention');
    for (const { passed, failed, worst } of families) {
      expect(passed).toBeGreaterThan(0);
      expect(failed).toBe(0);
      expect(worst).toBeLessThanOrEqual(1);
    }
    const text = await outputOf(['doctor', '--check', '--device', 'cpu', '--filter', 'swiglu']);
    expect(text).toMatch(/^ +swiglu +5 +0 +0\.\d+$/m);
    expect(text).toMatch(/\ntrust: cpu\n$/);
  });

  it('refuses a filter that leaves nothing', async () => {
    expect(await centella(['doctor', '--check', '--filter', 'no such case'])).toMatchObject({ status: 2 });
  });
});
