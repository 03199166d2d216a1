import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { roundUp } from '../../src/core/tensor.js';
import { resolveSampling, Sampler } from '../../src/engine/sampler.js';
import { type CallCounter, countCalls } from '../../src/gpu/call-counter.js';
import { GpuDevice } from '../../src/gpu/device.js';
import type { Decoder } from '../../src/model/decoder.js';
import { decoderNames } from '../../src/model/decoder-graph.js';
import { samplingWords } from '../../src/ops/sampling-state.js';
import { stateWords } from '../../src/ops/state.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { testAdapterName } from '../support/adapter-name.js';
import { makeDecoder } from '../support/models.js';
import { syntheticModel } from '../support/synthetic.js';

const contextLength = 64;
/** Few, so that few kernels have to be compiled. */
const prefillChunk = 4;
const model = syntheticModel({ dtype: 'q8_0', layers: 2 });

describe('a decode step after warm-up', () => {
  let backend: WebGpuBackend;
  let decoder: Decoder;
  let calls: CallCounter;

  beforeAll(async () => {
    const gpu = await GpuDevice.request({ checked: true });
    backend = new WebGpuBackend(gpu);
    decoder = await makeDecoder(backend, model, { contextLength, prefillChunk });
    calls = countCalls(gpu.device, gpu.queue);
  });
  afterAll(() => {
    calls.stop();
    backend.dispose();
    expect(backend.ledger().bytes).toBe(0);
  });

  test('greedy: at most one submit a token, an encoder for each, nothing uploaded, nothing made', async () => {
    await decoder.nextToken([1]);
    await decoder.continueGreedy();
    calls.reset();
    const tokens = 12;
    for (let token = 0; token < tokens; token++) await decoder.continueGreedy();
    expect(calls.created).toBe(0);
    const { submit, createCommandEncoder, writeBuffer } = calls.counts;
    expect(submit).toBeGreaterThan(0);
    expect(submit).toBeLessThanOrEqual(tokens);
    expect([createCommandEncoder, writeBuffer]).toEqual([submit, 0]);
  });

  test('drawing: one submit, nothing uploaded, nothing made; the same tokens as the host draws', async () => {
    const parameters = { ...resolveSampling({ seed: 31, temperature: 1.2, repetitionPenalty: 1.1 }) };
    decoder.rewind(0);
    const drawn = [await decoder.nextDrawn([1, 2], { parameters, prompt: [1, 2] })];
    drawn.push(await decoder.continueDrawn());
    for (let token = 0; token < 8; token++) {
      calls.reset();
      drawn.push(await decoder.continueDrawn());
      expect(calls.created).toBe(0);
      expect(calls.counts).toMatchObject({ createCommandEncoder: calls.counts.submit, writeBuffer: 0 });
    }
    decoder.rewind(0);
    const sampler = new Sampler(parameters, [1, 2]);
    const fed = [sampler.next(await decoder.nextLogits([1, 2]))];
    while (fed.length < drawn.length) fed.push(sampler.next(await decoder.nextLogits(fed.slice(-1))));
    expect(fed).toEqual(drawn);
  });

  test('with logits for a sampler: one submit, nothing made', async () => {
    await decoder.nextLogits([7]);
    for (let token = 0; token < 5; token++) {
      calls.reset();
      await decoder.nextLogits([token]);
      expect(calls.created).toBe(0);
      expect(calls.counts.submit).toBe(1);
    }
  });

  test('a prompt: one submit for each chunk, nothing made the second time', async () => {
    const prompt = Array.from({ length: 12 }, (_, i) => i);
    decoder.rewind(0);
    await decoder.nextToken(prompt);
    decoder.rewind(0);
    calls.reset();
    await decoder.nextToken(prompt);
    expect(calls.created).toBe(0);
    expect(calls.counts.submit).toBe(3);
  });

  test('decoders that end with runs on their way, or in the middle of a call, leave the device to others', async () => {
    for (let i = 0; i < 5; i++) {
      const other = await makeDecoder(backend, model, { contextLength, prefillChunk });
      await other.nextToken([1, 2]);
      await other.continueGreedy();
      const call = i < 4 ? undefined : other.continueGreedy(2);
      if (call !== undefined) expect(() => other.rewind()).toThrow(expect.objectContaining({ code: 'E_BUSY' }));
      other.dispose();
      if (call !== undefined) await expect(call).rejects.toMatchObject({ code: 'E_DISPOSED' });
    }
    await backend.idle();
    decoder.rewind(0);
    await decoder.nextToken([1]);
    await expect(decoder.continueGreedy()).resolves.toBeTypeOf('number');
  });

  test('the ledger is packed weights, cache, arena and small constants, and nothing after disposal', async () => {
    const { byClass } = backend.ledger();
    const { config, weights } = model;
    const fileBytes = [...weights.keys()].reduce((sum, name) => sum + (model.bytes.get(name)?.byteLength ?? 0), 0);
    const storedBytes = [...weights.keys()].reduce((sum, name) => sum + (decoder.tensors.get(name)?.byteLength ?? 0), 0);
    expect(byClass.weights.bytes).toBe(storedBytes);
    // Planes of a weight begin at multiples of 16 bytes: that is all that packing adds.
    expect(storedBytes).toBeGreaterThanOrEqual(fileBytes);
    expect(storedBytes).toBeLessThanOrEqual(fileBytes + weights.size * 64);
    expect(byClass.kv.bytes).toBe(2 * config.layers * config.kvHeads * contextLength * config.headWidth * 4);
    expect(byClass.state.bytes).toBe((stateWords(prefillChunk) + samplingWords(config.vocabulary)) * 4);
    expect(byClass.constants.bytes).toBe(decoder.tensors.get(decoderNames.ropeTable)?.byteLength);
    expect(byClass.constants.bytes).toBe(roundUp(contextLength * config.rotated * 4, 4));
    expect(byClass.arena.bytes).toBeGreaterThan(0);
    expect(byClass.staging.bytes).toBeLessThan(1 << 20);
    decoder.dispose();
    const { weights: w, kv, arena, state, constants } = backend.ledger().byClass;
    expect([w, kv, arena, state, constants].map(({ bytes, count }) => bytes + count)).toEqual([0, 0, 0, 0, 0]);
    await expect(decoder.continueGreedy()).rejects.toMatchObject({ code: 'E_DISPOSED' });
  });
});

// Fused attention, whose windows these are, wants subgroups of 8.
if (testAdapterName() !== 'swiftshader') {
  test.runIf(testAdapterName() !== 'swiftshader')(
    'attention is compiled for the windows that the wanted tokens come to, ahead of them, and for no others',
    async () => {
      const backend = new WebGpuBackend(await GpuDevice.request({ checked: true }), { kernels: { activations: 'f32' } });
      try {
        const decoder = await makeDecoder(backend, syntheticModel({ width: 64 }), { contextLength: 700, prefillChunk, cacheType: 'f16' });
        const compiled = (): number => backend.gpu.pipelines.stats.compiles;
        await decoder.nextToken([1]);
        await decoder.continueGreedy(2);
        const before = compiled();
        for (let wanted = 100; wanted > 90; wanted--) await decoder.continueGreedy(wanted);
        expect(compiled()).toBe(before);
        // Positions 12 to 300: windows of 128, which is there, 256 and 384.
        for (let wanted = 288; wanted > 268; wanted--) await decoder.continueGreedy(wanted);
        expect(compiled()).toBe(before + 2);
        decoder.dispose();
      } finally {
        backend.dispose();
      }
    },
  );
}
