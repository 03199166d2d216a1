import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GpuCommandBatch } from '../../src/compute/batch.js';
import { compile } from '../../src/compute/compile.js';
import { GpuBackend } from '../../src/compute/gpu-backend.js';
import { shaders } from '../../src/compute/shaders.js';
import { ArgumentError } from '../../src/core/errors.js';
import { countCalls } from '../../src/gpu/call-counter.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { rewrite } from '../../src/graph/rewrite.js';
import { CompiledGraph } from '../../src/runtime/compiled-graph.js';
import { openBackend } from '../../src/runtime/select.js';

const layers = 36;
const width = 32;

test('a chain of 36 layers compiles three kernels and makes one submit; the second execute creates nothing', async () => {
  const gpu = await GpuDevice.request({ checked: true });
  const calls = countCalls(gpu.device, gpu.queue);
  const batch = new GpuCommandBatch(gpu);
  try {
    const values = (seed: number): Float32Array => Float32Array.from({ length: width * width }, (_, i) => Math.sin(seed + i) / width);
    const weight = batch.upload(values(1));
    const gain = batch.upload(new Float32Array(width).fill(1));
    const input = batch.upload(values(2));
    let x = input;
    // Three kernels a layer: a product, a norm, and an elementwise region that the product before it cannot take in.
    for (let layer = 0; layer < layers; layer++) {
      const product = batch.matmul(x, weight, width, width, width);
      x = batch.add(batch.scale(batch.relu(batch.rmsNorm(product, gain, 1e-5)), 2), x);
    }
    const before = gpu.pipelines.stats.compiles;
    await batch.execute();
    expect(gpu.pipelines.stats.compiles - before).toBe(3);
    const first = await batch.read(x);
    expect(first.every(Number.isFinite)).toBe(true);

    calls.reset();
    batch.update(input, values(3));
    await batch.execute();
    expect(calls.counts).toMatchObject({
      submit: 1,
      createBuffer: 0,
      createBindGroup: 0,
      createBindGroupLayout: 0,
      createPipelineLayout: 0,
      createShaderModule: 0,
    });
    expect(gpu.pipelines.stats.compiles - before).toBe(3);
    expect(await batch.read(x)).not.toEqual(first);
  } finally {
    calls.stop();
    batch.dispose();
    gpu.dispose();
  }
});

test('a batch that was warmed, or whose kernels were, compiles nothing when it is executed', async () => {
  const gpu = await GpuDevice.request({ checked: true });
  const backend = await openBackend({ device: gpu });
  const calls = countCalls(gpu.device, gpu.queue);
  try {
    const batch = new GpuCommandBatch(gpu);
    const x = batch.upload(Float32Array.of(1, -2, 3));
    const y = batch.sum(batch.relu(x));
    await expect(batch.read(y)).rejects.toThrow(/execute\(\) first/);
    await batch.warm();
    await expect(batch.read(y)).rejects.toThrow(/execute\(\) first/);
    expect(calls.counts.submit).toBe(0);
    calls.reset();
    await batch.execute();
    expect([calls.created, calls.counts.submit]).toEqual([0, 1]);
    expect([...(await batch.read(y))]).toEqual([4]);
    batch.dispose();

    const g = new GraphBuilder();
    const input = g.input('x', { dtype: 'f32', shape: [7] });
    g.output('y', g.unary('square', g.unary('tanh', input)));
    await gpu.pipelines.warm(shaders.kernelsOf(rewrite(g.build()).graph, gpu.capabilities));
    const { compiles } = gpu.pipelines.stats;
    (await compile(g.build(), { device: gpu })).dispose();
    expect(gpu.pipelines.stats.compiles).toBe(compiles);
  } finally {
    calls.stop();
    backend.dispose();
    gpu.dispose();
  }
});

test('softmax of one call is one submit, and the next call of its size compiles and makes nothing', async () => {
  const gpu = await GpuDevice.request({ checked: true });
  const ops = new GpuBackend({ device: gpu });
  const calls = countCalls(gpu.device, gpu.queue);
  try {
    const x = Float32Array.from({ length: 9001 }, (_, i) => Math.sin(i));
    await ops.softmax(x);
    calls.reset();
    const p = await ops.softmax(x);
    expect(p.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 5);
    expect(calls.created).toBe(0);
    expect(calls.counts.submit).toBe(1);
  } finally {
    calls.stop();
    await ops.dispose();
    gpu.dispose();
  }
});

test('a graph of more outputs than the device keeps readback buffers gives all of them, in one submit and one buffer', async () => {
  const gpu = await GpuDevice.request({ checked: true });
  const backend = await openBackend({ device: gpu });
  const calls = countCalls(gpu.device, gpu.queue);
  try {
    const g = new GraphBuilder();
    const x = g.input('x', { dtype: 'f32', shape: [2] });
    for (let i = 0; i < 20; i++) g.output(`y${i}`, g.unary('scale', x, { a: i }));
    const graph = await CompiledGraph.compile(g.build(), backend);
    await graph.run({ x: Float32Array.of(1, 2) });
    calls.reset();
    const results = await graph.run({ x: Float32Array.of(3, 4) });
    expect([...results.values()].map(([first]) => first)).toEqual(Array.from({ length: 20 }, (_, i) => 3 * i));
    const again = graph.readAll();
    expect([...(await again).values()].map(([, second]) => second)).toEqual(Array.from({ length: 20 }, (_, i) => 4 * i));
    expect([calls.counts.submit, calls.created]).toEqual([2, 0]);
    graph.dispose();
  } finally {
    calls.stop();
    backend.dispose();
    gpu.dispose();
  }
});

describe('a buffer of the caller', () => {
  const usage = { storage: 0x80, copySrc: 0x4, copyDst: 0x8 } as const;
  let gpu: GpuDevice;
  beforeAll(async () => {
    gpu = await GpuDevice.request({ checked: true });
  });
  afterAll(() => gpu.dispose());

  function bufferOf(values: Float32Array<ArrayBuffer>, flags: number = usage.storage | usage.copySrc | usage.copyDst): GPUBuffer {
    const buffer = gpu.device.createBuffer({ size: values.byteLength, usage: flags | usage.copyDst });
    gpu.queue.writeBuffer(buffer, 0, values);
    return buffer;
  }

  test('is read by every execute as it then is, and outlives the batch', async () => {
    const buffer = bufferOf(Float32Array.of(1, 2, 3, 4));
    const batch = new GpuCommandBatch(gpu);
    const x = batch.importBuffer(buffer, 4);
    const y = batch.scale(batch.add(x, x), 0.5);
    await batch.execute();
    expect([...(await batch.read(y))]).toEqual([1, 2, 3, 4]);
    gpu.queue.writeBuffer(buffer, 0, Float32Array.of(5, 6, 7, 8));
    await batch.execute();
    expect([...(await batch.read(y))]).toEqual([5, 6, 7, 8]);
    batch.dispose();
    const second = new GpuCommandBatch(gpu);
    const z = second.relu(second.importBuffer(buffer, 3));
    await second.execute();
    expect([...(await second.read(z))]).toEqual([5, 6, 7]);
    second.dispose();
    await gpu.idle();
    buffer.destroy();
  });

  test('is there for every plan that a batch makes of what it recorded', async () => {
    const buffer = bufferOf(Float32Array.of(1, 2, 3, 4));
    const batch = new GpuCommandBatch(gpu);
    const double = batch.scale(batch.importBuffer(buffer, 4), 2);
    const y = batch.sum(double);
    await batch.execute();
    expect([...(await batch.read(y))]).toEqual([20]);
    expect([...(await batch.read(double))]).toEqual([2, 4, 6, 8]);
    const z = batch.scale(double, 2);
    await batch.execute();
    expect([...(await batch.read(z))]).toEqual([4, 8, 12, 16]);
    batch.dispose();
    await gpu.idle();
    buffer.destroy();
  });

  test('that is too small, or cannot be bound or copied, is refused at once', () => {
    const batch = new GpuCommandBatch(gpu);
    const buffer = bufferOf(Float32Array.of(1, 2));
    expect(() => batch.importBuffer(buffer, 3)).toThrow('3 f32 elements take 12 bytes, the buffer has 8');
    for (const size of [0, -1, 1.5, Number.NaN]) expect(() => batch.importBuffer(buffer, size)).toThrow(ArgumentError);
    expect(() => batch.importBuffer(bufferOf(Float32Array.of(1), usage.storage), 1)).toThrow('STORAGE and COPY_SRC');
    expect(() => batch.importBuffer(bufferOf(Float32Array.of(1), usage.copySrc), 1)).toThrow('STORAGE and COPY_SRC');
    expect(batch.numBuffers).toBe(0);
    batch.dispose();
  });
});
