import { expect, test } from 'vitest';
import { GpuCommandBatch } from '../../src/compute/batch.js';
import { countCalls } from '../../src/gpu/call-counter.js';
import { GpuDevice } from '../../src/gpu/device.js';

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
    // Three kernels a layer: a product, an elementwise region, a norm.
    for (let layer = 0; layer < layers; layer++) {
      const product = batch.matmul(x, weight, width, width, width);
      x = batch.rmsNorm(batch.add(batch.scale(batch.relu(product), 2), x), gain, 1e-5);
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
