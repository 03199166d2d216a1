import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ArgumentError, BusyError, ContextError, DeviceError, DisposedError, OutOfMemoryError, UnsupportedError } from '../../src/core/errors.js';
import { resolveSampling, Sampler } from '../../src/engine/sampler.js';
import type { Graph } from '../../src/graph/graph.js';
import { Decoder } from '../../src/model/decoder.js';
import type { Backend, Executable, Program } from '../../src/runtime/backend.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { largestDifference, makeDecoder } from '../support/models.js';
import { syntheticModel } from '../support/synthetic.js';

const model = syntheticModel();
const prompt = [5, 9, 2, 60, 33];
let backend: CpuBackend;
let decoder: Decoder;

beforeEach(async () => {
  backend = new CpuBackend();
  decoder = await makeDecoder(backend, model, { contextLength: 24, prefillChunk: 8 });
});
afterEach(() => {
  decoder.dispose();
  expect(backend.ledger().bytes).toBe(0);
  backend.dispose();
});

describe('a decoder', () => {
  test('goes on greedily as if every token were fed', async () => {
    const tokens = [await decoder.nextToken(prompt)];
    for (let i = 0; i < 6; i++) tokens.push(await decoder.continueGreedy());
    expect(decoder.position).toBe(prompt.length + 6);
    decoder.rewind(0);
    const fed = [await decoder.nextToken(prompt)];
    for (let i = 0; i < 6; i++) fed.push(await decoder.nextToken(fed.slice(-1)));
    expect(fed).toEqual(tokens);
  });

  test('draws as the host does, and goes on drawing only from what was drawn', async () => {
    const parameters = { ...resolveSampling({ seed: 9, temperature: 1.5, topK: 20, presencePenalty: 1 }) };
    const tokens = [await decoder.nextDrawn(prompt, { parameters, prompt })];
    for (let i = 0; i < 6; i++) tokens.push(await decoder.continueDrawn());
    expect(decoder.position).toBe(prompt.length + 6);
    await expect(decoder.continueGreedy()).rejects.toThrow('call nextToken first');
    decoder.rewind(0);
    await expect(decoder.continueDrawn()).rejects.toThrow('call nextDrawn first');
    const sampler = new Sampler(parameters, prompt);
    const fed = [sampler.next(await decoder.nextLogits(prompt))];
    for (let i = 0; i < 6; i++) fed.push(sampler.next(await decoder.nextLogits(fed.slice(-1))));
    expect(fed).toEqual(tokens);
    await expect(decoder.continueDrawn()).rejects.toThrow(ArgumentError);
  });

  test('stands where it is told, over whatever the cache holds', async () => {
    await decoder.nextToken(prompt);
    const wanted = await decoder.nextLogits([11]);
    decoder.rewind(0);
    decoder.assume(prompt.length);
    expect(await decoder.nextLogits([11])).toEqual(wanted);
    expect(decoder.position).toBe(prompt.length + 1);
    expect(() => decoder.assume(24)).toThrow('room for 24 tokens');
  });

  test('goes on after nextLogits too, which has chosen as well', async () => {
    const logits = await decoder.nextLogits(prompt);
    const token = logits.indexOf(Math.max(...logits));
    const next = await decoder.continueGreedy();
    decoder.rewind(prompt.length);
    expect(await decoder.nextToken([token])).toBe(next);
  });

  test('does not go on where there is nothing to go on from', async () => {
    await expect(decoder.continueGreedy()).rejects.toThrow(ArgumentError);
    await decoder.nextToken(prompt);
    decoder.rewind(2);
    await expect(decoder.continueGreedy()).rejects.toThrow('call nextToken first');
    await decoder.nextToken([7]);
    await decoder.profile([3]);
    await expect(decoder.continueGreedy()).rejects.toThrow(ArgumentError);
    await decoder.evaluate([7]);
    await expect(decoder.continueGreedy()).rejects.toThrow(ArgumentError);
    await decoder.nextToken([7]);
    await decoder.continueGreedy();
  });

  test('forgets what it is rewound over, and nothing else', async () => {
    await decoder.nextToken(prompt);
    const wanted = await decoder.nextLogits([11]);
    decoder.rewind(prompt.length);
    await decoder.nextToken([50, 51, 52]);
    decoder.rewind(prompt.length);
    expect(largestDifference(await decoder.nextLogits([11]), wanted)).toBe(0);
    for (const wrong of [-1, 1.5, 99, Number.NaN]) expect(() => decoder.rewind(wrong)).toThrow(ArgumentError);
  });

  test('profiles a step without moving', async () => {
    await decoder.nextToken(prompt);
    const timings = await decoder.profile([4]);
    expect(timings.length).toBeGreaterThan(5);
    expect(timings.every(({ ns, label }) => ns >= 0 && label !== '')).toBe(true);
    expect(decoder.position).toBe(prompt.length);
    const after = await decoder.nextLogits([11]);
    decoder.rewind(0);
    await decoder.nextToken(prompt);
    expect(largestDifference(await decoder.nextLogits([11]), after)).toBe(0);
  });

  test('refuses ids that the embedding has no row for, and none at all', async () => {
    for (const ids of [[], [-1], [64], [1, 2.5], [Number.NaN]]) {
      await expect(decoder.nextToken(ids)).rejects.toThrow(ArgumentError);
      await expect(decoder.evaluate(ids)).rejects.toThrow(ArgumentError);
    }
    expect(decoder.position).toBe(0);
  });

  test('refuses what does not fit into the context, and stays usable', async () => {
    await expect(decoder.nextToken(new Array<number>(25).fill(1))).rejects.toThrow(ContextError);
    await decoder.nextToken(new Array<number>(24).fill(1));
    await expect(decoder.continueGreedy()).rejects.toThrow(ContextError);
    await expect(decoder.nextLogits([1])).rejects.toMatchObject({ tokens: 25, contextLength: 24 });
    decoder.rewind(23);
    await decoder.nextToken([1]);
  });

  test('does one thing at a time', async () => {
    const first = decoder.nextToken(prompt);
    await expect(decoder.nextToken(prompt)).rejects.toThrow(BusyError);
    await expect(decoder.evaluate(prompt)).rejects.toThrow(BusyError);
    await first;
    expect(decoder.position).toBe(prompt.length);
  });

  test('stops between chunks where its signal says so', async () => {
    const controller = new AbortController();
    const long = decoder.nextToken(new Array<number>(24).fill(1), controller.signal);
    controller.abort();
    await expect(long).rejects.toMatchObject({ code: 'E_ABORTED' });
    expect(decoder.position).toBeLessThan(24);
    decoder.rewind(0);
    await decoder.nextToken(prompt);
  });

  test('says that it was disposed, in the middle of a run too', async () => {
    const running = decoder.nextToken(prompt);
    decoder.dispose();
    await expect(running).rejects.toThrow(DisposedError);
    await expect(decoder.nextToken(prompt)).rejects.toThrow(DisposedError);
  });
});

test('without room for everything a decoder leaves nothing behind', async () => {
  const options = { contextLength: 64, cacheType: 'f32', prefillChunk: 16 } as const;
  const whole = new CpuBackend();
  const decoder = await Decoder.create(whole, model.config, model.weights, options);
  const { bytes } = whole.ledger();
  decoder.dispose();
  whole.dispose();
  for (let share = 1; share < 16; share++) {
    const small = new CpuBackend({ budgetBytes: Math.floor((bytes * share) / 16) });
    await expect(Decoder.create(small, model.config, model.weights, options)).rejects.toThrow(OutOfMemoryError);
    expect(small.ledger().bytes).toBe(0);
    small.dispose();
  }
});

test('logits that are no numbers end a run with an error that says so', async () => {
  const broken = { ...model, bytes: new Map(model.bytes) };
  broken.bytes.set('output_norm.weight', new Uint8Array(new Float32Array(model.config.width).fill(Number.NaN).buffer));
  const device = new CpuBackend();
  const decoder = await makeDecoder(device, broken);
  await expect(decoder.nextToken(prompt)).rejects.toMatchObject({ code: 'E_NUMERICAL' });
  // No token was chosen to go on from.
  await expect(decoder.continueGreedy()).rejects.toMatchObject({ code: 'E_ARGUMENT' });
  decoder.dispose();
  device.dispose();
});

test('a q8_0 cache is refused where heads are not whole blocks', async () => {
  const backend = new CpuBackend();
  const narrow = syntheticModel({ width: 32, heads: 2 });
  await expect(makeDecoder(backend, narrow, { cacheType: 'q8_0' })).rejects.toThrow(UnsupportedError);
  expect(backend.ledger().bytes).toBe(0);
  backend.dispose();
});

test('quantised weights decode as well as they evaluate', async () => {
  const backend = new CpuBackend();
  const packed = syntheticModel({ dtype: 'q8_0', layers: 2 });
  const decoder = await makeDecoder(backend, packed, { cacheType: 'f16' });
  const all = await decoder.evaluate(prompt);
  decoder.rewind(0);
  expect(largestDifference(await decoder.nextLogits(prompt), all.subarray(-packed.config.vocabulary))).toBeLessThan(1e-4);
  decoder.dispose();
  backend.dispose();
});

/** Takes every fused operation of a decode step, which the CPU composes of plain ones, and notes of every run the window of its attention and how often it was run. */
class FusingBackend extends CpuBackend {
  /** Of a GPU the decoder keeps several submits of several runs on their way. */
  override readonly kind = 'webgpu' as 'cpu';
  readonly runs: { readonly window: number; readonly times: number }[] = [];
  override readonly refuses: Backend['refuses'] = () => undefined;

  override program(graph: Graph): Program {
    const program = super.program(graph);
    const window = graph.nodes.find((node) => node.op === 'attendToken')?.params.window ?? Number.POSITIVE_INFINITY;
    const prepare: Program['prepare'] = async (bindings) => {
      const executable = await program.prepare(bindings);
      const start: Executable['start'] = (writes, reads, times = 1) => {
        this.runs.push({ window, times });
        return executable.start(writes, reads, times);
      };
      const run: Executable['run'] = (writes, reads, times) => start(writes, reads, times).read();
      return { stepCount: executable.stepCount, profile: () => executable.profile(), followedBy: (next) => executable.followedBy(next), run, start };
    };
    return { ...program, prepare };
  }
}

/** Refuses every submit after the first few. */
class FailingBackend extends FusingBackend {
  submits = Number.POSITIVE_INFINITY;

  override program(graph: Graph): Program {
    const program = super.program(graph);
    const prepare: Program['prepare'] = async (bindings) => {
      const executable = await program.prepare(bindings);
      const start: Executable['start'] = (writes, reads, times) => {
        if (this.submits-- <= 0) throw new DeviceError('E_DEVICE', 'the device refuses the submit');
        return executable.start(writes, reads, times);
      };
      return { ...executable, run: executable.run, profile: executable.profile, followedBy: executable.followedBy, start };
    };
    return { ...program, prepare };
  }
}

test('a submit that fails takes no token from those that are on their way', async () => {
  const device = new FailingBackend();
  const failing = await makeDecoder(device, model, { contextLength: 24, prefillChunk: 8 });
  for (const one of [decoder, failing]) await one.nextToken(prompt);
  const tokens = async (one: Decoder) => [await one.continueGreedy(), await one.continueGreedy(), await one.continueGreedy()];
  const wanted = await tokens(decoder);
  device.submits = 3;
  expect(await tokens(failing)).toEqual(wanted);
  await expect(failing.continueGreedy()).rejects.toThrow('the device refuses the submit');
  expect(failing.position).toBe(decoder.position);
  // The device took nothing of the call that failed, which may be made again.
  device.submits = Number.POSITIVE_INFINITY;
  expect(await failing.continueGreedy()).toBe(await decoder.continueGreedy());
  failing.dispose();
  device.dispose();
});

describe('a decode step whose window ends', () => {
  const options = { contextLength: 540, prefillChunk: 128 } as const;
  const text = Array.from({ length: 507 }, (_, i) => (i * 31 + (i >> 3)) % 64);
  let fusing: FusingBackend;
  let plain: Decoder;
  let fused: Decoder;
  beforeEach(async () => {
    fusing = new FusingBackend();
    plain = await makeDecoder(backend, model, options);
    fused = await makeDecoder(fusing, model, options);
    for (const one of [plain, fused]) await one.nextToken(text);
    fusing.runs.length = 0;
  });
  afterEach(() => {
    plain.dispose();
    fused.dispose();
    fusing.dispose();
  });

  /** Every run ends inside its window: from `start` on, one after the other. */
  function expectInside(start: number): void {
    let position = start;
    for (const { window, times } of fusing.runs) {
      position += times;
      expect(position).toBeLessThanOrEqual(window);
    }
  }

  test('goes on with the cache that it has, and comes back', async () => {
    for (let i = 0; i < 10; i++) {
      const ids = [(i * 7 + 3) % 64];
      expect(largestDifference(await fused.nextLogits(ids), await plain.nextLogits(ids))).toBeLessThan(1e-5);
    }
    expectInside(text.length);
    // Near positions do not pay for far ones.
    expect(new Set(fusing.runs.map(({ window }) => window)).size).toBe(2);
    for (const one of [plain, fused]) one.rewind(500);
    expect(largestDifference(await fused.nextLogits([9]), await plain.nextLogits([9]))).toBeLessThan(1e-5);
    expect(fusing.runs.at(-1)?.window).toBe(fusing.runs[0]?.window);
  });

  test('is not run past it, however many tokens are on their way', async () => {
    const tokens: number[][] = [[], []];
    for (let i = 0; i < 25; i++) for (const [index, one] of [plain, fused].entries()) tokens[index]?.push(await one.continueGreedy());
    expect(tokens[1]).toEqual(tokens[0]);
    expectInside(text.length);
    expect(new Set(fusing.runs.map(({ window }) => window)).size).toBe(2);
  });
});
