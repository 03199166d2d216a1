/** Compiled kernels of one device, keyed by their structure, and then by their text: that is made only for a key that is new, and compiled only where it is new as well. */

import type { GpuCapabilities, GpuLimits } from '../core/capabilities.js';
import { ArgumentError, DeviceError, UnsupportedError } from '../core/errors.js';
import type { BindingKind, GpuKernel } from '../core/kernel.js';
import { throughExit } from '../platform/dawn.js';
import { shaderStageCompute } from './constants.js';
import type { DeviceHealth } from './health.js';
import { shaderExcerpt } from './shader-excerpt.js';

export interface PipelineCacheStats {
  /** Requests answered by a pipeline that was there, or already being compiled, for this key or for another with the same text. */
  readonly hits: number;
  readonly compiles: number;
  readonly failures: number;
  /** Pipelines held now. */
  readonly size: number;
}

/** A part of a buffer, as a kernel's binding takes it. */
export interface BufferBinding {
  readonly buffer: GPUBuffer;
  /** Bytes; a multiple of the device's offset alignment. Default 0. */
  readonly offset?: number;
  /** Bytes. Default: the rest of the buffer. */
  readonly size?: number;
}

interface BindingLayout {
  readonly group: GPUBindGroupLayout;
  readonly pipeline: GPUPipelineLayout;
}

const bufferType: Readonly<Record<BindingKind, GPUBufferBindingType>> = { read: 'read-only-storage', read_write: 'storage', uniform: 'uniform' };

/** Compiled kernels of one device: each is compiled once, however many ask for it at a time. */
export class PipelineCache {
  readonly #device: GPUDevice;
  readonly #health: DeviceHealth;
  readonly #capabilities: GpuCapabilities;
  readonly #layouts = new Map<string, BindingLayout>();
  readonly #pipelines = new Map<string, Promise<GPUComputePipeline>>();
  /** By text and layout: kernels of several grids may have one text. */
  readonly #texts = new Map<string, Promise<GPUComputePipeline>>();
  #hits = 0;
  #compiles = 0;
  #failures = 0;

  constructor(device: GPUDevice, health: DeviceHealth, capabilities: GpuCapabilities) {
    this.#device = device;
    this.#health = health;
    this.#capabilities = capabilities;
  }

  /** Lookups that found a pipeline, compilations, those that failed, and the pipelines that there are. */
  get stats(): PipelineCacheStats {
    return { hits: this.#hits, compiles: this.#compiles, failures: this.#failures, size: this.#pipelines.size };
  }

  /**
   * The kernel's pipeline, compiled where it is new. Concurrent requests for one key share one compilation.
   * @throws UnsupportedError where the kernel needs more than the device has.
   * @throws DeviceError E_SHADER where its WGSL does not compile; the message shows the line.
   */
  async get(kernel: GpuKernel): Promise<GPUComputePipeline> {
    this.#health.check();
    assertFits(kernel, this.#capabilities);
    const known = this.#pipelines.get(kernel.key);
    if (known !== undefined) {
      this.#hits++;
      return known;
    }
    const code = kernel.wgsl();
    const text = `${signatureOf(kernel.bindings, kernel.minBindingSizes)}\n${code}`;
    const same = this.#texts.get(text);
    if (same !== undefined) {
      this.#hits++;
      this.#pipelines.set(kernel.key, same);
      return same;
    }
    this.#compiles++;
    const compiling = this.#compile(kernel, code);
    this.#pipelines.set(kernel.key, compiling);
    this.#texts.set(text, compiling);
    try {
      return await compiling;
    } catch (error) {
      this.#failures++;
      this.#texts.delete(text);
      for (const [key, pipeline] of this.#pipelines) if (pipeline === compiling) this.#pipelines.delete(key);
      throw error;
    }
  }

  /** Compiles many kernels side by side, the longest texts first: drivers have few threads for it, and the slowest kernel should not begin last. */
  async warm(kernels: Iterable<GpuKernel>): Promise<void> {
    const distinct = new Map(Array.from(kernels, (kernel) => [kernel.key, kernel]));
    const texts = Array.from(distinct.values(), (kernel) => ({ kernel, code: this.#pipelines.has(kernel.key) ? '' : kernel.wgsl() }));
    texts.sort((a, b) => b.code.length - a.code.length);
    await Promise.all(texts.map(({ kernel, code }) => this.get({ ...kernel, wgsl: () => code })));
  }

  /** The layout of group 0 for a list of bindings; one per distinct list. */
  bindGroupLayout(bindings: readonly BindingKind[], minBindingSizes?: readonly number[]): GPUBindGroupLayout {
    return this.#layout(bindings, minBindingSizes).group;
  }

  /**
   * A bind group for a kernel, its buffers in the order of the kernel's bindings.
   * @throws ArgumentError where their number, an offset or a size breaks a rule of WebGPU.
   */
  bindGroup(kernel: GpuKernel, bindings: readonly BufferBinding[], label = kernel.key): GPUBindGroup {
    this.#health.check();
    assertBindings(kernel, bindings, this.#capabilities.limits);
    const { group } = this.#layout(kernel.bindings, kernel.minBindingSizes);
    const entries = bindings.map(({ buffer, offset = 0, size = buffer.size - offset }, binding) => ({ binding, resource: { buffer, offset, size } }));
    return this.#device.createBindGroup({ label, layout: group, entries });
  }

  #layout(bindings: readonly BindingKind[], minBindingSizes: readonly number[] = []): BindingLayout {
    const signature = signatureOf(bindings, minBindingSizes);
    const known = this.#layouts.get(signature);
    if (known !== undefined) return known;
    const entries = bindings.map((kind, binding) => ({
      binding,
      visibility: shaderStageCompute,
      buffer: { type: bufferType[kind], minBindingSize: minBindingSizes[binding] ?? 0 },
    }));
    const group = this.#device.createBindGroupLayout({ label: signature, entries });
    const layout = { group, pipeline: this.#device.createPipelineLayout({ label: signature, bindGroupLayouts: [group] }) };
    this.#layouts.set(signature, layout);
    return layout;
  }

  async #compile(kernel: GpuKernel, code: string): Promise<GPUComputePipeline> {
    const { pipeline: layout } = this.#layout(kernel.bindings, kernel.minBindingSizes);
    this.#device.pushErrorScope('validation');
    const module = this.#device.createShaderModule({ label: kernel.key, code });
    const moduleError = this.#device.popErrorScope();
    const compiled = throughExit(this.#device, this.#device.createComputePipelineAsync({ label: kernel.key, layout, compute: { module, entryPoint: 'main' } }));
    const [scope, pipeline] = await Promise.allSettled([moduleError, compiled]);
    // A lost device rejects nothing: it hands out pipelines that do nothing.
    this.#health.check();
    if (pipeline.status === 'fulfilled' && scope.status === 'fulfilled' && scope.value === null) return pipeline.value;
    const said = scope.status === 'fulfilled' && scope.value !== null ? scope.value.message : reasonOf(pipeline.status === 'rejected' ? pipeline : scope);
    const excerpt = await shaderExcerpt(module, code);
    this.#health.check();
    throw new DeviceError('E_SHADER', `kernel "${kernel.key}" does not compile on this device: ${excerpt ?? said}`, {
      cause: pipeline.status === 'rejected' ? pipeline.reason : undefined,
    });
  }
}

function signatureOf(bindings: readonly BindingKind[], minBindingSizes: readonly number[] = []): string {
  return bindings.map((kind, index) => `${kind}:${minBindingSizes[index] ?? 0}`).join(' ');
}

function reasonOf(result: PromiseSettledResult<unknown>): string {
  if (result.status === 'fulfilled') return 'no reason given';
  return result.reason instanceof Error ? result.reason.message : String(result.reason);
}

/** Throws where the kernel needs a feature or a size that the (perhaps masked) capabilities do not have. */
export function assertFits(kernel: GpuKernel, capabilities: GpuCapabilities): void {
  const { limits } = capabilities;
  const [x, y, z] = kernel.workgroupSize;
  const storageBuffers = kernel.bindings.filter((kind) => kind !== 'uniform').length;
  const needs: readonly (readonly [what: string, needed: number, limit: number])[] = [
    ['bytes of workgroup memory', kernel.workgroupBytes, limits.maxComputeWorkgroupStorageSize],
    ['invocations per workgroup', x * y * z, limits.maxComputeInvocationsPerWorkgroup],
    ['invocations in x', x, limits.maxComputeWorkgroupSizeX],
    ['invocations in y', y, limits.maxComputeWorkgroupSizeY],
    ['invocations in z', z, limits.maxComputeWorkgroupSizeZ],
    ['workgroups in one dimension', Math.max(...kernel.workgroups), limits.maxComputeWorkgroupsPerDimension],
    ['storage buffers', storageBuffers, limits.maxStorageBuffersPerShaderStage],
  ];
  for (const [what, needed, limit] of needs) {
    if (needed > limit)
      throw new UnsupportedError(`kernel "${kernel.key}" needs ${needed} ${what}, this device has ${limit}: select a variant for its capabilities`);
  }
  const has = {
    'shader-f16': capabilities.f16,
    subgroups: capabilities.subgroups,
    'chromium-experimental-subgroup-matrix': capabilities.subgroupMatrices.length > 0,
  };
  const missing = kernel.features.filter((feature) => !has[feature]);
  if (missing.length > 0)
    throw new UnsupportedError(`kernel "${kernel.key}" needs ${missing.join(', ')}, which this device does not have: select a variant for its capabilities`);
}

function assertBindings(kernel: GpuKernel, bindings: readonly BufferBinding[], limits: GpuLimits): void {
  if (bindings.length !== kernel.bindings.length) {
    throw new ArgumentError('bindings', `kernel "${kernel.key}" has ${kernel.bindings.length} bindings, got ${bindings.length} buffers`);
  }
  for (const [index, { buffer, offset = 0, size = buffer.size - offset }] of bindings.entries()) {
    const uniform = kernel.bindings[index] === 'uniform';
    const alignment = uniform ? limits.minUniformBufferOffsetAlignment : limits.minStorageBufferOffsetAlignment;
    const largest = uniform ? limits.maxUniformBufferBindingSize : limits.maxStorageBufferBindingSize;
    const least = kernel.minBindingSizes?.[index] ?? 1;
    const where = `binding ${index} of kernel "${kernel.key}"`;
    if (offset % alignment !== 0) throw new ArgumentError('bindings', `${where} starts at byte ${offset}; this device wants multiples of ${alignment}`);
    if (size < least || offset + size > buffer.size) {
      throw new ArgumentError(
        'bindings',
        `${where} takes bytes ${offset} to ${offset + size} of a buffer of ${buffer.size}; it needs at least ${least} bytes inside it`,
      );
    }
    if (size > largest) throw new ArgumentError('bindings', `${where} has ${size} bytes; one binding of this device holds ${largest}: split the tensor`);
  }
}
