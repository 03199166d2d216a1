import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CentellaError } from '../../src/core/errors.js';
import { loadModel } from '../../src/engine/load.js';
import type { ByteSource } from '../../src/formats/source.js';
import { openGguf } from '../../src/gguf.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { Decoder } from '../../src/model/decoder.js';
import { describeModel } from '../../src/model/describe.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { repositoryFile } from '../support/fixtures.js';

const path = repositoryFile('models/tales-7m.Q8_0.gguf');
const session = { contextLength: 64, prefillChunk: 8, cacheType: 'f32' } as const;
const prompt = [1, 5, 9, 13, 17, 21, 25, 29];

let gpu: GpuDevice;
beforeAll(async () => {
  gpu = await GpuDevice.request({ checked: true });
});
afterAll(() => gpu.dispose());

/** Keys of the kernels that a decode step has, and a run of the prompt does not. */
async function decodeOnly(): Promise<ReadonlySet<string>> {
  const file = await openGguf(path);
  const backend = new WebGpuBackend(gpu, { owned: false });
  const { config, weights } = describeModel(file);
  const decoder = await Decoder.create(backend, config, weights, session);
  const [step, run] = decoder.kernels();
  decoder.dispose();
  backend.dispose();
  await file.close();
  return new Set(step?.kernels.filter((key) => !run?.kernels.includes(key)));
}

/** Every text that the device is given; pipelines of some labels are held back until `release`. */
function holdBack({ device }: GpuDevice, held: ReadonlySet<string>) {
  const [makeModule, makePipeline] = [device.createShaderModule.bind(device), device.createComputePipelineAsync.bind(device)];
  const texts: string[] = [];
  const waiting = new Set<string>();
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  Object.defineProperty(device, 'createShaderModule', {
    configurable: true,
    value: (descriptor: GPUShaderModuleDescriptor) => {
      texts.push(descriptor.code);
      return makeModule(descriptor);
    },
  });
  Object.defineProperty(device, 'createComputePipelineAsync', {
    configurable: true,
    value: async (descriptor: GPUComputePipelineDescriptor) => {
      const { label = '' } = descriptor;
      if (held.has(label)) waiting.add(label);
      const pipeline = await makePipeline(descriptor);
      if (held.has(label)) await released;
      return pipeline;
    },
  });
  return { texts, waiting, release };
}

describe('loading', () => {
  test('waits for no kernel that the first token does not need, and compiles none twice', async () => {
    const later = await decodeOnly();
    expect(later.size).toBeGreaterThan(2);
    const { texts, waiting, release } = holdBack(gpu, later);
    using model = await loadModel(path, { device: gpu, ...session, promptTokens: prompt.length });
    expect(model.loadTimings.weightBytes).toBeGreaterThan(7e6);
    const first = await model.generate(prompt, { maxTokens: 1, temperature: 0 }).result;
    expect(first.tokens).toHaveLength(1);
    expect(waiting.size).toBeGreaterThan(0);
    release();
    const { tokens } = await model.generate(prompt, { maxTokens: 4, temperature: 0 }).result;
    expect(tokens.slice(0, 1)).toEqual(first.tokens);
    expect(tokens).toHaveLength(4);
    expect(texts.length).toBe(new Set(texts).size);
    expect(gpu.memory.ledger().byClass.staging.bytes).toBeLessThan(1 << 20);
  });

  const bytes = readFileSync(path);
  /** The model's bytes, and what happens at the first read of weights: the header comes in smaller pieces. */
  function failing(happens: () => unknown): ByteSource {
    const read = async (offset: number, length: number): Promise<Uint8Array> => {
      if (length > 1 << 20) await happens();
      return bytes.subarray(offset, offset + length);
    };
    return { name: 'failing', size: bytes.length, read, close: () => Promise.resolve() };
  }

  test('ends with what happened to a read, and frees everything', async () => {
    const failed = new CentellaError('E_IO', 'the disk is gone');
    await expect(
      loadModel(
        failing(() => Promise.reject(failed)),
        { device: gpu, ...session },
      ),
    ).rejects.toBe(failed);
    expect(gpu.memory.ledger().bytes).toBe(0);
  });

  test('frees everything where the file cannot be closed', async () => {
    const failed = new CentellaError('E_IO', 'the disk is gone');
    const source = { ...failing(() => undefined), close: () => Promise.reject(failed) };
    await expect(loadModel(source, { device: gpu, ...session })).rejects.toBe(failed);
    expect(gpu.memory.ledger().bytes).toBe(0);
  });

  test('ends with what happened to the device, and frees everything', async () => {
    const lost = await GpuDevice.request({ checked: true });
    await expect(
      loadModel(
        failing(() => lost.device.destroy()),
        { device: lost, ...session },
      ),
    ).rejects.toMatchObject({ code: 'E_DEVICE_LOST' });
    expect(lost.memory.ledger().bytes).toBe(0);
  });
});
