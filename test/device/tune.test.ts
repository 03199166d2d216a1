import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { productKey, type Tuning } from '../../src/core/tuning.js';
import { ggufValue, writeGguf } from '../../src/gguf.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { packsActivations } from '../../src/kernels/decode/activations.js';
import { productKernel } from '../../src/kernels/decode/product.js';
import { selectProduct } from '../../src/kernels/decode/select.js';
import { needsOf, productCandidates, tunedName } from '../../src/kernels/decode/tuned.js';
import { openBackend } from '../../src/runtime/select.js';
import { agree, decodeProducts } from '../../src/runtime/tune.js';
import { findTuning } from '../../src/runtime/tuning-file.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { centella } from '../support/cli.js';
import { syntheticModel } from '../support/synthetic.js';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'centella-tune-'));
  vi.stubEnv('XDG_CACHE_HOME', folder);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

/** A model of one fused product, its last: each takes a rasteriser seconds to compile. */
function writeModel(path: string): void {
  const [packed, plain] = (['q8_0', 'f32'] as const).map((dtype) => syntheticModel({ dtype, width: 64, feedForward: 64 }));
  if (packed === undefined || plain === undefined) throw new Error('a model is made for each type');
  const tensors = [...plain.weights.keys()].map((name) => {
    const from = name.includes('ffn_down') ? packed : plain;
    const type = from.weights.get(name);
    const data = from.bytes.get(name);
    if (type === undefined || data === undefined) throw new Error(`${name} is missing`);
    return { name, dtype: type.dtype, shape: type.shape, data };
  });
  const { config } = plain;
  const numbers = {
    block_count: config.layers,
    context_length: 64,
    embedding_length: config.width,
    feed_forward_length: config.feedForward,
    'attention.head_count': config.heads,
    'attention.head_count_kv': config.kvHeads,
  };
  writeFileSync(
    path,
    writeGguf({
      metadata: [
        ['general.architecture', ggufValue.string('llama')],
        ...Object.entries(numbers).map(([key, value]) => [`llama.${key}`, ggufValue.u32(value)] as const),
        ['llama.attention.layer_norm_rms_epsilon', ggufValue.f32(config.eps)],
      ],
      tensors,
    }),
  );
}

/** down of that model alone, as the decode step has it. */
function downGraph() {
  const g = new GraphBuilder();
  const x = g.input('x', { dtype: 'f32', shape: [1, 64] });
  const w = g.param('w', { dtype: 'q8_0', shape: [64, 64] });
  g.output('y', g.add('tokenLinear', { bias: false, residual: true }, [x, w, x], 'down'));
  return g.build();
}

it('writes a shape of the candidates, which backends then use', async () => {
  const gpu = await GpuDevice.request({ checked: true });
  try {
    const { capabilities } = gpu;
    const path = join(folder, 'model.gguf');
    writeModel(path);
    const tune = ['tune', path, '--device', 'webgpu', '--candidates', '1'];
    if (packsActivations(capabilities) !== undefined) {
      expect(await centella([...tune, '--all'])).toMatchObject({ status: 1, stderr: expect.stringContaining('nothing to tune') });
      return;
    }
    const { status, stdout, stderr } = await centella([...tune, '--all']);
    expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
    const found = await findTuning('auto', capabilities);
    const [problem] = decodeProducts(downGraph(), capabilities, 'int8');
    if (problem === undefined || found.tuning === undefined) throw new Error('there is a product, and a file');
    const key = productKey(tunedName(problem));
    expect(stdout).toContain(key);
    expect(found.report).toMatchObject({ used: [key], ignored: [], source: expect.stringContaining(folder) });
    const { microseconds, shape } = found.tuning.products[0] ?? { microseconds: 0, shape: undefined };
    expect(microseconds).toBeGreaterThan(0);
    const lawful = [selectProduct(needsOf(tunedName(problem)), capabilities), ...productCandidates(problem, capabilities)];
    expect(lawful).toContainEqual(expect.objectContaining(shape));
    const opened = await openBackend({ device: gpu });
    expect(opened instanceof WebGpuBackend && opened.tuning).toEqual(found.report);
    opened.dispose();
    // Any lawful shape of the table reaches the kernels.
    const other = lawful.at(-1);
    if (other === undefined) throw new Error('there is a candidate');
    const { subgroups, lanes, rows, together, split, ahead } = other;
    const tuning: Tuning = { ...found.tuning, products: [{ ...tunedName(problem), shape: { subgroups, lanes, rows, together, split, ahead }, microseconds }] };
    const backend = new WebGpuBackend(gpu, { owned: false, kernels: { activations: 'int8' }, tuning: await findTuning(tuning, capabilities) });
    expect(backend.program(downGraph()).kernels).toContain(productKernel(problem, other).key);
    backend.dispose();
  } finally {
    gpu.dispose();
  }
}, 120_000);

it('takes no results for equal that differ, NaN neither', () => {
  const wanted = Float32Array.of(1, -2, 100);
  expect(agree(Float32Array.of(1.001, -2, 100), wanted)).toBe(true);
  expect(agree(Float32Array.of(1.1, -2, 100), wanted)).toBe(false);
  expect(agree(Float32Array.of(Number.NaN, -2, 100), wanted)).toBe(false);
  expect(agree(wanted, Float32Array.of(1, Number.NaN, 100))).toBe(false);
});
