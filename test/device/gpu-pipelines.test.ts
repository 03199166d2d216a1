import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bytesOf } from '../../src/core/bytes.js';
import { OutOfMemoryError, UnsupportedError } from '../../src/core/errors.js';
import type { GpuKernel } from '../../src/core/kernel.js';
import { countCalls } from '../../src/gpu/call-counter.js';
import { GpuDevice } from '../../src/gpu/device.js';
import { profile } from '../../src/gpu/profiler.js';
import { Recorder } from '../../src/gpu/recorder.js';
import { measureCeilings } from '../../src/runtime/ceilings.js';
import { WebGpuBackend } from '../../src/runtime/webgpu-backend.js';
import { floats, ramp, scaleKernel } from '../gpu/kernels.js';

let gpu: GpuDevice;

beforeEach(async () => {
  // Subgroup matrices stand for a feature that the device lacks.
  gpu = await GpuDevice.request({ checked: true, mask: { subgroupMatrices: false } });
});

afterEach(() => gpu.dispose());

/** x -> 2x -> 6x, over 128 floats. */
async function chain(): Promise<{ recorder: Recorder; output: GPUBuffer }> {
  const [x, y, z] = ['x', 'y', 'z'].map((label) => floats(gpu, label, 128).buffer) as [GPUBuffer, GPUBuffer, GPUBuffer];
  await gpu.uploader.write(x, 0, bytesOf(ramp(128)));
  const recorder = new Recorder();
  for (const [kernel, from, to] of [
    [scaleKernel(2, 2), x, y],
    [scaleKernel(3, 2), y, z],
  ] as const) {
    const bindGroup = gpu.pipelines.bindGroup(kernel, [{ buffer: from }, { buffer: to }]);
    recorder.add({ label: kernel.key, pipeline: await gpu.pipelines.get(kernel), bindGroup, grid: kernel.workgroups });
  }
  return { recorder, output: z };
}

describe('PipelineCache', () => {
  it('compiles a kernel once, concurrent requests included', async () => {
    const kernel = scaleKernel(2);
    const [a, b] = await Promise.all([gpu.pipelines.get(kernel), gpu.pipelines.get(kernel)]);
    expect(a).toBe(b);
    expect(await gpu.pipelines.get({ ...kernel, wgsl: () => expect.unreachable('a known key needs no text') })).toBe(a);
    expect(gpu.pipelines.stats).toEqual({ hits: 2, compiles: 1, failures: 0, size: 1 });
    await gpu.pipelines.warm([kernel, scaleKernel(3), scaleKernel(4)]);
    expect(gpu.pipelines.stats).toEqual({ hits: 3, compiles: 3, failures: 0, size: 3 });
  });

  it('compiles one text once, whatever its keys are, and again where the bindings differ', async () => {
    const kernel = scaleKernel(2);
    const [a, b] = await Promise.all([gpu.pipelines.get(kernel), gpu.pipelines.get({ ...kernel, key: 'the same for other rows' })]);
    expect(a).toBe(b);
    expect(gpu.pipelines.stats).toEqual({ hits: 1, compiles: 1, failures: 0, size: 2 });
    expect(await gpu.pipelines.get({ ...kernel, key: 'with a least size', minBindingSizes: [4, 4] })).not.toBe(a);
  });

  it('shares layouts among kernels with equal bindings', () => {
    expect(gpu.pipelines.bindGroupLayout(['read', 'read_write'])).toBe(gpu.pipelines.bindGroupLayout(['read', 'read_write']));
    expect(gpu.pipelines.bindGroupLayout(['read', 'read'])).not.toBe(gpu.pipelines.bindGroupLayout(['read', 'read_write']));
    expect(gpu.pipelines.bindGroupLayout(['read'], [64])).not.toBe(gpu.pipelines.bindGroupLayout(['read']));
  });

  it('shows the line where WGSL is wrong, and stays usable', async () => {
    const broken = scaleKernel(2, 1, { key: 'broken', wgsl: () => 'fn ok() {}\nfn wrong() { let a = 1 +; }\n@compute @workgroup_size(1) fn main() {}' });
    const failure = { code: 'E_SHADER', message: expect.stringMatching(/kernel "broken" does not compile.*2:\d+ .*2 \| fn wrong\(\) \{ let a = 1 \+; \}/s) };
    await expect(gpu.pipelines.get(broken)).rejects.toMatchObject(failure);
    expect(gpu.pipelines.stats).toMatchObject({ compiles: 1, failures: 1, size: 0 });
    await gpu.idle();
    await gpu.pipelines.get(scaleKernel(2));
  });

  it('says what a pipeline lacks where the text itself is sound', async () => {
    const unbound = scaleKernel(2, 1, { key: 'one binding short', bindings: ['read'] });
    await expect(gpu.pipelines.get(unbound)).rejects.toMatchObject({ code: 'E_SHADER', message: expect.stringContaining('one binding short') });
  });

  it.each<[string, Partial<GpuKernel>]>([
    ['bytes of workgroup memory', { workgroupBytes: 1 << 24 }],
    ['invocations', { workgroupSize: [2048, 1, 1] }],
    ['workgroups in one dimension', { workgroups: [70_000, 1, 1] }],
    ['storage buffers', { bindings: Array.from({ length: 99 }, () => 'read' as const) }],
    ['chromium-experimental-subgroup-matrix', { features: ['chromium-experimental-subgroup-matrix'] }],
  ])('refuses a kernel with more %s than the device has, before compiling', async (what, overrides) => {
    await expect(gpu.pipelines.get(scaleKernel(2, 1, overrides))).rejects.toMatchObject({ code: 'E_UNSUPPORTED', message: expect.stringContaining(what) });
    expect(gpu.pipelines.stats.compiles).toBe(0);
  });

  it.each([
    ['two few buffers', () => [{ buffer: floats(gpu, 'x', 64).buffer }], '2 bindings, got 1'],
    ['an unaligned offset', () => [0, 4].map((offset) => ({ buffer: floats(gpu, 'x', 64).buffer, offset })), 'multiples of'],
    ['bytes past the end', () => [0, 0].map((offset) => ({ buffer: floats(gpu, 'x', 64).buffer, offset, size: 260 })), 'of a buffer of 256'],
  ])('refuses %s', (_, bindings, message) => {
    expect(() => gpu.pipelines.bindGroup(scaleKernel(2), bindings())).toThrow(
      expect.objectContaining({ code: 'E_ARGUMENT', message: expect.stringContaining(message) }),
    );
  });
});

describe('Recorder on a device', () => {
  it('replays without making anything', async () => {
    const { recorder, output } = await chain();
    const readback = gpu.createReadback();
    const run = async () => {
      const encoder = gpu.device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      recorder.record(pass);
      pass.end();
      const ticket = readback.copyInto(encoder, output, 0, 512);
      gpu.queue.submit([encoder.finish()]);
      return new Float32Array(await ticket.read());
    };
    expect(await run()).toEqual(ramp(128).map((value) => 6 * value));
    const counter = countCalls(gpu.device, gpu.queue);
    expect(await run()).toEqual(ramp(128).map((value) => 6 * value));
    expect(counter.created).toBe(0);
    expect(counter.counts).toMatchObject({ submit: 1, createCommandEncoder: 1, createBuffer: 0 });
    counter.reset();
    floats(gpu, 'one more', 4);
    expect(counter.created).toBe(1);
    counter.stop();
    floats(gpu, 'not counted', 4);
    expect(counter.counts.createBuffer).toBe(1);
  });

  it('has no clock where timestamps are masked, and says so', async () => {
    const device = await GpuDevice.request({ checked: true, mask: { timestamps: false } });
    const backend = new WebGpuBackend(device);
    try {
      expect(backend.timesSteps).toBe(false);
      await expect(backend.ceilings()).rejects.toThrow(UnsupportedError);
      expect(device.memory.ledger().bytes).toBe(0);
    } finally {
      backend.dispose();
    }
  });

  it('measures what a device reaches within its budget, and gives the memory back', async () => {
    const { bytes } = gpu.memory.ledger();
    const { bytesPerSecond, flopsPerSecond } = await measureCeilings(gpu);
    expect(bytesPerSecond).toBeGreaterThan(0);
    expect(flopsPerSecond).toBeGreaterThan(0);
    expect(gpu.memory.ledger()).toMatchObject({ bytes });
    const small = await GpuDevice.request({ checked: true, budgetBytes: 4096 });
    await expect(measureCeilings(small)).rejects.toThrow(OutOfMemoryError);
    expect(small.memory.ledger().bytes).toBe(0);
    small.dispose();
  });

  it('times every dispatch', async () => {
    const { recorder } = await chain();
    const times = await profile(gpu, recorder);
    expect(times.map(({ label }) => label)).toEqual(['test scale 2', 'test scale 3']);
    for (const { ns, startNs } of times) {
      expect(ns).toBeGreaterThan(0);
      expect(startNs).toBeGreaterThanOrEqual(0);
    }
    expect(gpu.memory.ledger().byClass.staging.bytes).toBe(0);
  });

  it('times dispatches of one kind together, and runs the others once, after them', async () => {
    const { recorder, output } = await chain();
    const counted = floats(gpu, 'counted', 128).buffer;
    // y += x: twice would be seen.
    const once = scaleKernel(2, 2, {
      key: 'accumulate',
      wgsl: () => `@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] += x[id.x]; }`,
    });
    const kind = new Recorder();
    const add = (recorded: GpuKernel, from: GPUBuffer, to: GPUBuffer, name?: string): Promise<void> =>
      gpu.pipelines.get(recorded).then((pipeline) => {
        const bindGroup = gpu.pipelines.bindGroup(recorded, [{ buffer: from }, { buffer: to }]);
        kind.add({ label: recorded.key, pipeline, bindGroup, grid: recorded.workgroups, kind: name });
      });
    const [x, y] = [floats(gpu, 'x', 128).buffer, floats(gpu, 'y', 128).buffer];
    await gpu.uploader.write(x, 0, bytesOf(ramp(128)));
    for (const to of [y, output, y]) await add(scaleKernel(3, 2), x, to, 'scale');
    await add(once, y, counted);
    kind.append(recorder);
    const times = await profile(gpu, kind);
    expect(times.map(({ ns }) => ns).slice(0, 3)).toEqual(new Array(3).fill(times[0]?.ns));
    let start = 0;
    for (const { ns, startNs } of times) {
      expect(startNs).toBeCloseTo(start, 3);
      start += ns;
    }
    const read = gpu.createReadback({ depth: 1 });
    const encoder = gpu.device.createCommandEncoder();
    const ticket = read.copyInto(encoder, counted, 0, 512);
    gpu.queue.submit([encoder.finish()]);
    expect([...new Float32Array(await ticket.read())]).toEqual([...ramp(128)].map((value) => 3 * value));
    read.dispose();
  });
});
