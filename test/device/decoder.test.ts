import { GpuDevice } from '../../src/gpu/device.js';
import type { GpuTargetOptions } from '../../src/kernels/target.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { testAdapterName } from '../support/adapter-name.js';
import { type DecoderModels, decoderSuite } from '../support/decoder-suite.js';
import { everyCase } from '../support/share.js';

/** Dealt out: each model in F32 has kernels in sizes of its own, which lavapipe compiles for half a minute, so SwiftShader runs most; the fused f16 attention needs lavapipe's subgroups. */
const shares: { readonly [adapter: string]: DecoderModels } = {
  swiftshader: { types: ['Q8_0', 'Q6_K'], caches: ['f32'] },
  lavapipe: { llamas: ['llama3'], families: [], types: ['Q4_0', 'Q4_K_M'], caches: ['f16'] },
};

const open = async (kernels: GpuTargetOptions = {}): Promise<WebGpuBackend> => new WebGpuBackend(await GpuDevice.request({ checked: true }), { kernels });

if (testAdapterName() === 'hardware') {
  // f32 sums in another order move these logits, which reach 34, by 1e-4. A key or value that differs in its last bits may round to the f16 beside it, which moves them by 3e-3 between devices.
  const exact = { chunks: [2e-4, 5e-3] } as const;
  // These adapters may have f16 matrices: prompts rounded to 11 bits move the probabilities of random weights by under a hundredth.
  decoderSuite('WebGPU, f32 throughout', () => open({ leastMatrixRows: Number.POSITIVE_INFINITY, activations: 'f32' }), exact);
  decoderSuite('WebGPU, rounded where it may be', open, { probabilities: 0.02, chunks: [0.1, 0.1] });
} else {
  decoderSuite('WebGPU', open, everyCase ? {} : shares[testAdapterName()]);
  // Fused attention rounds the token's own key and value itself, which the caches of chunks and of later tokens must show alike.
  if (testAdapterName() === 'lavapipe') {
    decoderSuite('WebGPU, fused steps in f32', () => open({ activations: 'f32' }), { llamas: [], families: [], types: [], caches: ['f16'] });
  }
}
