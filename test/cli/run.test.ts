import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkProfile } from '../../src/cli/profile.js';
import { loadModel } from '../../src/llm.js';
import { centella, outputOf } from '../support/cli.js';
import { describeExternal, repositoryFile } from '../support/fixtures.js';

const tales = repositoryFile('models/tales-7m.Q8_0.gguf');
const run = ['run', tales, '--device', 'cpu', '--temperature', '0'];

/** The greedy text of the library, which the command must write. */
async function libraryText(prompt: string, maxTokens: number): Promise<{ text: string; tokens: readonly number[] }> {
  const model = await loadModel(tales, { device: 'cpu' });
  try {
    return await model.generate(prompt, { maxTokens, temperature: 0 }).result;
  } finally {
    model.dispose();
  }
}

describe('centella run', () => {
  it('writes exactly the text to standard output, and the rest to standard error', async () => {
    const { text } = await libraryText('Once upon a time', 12);
    const { status, stdout, stderr } = await centella([...run, '--prompt', 'Once upon a time', '--max-tokens', '12']);
    expect({ status, stdout }).toEqual({ status: 0, stdout: text });
    for (const line of [/^backend +cpu/m, /^chosen +the CPU was asked for$/m, /^load +[\d.]+ s, 7\.5 MiB/m, /^prompt +\d+ tokens, [\d.]+ tokens\/s$/m]) {
      expect(stderr).toMatch(line);
    }
    expect(stderr).toMatch(/^generation +12 tokens, [\d.]+ tokens\/s$/m);
    expect(stderr).not.toContain('\u001b');
  });

  it('keeps the keys and values of a text in the type that it is told', async () => {
    const model = await loadModel(tales, { device: 'cpu', cacheType: 'q8_0' });
    const { text } = await model.generate('Once upon a time', { maxTokens: 24, temperature: 0 }).result;
    const { kv } = model.ledger().byClass;
    model.dispose();
    // 8 layers of keys and values, 512 positions of 2 heads of 64: 34 bytes for 32 elements.
    expect(kv.bytes).toBe((8 * 2 * 512 * 2 * 64 * 34) / 32);
    expect(await outputOf([...run, '--kv', 'q8_0', '--prompt', 'Once upon a time', '--max-tokens', '24'])).toBe(text);
  });

  it('profiles with --profile: a table of kernels for the prompt and for one token, and a trace in a file', async () => {
    const trace = join(mkdtempSync(join(tmpdir(), 'centella-')), 'trace.json');
    const { status, stderr } = await centella([...run, '--prompt', 'Once upon a time', '--max-tokens', '3', '--profile', trace]);
    expect(status).toBe(0);
    expect(stderr).toMatch(/^a prompt of \d+ tokens\nstep +runs +us +share +MB +GB\/s +GFLOP +TFLOP\/s$/m);
    expect(stderr).toMatch(/^one token after \d+\nstep /m);
    expect(stderr).toMatch(/^ffn_gate\S* linear q8_0 +\d+ +[\d.]+ +[\d.]+% +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$/m);
    const { traceEvents } = JSON.parse(readFileSync(trace, 'utf8')) as { traceEvents: { ph: string; tid: number }[] };
    rmSync(dirname(trace), { recursive: true });
    for (const tid of [1, 2]) expect(traceEvents.filter((event) => event.ph === 'X' && event.tid === tid).length).toBeGreaterThan(10);
  });

  it('says before a text that a trace cannot be written', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'centella-trace-'));
    try {
      for (const [path, reason] of [
        [folder, 'it is a folder'],
        [join(folder, 'missing', 'trace.json'), 'no such file or directory'],
      ]) {
        const { status, stdout, stderr } = await centella([...run, '--prompt', 'Once', '--profile', path ?? '']);
        expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
        expect(stderr).toContain(`cannot write ${path}`);
        expect(stderr).toContain(reason);
        expect(stderr).not.toMatch(/^load /m);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('says before a text what a device without a clock cannot profile', () => {
    const backend = { kind: 'webgpu', name: 'some-gpu', reason: '', checks: 'unchecked' } as const;
    expect(() => checkProfile({ timesSteps: true, backend })).not.toThrow();
    expect(() => checkProfile({ timesSteps: false, backend })).toThrow(/some-gpu has no timestamp queries: take another adapter/);
  });

  it('reads the prompt from standard input as it is', async () => {
    const { text } = await libraryText('The fox\n', 5);
    expect(await outputOf([...run, '--prompt', '-', '--max-tokens', '5'], { input: 'The fox\n' })).toBe(text);
  });

  it('begins with BOS alone where there is no prompt, and prints one object with --json', async () => {
    const { text, tokens } = await libraryText('', 6);
    const printed = await outputOf([...run, '--max-tokens', '6', '--json']);
    expect(printed.endsWith('}\n')).toBe(true);
    expect(JSON.parse(printed)).toEqual({
      text,
      prompt_tokens: [4095],
      tokens,
      finish_reason: 'length',
      backend: 'cpu',
      adapter: 'WASM SIMD, 1 thread',
      timings: {
        load_ms: expect.any(Number),
        prompt_ms: expect.any(Number),
        prompt_tokens_per_second: expect.any(Number),
        generation_ms: expect.any(Number),
        generation_tokens_per_second: expect.any(Number),
      },
    });
  });

  it('stops before each of several stop texts, and repeats itself with one seed', async () => {
    const stopped = JSON.parse(await outputOf([...run, '--prompt', 'Once', '--max-tokens', '40', '--stop', 'nothing like this', '--stop', ' king', '--json']));
    expect(stopped).toMatchObject({ finish_reason: 'stop' });
    expect(stopped.text).not.toContain('king');
    const drawn = [
      'run',
      tales,
      '--device',
      'cpu',
      '--prompt',
      'Once',
      '--max-tokens',
      '12',
      '--temperature',
      '1.2',
      '--top-k',
      '0',
      '--top-p',
      '1',
      '--min-p',
      '0',
    ];
    const [first, again, other] = await Promise.all(['7', '7', '8'].map((seed) => outputOf([...drawn, '--seed', seed])));
    expect(first).toBe(again);
    expect(first).not.toBe(other);
  });

  it('ends with status 130 at Ctrl-C, and the text so far stays', async () => {
    const long = [...run, '--prompt', 'Once upon a time', '--context', '100000', '--max-tokens', '90000', '--profile'];
    const { status, stdout, stderr } = await centella(long, { watch: (child) => child.stdout?.once('data', () => child.kill('SIGINT')) });
    expect(status).toBe(130);
    expect((await libraryText('Once upon a time', 400)).text.startsWith(stdout.slice(0, 40))).toBe(true);
    expect(stdout.length).toBeGreaterThan(0);
    expect(stderr).toMatch(/^ended by +Ctrl-C$/m);
    expect(stderr).not.toContain('one token after');
  });

  it('ends fine where the reader of its output has had enough', async () => {
    const { status, stderr } = await centella([...run, '--prompt', 'Once', '--context', '100000', '--max-tokens', '90000'], {
      watch: (child) => child.stdout?.once('data', () => child.stdout?.destroy()),
    });
    expect(status).toBe(0);
    expect(stderr).not.toContain('EPIPE');
  });

  it('tells on which terms options are taken', async () => {
    const wrong: [args: string[], message: string][] = [
      [['--top-p', '7'], '--top-p must be a number above 0 to 1, got 7'],
      [['--max-tokens', 'many'], 'Wanted a whole number from 0 on'],
      [['--device', 'gpu'], 'Allowed choices are auto, webgpu, cpu'],
      [['--adapter', 'x'], 'give one of the two'],
      [['--tempo', '1'], "unknown option '--tempo'"],
      [['--stop', ''], 'an empty stop string'],
      [['--repetition-penalty', '0'], '--repetition-penalty must be a number from 0.01 to 100, got 0'],
    ];
    for (const [args, message] of wrong) {
      const { status, stdout, stderr } = await centella([...run, ...args]);
      expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
      expect(stderr).toContain(message);
      // Before anything is loaded.
      expect(stderr).not.toContain('backend');
    }
  });

  it('takes penalties: no token twice where that costs 100', async () => {
    const json = await outputOf([...run, '--prompt', 'Once upon a time', '--max-tokens', '24', '--frequency-penalty', '100', '--json']);
    const { tokens } = JSON.parse(json) as { tokens: readonly number[] };
    expect(new Set(tokens).size).toBe(24);
  });

  it('says what went wrong, with its code and what to do, and a stack only on demand', async () => {
    const missing = await centella(['run', 'no-such-file.gguf']);
    expect(missing.status).toBe(1);
    expect(missing.stderr).toMatch(/^centella: cannot open no-such-file\.gguf: .* \[E_IO\]\n {2}next: check the path/);
    expect(missing.stderr).not.toMatch(/^ +at /m);
    expect((await centella(['run', 'no-such-file.gguf'], { env: { CENTELLA_DEBUG: '1' } })).stderr).toMatch(/^ +at /m);
    const tooLong = await centella([...run, '--prompt', 'one two three four five', '--context', '2']);
    expect(tooLong).toMatchObject({ status: 1, stdout: '' });
    expect(tooLong.stderr).toContain('[E_CONTEXT]');
  });
});

describeExternal('stories260K', ['models/stories260K.gguf', 'models/stories260K.expected.txt'], (model, expected) => {
  it('is written on the CPU as its author published it', async () => {
    const text = await outputOf(['run', model, '--temperature', '0', '--max-tokens', '230', '--device', 'cpu']);
    expect(text.length).toBeGreaterThan(500);
    expect(readFileSync(expected, 'utf8').slice(0, text.length)).toBe(text);
  });
});
