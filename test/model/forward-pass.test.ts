import { describe, expect, it } from 'vitest';
import { baseCapabilities } from '../../src/core/capabilities.js';
import { gpuTarget } from '../../src/kernels/target.js';
import { decoderGraph } from '../../src/model/decoder-graph.js';
import { forwardPassConfig, WgslForwardPass } from '../../src/model/forward-pass.js';
import { weightSlots } from '../../src/model/forward-pass-weights.js';
import { planGraph } from '../../src/plan/plan.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { forwardPassSuite } from '../support/forward-pass-suite.js';
import { largestDifference } from '../support/models.js';
import { plainWeights } from '../support/plain-decoder.js';

forwardPassSuite('the CPU', async () => new CpuBackend(), [66, 80, 96, 112, 120, 128, 160]);

describe('the steps of a token on a GPU', () => {
  it('normalise one row, not as many as a buffer has room for', () => {
    const config = forwardPassConfig({ numLayers: 2, hiddenDim: 64, numHeads: 4, intermediateDim: 128, vocabSize: 100, contextLength: 2048 });
    const types = new Map([...weightSlots(config, false).values()].map(({ tensor, shape }) => [tensor, { dtype: 'f32' as const, shape }]));
    const graph = decoderGraph(config, types, { rows: 1, maxRows: 64, contextLength: 2048, cacheType: 'f32', logits: 'all' });
    const norms = planGraph(graph, gpuTarget(baseCapabilities)).steps.filter(({ kernel }) => kernel.family === 'rms_norm');
    expect(norms.map(({ kernel }) => kernel.workgroups)).toEqual(Array.from({ length: 5 }, () => [1, 1, 1]));
  });

  it('can be read as WGSL', () => {
    for (const [text, word] of [
      [WgslForwardPass.rmsnormShader, 'inverseSqrt'],
      [WgslForwardPass.siluMulShader, 'silu'],
      [WgslForwardPass.residualShader, 'u + v'],
      [WgslForwardPass.ropeShader, 'turn'],
    ] as const) {
      expect(text).toContain('@compute');
      expect(text).toContain(word);
    }
  });
});

it('WgslForwardPass goes on past 2,048 positions', async () => {
  const shape = { numLayers: 1, hiddenDim: 32, numHeads: 4, numKvHeads: 2, headDim: 8, intermediateDim: 96, vocabSize: 40 };
  const pass = await WgslForwardPass.create({ ...shape, device: 'cpu', contextLength: 2100 });
  const weights = plainWeights({ ...shape, eps: 1e-6, ropeBase: 1e6, ropePairing: 'halves', qkvBias: false }, 3);
  for (const [name, data] of weights) await pass.uploadWeight(name, data);
  const ids = Array.from({ length: 2080 }, (_, i) => i % 40);
  const together = await pass.forwardModel(ids, 0);
  expect(largestDifference(await pass.forwardModel(ids[2079] ?? 0, 2079), together)).toBeLessThan(2e-5);
  const shorter = await pass.forwardModel(ids.slice(0, 2048), 0);
  expect(largestDifference(shorter, together)).toBeGreaterThan(1e-3);
  pass.dispose();
});

describe('WgslForwardPass.create', () => {
  it('opens the device that is asked for, and ends it', async () => {
    const pass = await WgslForwardPass.create({ device: 'cpu', numLayers: 1, hiddenDim: 8, numHeads: 1, intermediateDim: 8, vocabSize: 4, contextLength: 4 });
    expect(pass.backend.kind).toBe('cpu');
    pass.dispose();
    expect(pass.backend.ledger().bytes).toBe(0);
  });
});
