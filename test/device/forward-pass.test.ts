import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { countCalls } from '../../src/gpu/call-counter.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { WgslForwardPass } from '../../src/model/forward-pass.js';
import { openBackend } from '../../src/runtime/select.js';
import { forwardPassSuite } from '../support/forward-pass-suite.js';
import { largestDifference } from '../support/models.js';
import { PlainDecoder, type PlainShape, plainWeights } from '../support/plain-decoder.js';

forwardPassSuite('WebGPU', async () => openBackend({ device: await GpuDevice.request({ checked: true }) }), [80, 120]);

describe('WgslForwardPass on WebGPU', () => {
  let gpu: GpuDevice;
  beforeAll(async () => {
    gpu = await GpuDevice.request({ checked: true });
  });
  afterAll(() => gpu.dispose());

  it('runs a whole token in one submit and makes nothing for it', async () => {
    const shape = { numLayers: 2, hiddenDim: 32, numHeads: 2, intermediateDim: 64, vocabSize: 20, contextLength: 8 };
    const pass = await WgslForwardPass.create({ ...shape, device: gpu });
    for (const name of pass.weightNames) {
      const size = name.endsWith('norm') ? 32 : name === 'embedding' || name === 'lm_head' ? 640 : /gate|up|down/.test(name) ? 2048 : 1024;
      await pass.uploadWeight(name, new Float32Array(size).fill(0.01));
    }
    await pass.forwardModel(1, 0);
    const counter = countCalls(gpu.device);
    for (let position = 1; position < 4; position++) await pass.forwardModel(1, position);
    expect(counter.created).toBe(0);
    expect(counter.counts).toMatchObject({ submit: 3, writeBuffer: 6 });
    counter.stop();
    pass.dispose();
  });

  it('splits a head and an embedding that no binding holds, and leaves none of them out', async () => {
    const widths = { hiddenDim: 32, numHeads: 2, numKvHeads: 1, headDim: 16, intermediateDim: 32, vocabSize: 160 };
    const shape: PlainShape = { ...widths, numLayers: 1, eps: 1e-6, ropeBase: 1e4, ropePairing: 'halves', qkvBias: false };
    const small = await GpuDevice.request({ checked: true, mask: { limits: { maxStorageBufferBindingSize: 16_384 } } });
    const pass = await WgslForwardPass.create({ ...shape, contextLength: 4, device: small });
    const weights = plainWeights(shape, 11);
    for (const [name, data] of weights) await pass.uploadWeight(name, data);
    expect(small.memory.ledger().byClass.weights.count).toBeGreaterThan(weights.size);
    const plain = new PlainDecoder(shape, weights);
    for (const [position, token] of [3, 159].entries()) {
      expect(largestDifference(plain.model(token, position), await pass.forwardModel(token, position))).toBeLessThan(2e-5);
    }
    pass.dispose();
    small.dispose();
  });
});
