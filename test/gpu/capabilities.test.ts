import { describe, expect, it } from 'vitest';
import { baseCapabilities } from '../../src/core/capabilities.js';
import { reachable } from '../../src/gpu/adapter.js';
import {
  adapterName,
  capabilitiesOf,
  describe as describeAdapter,
  featuresToRequest,
  identifier,
  isPartOfName,
  isSoftware,
  limitsToRequest,
} from '../../src/gpu/capabilities.js';
import { dawnBackend, dawnFlags, parseAdapterList } from '../../src/platform/dawn.js';

function source(features: readonly string[], limits: Partial<typeof baseCapabilities.limits> = {}) {
  return { features: new Set(features), limits: { ...baseCapabilities.limits, ...limits } as unknown as GPUSupportedLimits };
}

describe('capabilities of an adapter', () => {
  it('reads features, limits and sizes', () => {
    const info = { vendor: 'v', architecture: 'a', subgroupMinSize: 8, subgroupMaxSize: 16 };
    const capabilities = capabilitiesOf(source(['shader-f16', 'subgroups', 'timestamp-query'], { maxBufferSize: 123 }), info, true);
    expect(capabilities).toMatchObject({
      f16: true,
      subgroups: true,
      subgroupMinSize: 8,
      subgroupMaxSize: 16,
      packedDot: true,
      timestamps: true,
      software: false,
    });
    expect(capabilities.limits.maxBufferSize).toBe(123);
    expect(capabilities.description).toBe('v a');
  });

  it("gives no subgroup sizes without subgroups, and WebGPU's extremes where an adapter keeps them to itself", () => {
    expect(capabilitiesOf(source([]), { subgroupMinSize: 32, subgroupMaxSize: 32 }, false)).toMatchObject({ subgroupMinSize: 0, subgroupMaxSize: 0 });
    expect(capabilitiesOf(source(['subgroups']), {}, false)).toMatchObject({ subgroupMinSize: 4, subgroupMaxSize: 128 });
  });

  it('reads matrix shapes only where the feature is there', () => {
    const info = { subgroupMatrixConfigs: [{ componentType: 'f16', resultComponentType: 'f32', M: 16, N: 8, K: 32 }] };
    expect(capabilitiesOf(source(['chromium-experimental-subgroup-matrix']), info, false).subgroupMatrices).toEqual([
      { componentType: 'f16', resultComponentType: 'f32', m: 16, n: 8, k: 32 },
    ]);
    expect(capabilitiesOf(source([]), info, false).subgroupMatrices).toEqual([]);
  });

  it.each(['llvmpipe (LLVM 15)', 'SwiftShader Device (Subzero)', 'Microsoft Basic Render Driver', 'WARP', 'softpipe'])('knows %s as software', (device) => {
    expect(isSoftware({ device })).toBe(true);
  });

  it('takes the fallback flag as software and a card as hardware', () => {
    expect(isSoftware({ device: 'x', isFallbackAdapter: true })).toBe(true);
    expect(isSoftware({ vendor: 'nvidia', architecture: 'hopper', device: 'NVIDIA H200', isFallbackAdapter: false })).toBe(false);
    expect(isSoftware({ device: 'Warper 9000' })).toBe(false);
  });

  it('names an adapter by what it has', () => {
    expect(describeAdapter({ device: 'nvidia-h200', description: 'NVIDIA: 580.1' })).toBe('nvidia-h200 (NVIDIA: 580.1)');
    expect(describeAdapter({ device: '', description: '', vendor: 'apple', architecture: 'metal-3' })).toBe('apple metal-3');
    expect(describeAdapter({})).toBe('unnamed adapter');
  });

  it('has one name for an adapter, which is found as its driver writes it too', () => {
    expect(adapterName({ device: 'nvidia-h200', description: 'NVIDIA: 580.1' })).toBe('nvidia-h200');
    expect(adapterName({ device: 'llvmpipe-llvm-15-0-6-256-bits-', description: 'llvmpipe: Mesa' })).toBe(identifier('llvmpipe (LLVM 15.0.6, 256 bits)'));
    expect(adapterName({ description: 'A card' })).toBe('A card');
    expect(['NVIDIA H200', 'nvidia-h200', 'H200', ''].map((part) => isPartOfName(part, 'nvidia-h200'))).toEqual([true, true, true, true]);
    expect(['H100', '(?)'].map((part) => isPartOfName(part, 'nvidia-h200'))).toEqual([false, false]);
  });
});

describe('what is requested', () => {
  const rich = source(['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix', 'depth-clip-control'], { maxBufferSize: 2 ** 32 });

  it('asks for what kernels use and no more', () => {
    expect(featuresToRequest(rich)).toEqual(['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix']);
    expect(limitsToRequest(rich)['maxBufferSize']).toBe(2 ** 32);
  });

  it('leaves out what the mask takes away', () => {
    expect(featuresToRequest(rich, { f16: false })).not.toContain('shader-f16');
    expect(featuresToRequest(rich, { subgroups: false })).toEqual(['shader-f16']);
    expect(featuresToRequest(rich, { subgroupMatrices: false })).toEqual(['shader-f16', 'subgroups']);
    expect(limitsToRequest(rich, { limits: { maxBufferSize: 2 ** 28 } })['maxBufferSize']).toBe(2 ** 28);
  });
});

describe('Dawn', () => {
  it('turns its checks off, or leaves all of them on', () => {
    expect((['linux', 'darwin', 'win32'] as const).map(dawnBackend)).toEqual(['vulkan', 'metal', 'd3d12']);
    expect(dawnFlags({})[0]).toContain('disable_robustness');
    expect(dawnFlags({})[1]).toContain('lazy_clear_resource_on_first_use');
    expect(dawnFlags({ checked: true }).join()).not.toMatch(/disable_robustness|disable_workgroup_init|lazy_clear/);
    expect(dawnFlags({ checked: true, backend: 'vulkan', adapterName: 'x' }).slice(2)).toEqual(['backend=vulkan', 'adapter=x']);
  });

  it('reads the adapters out of its refusal', () => {
    const message = "no suitable backends found\nAvailable adapters:\n * backend: 'vulkan', name: 'NVIDIA H200'\n * backend: 'opengl', name: 'Bob's GPU'\n";
    expect(parseAdapterList(message)).toEqual([
      { backend: 'vulkan', name: 'NVIDIA H200' },
      { backend: 'opengl', name: "Bob's GPU" },
    ]);
    expect(parseAdapterList('no suitable backends found')).toEqual([]);
  });

  it('says which adapters cannot be told apart', () => {
    const card = (name: string, backend = 'vulkan') => ({ backend, name });
    const { reached, notes } = reachable([card('H200 NVL'), card('H200 NVL'), card('H200'), card('H200', 'd3d12')]);
    expect(reached).toEqual([card('H200 NVL'), card('H200', 'd3d12')]);
    expect(notes).toEqual([expect.stringContaining('takes H200 NVL first')]);
  });
});
