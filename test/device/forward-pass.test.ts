import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { countCalls } from '../../src/gpu/call-counter.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { WgslForwardPass } from '../../src/model/forward-pass.js';
import { openBackend } from '../../src/runtime/select.js';
import { forwardPassSuite } from '../support/forward-pass-suite.js';

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
});
