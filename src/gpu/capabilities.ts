/** Reads a WebGPU adapter or device into plain data. */

import type { CapabilityMask, GpuCapabilities, GpuLimits, SubgroupMatrixConfig } from '../core/capabilities.js';
import { baseCapabilities } from '../core/capabilities.js';

/** Features that kernels or the profiler use; requested wherever an adapter offers them. */
export const wantedFeatures = [
  'shader-f16',
  'subgroups',
  'subgroup-size-control',
  'timestamp-query',
  'atomic-vec2u-min-max',
  'chromium-experimental-subgroup-matrix',
] as const;

/** The WGSL language feature behind `dot4I8Packed`. */
export const packedDotFeature = 'packed_4x8_integer_dot_product';

/** What `GPUAdapterInfo` has today; every field may be missing in an older browser. */
export interface AdapterInfoLike {
  readonly vendor?: string;
  readonly architecture?: string;
  readonly device?: string;
  readonly description?: string;
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
  readonly isFallbackAdapter?: boolean;
  /** Chromium, experimental. */
  readonly subgroupMatrixConfigs?: Iterable<{ componentType: string; resultComponentType: string; M: number; N: number; K: number }>;
}

/** A GPUAdapter or a GPUDevice. */
export interface CapabilitySource {
  readonly features: { has(name: string): boolean };
  readonly limits: GPUSupportedLimits;
}

const limitNames = Object.keys(baseCapabilities.limits) as readonly (keyof GpuLimits)[];

/** Smallest and largest subgroup that WebGPU allows: what an adapter with subgroups but without sizes may use. */
const anySubgroup = { min: 4, max: 128 };

export function capabilitiesOf(source: CapabilitySource, info: AdapterInfoLike, packedDot: boolean): GpuCapabilities {
  const subgroups = source.features.has('subgroups');
  return {
    limits: limitsOf(source.limits),
    f16: source.features.has('shader-f16'),
    subgroups,
    subgroupMinSize: subgroups ? (info.subgroupMinSize ?? anySubgroup.min) : 0,
    subgroupMaxSize: subgroups ? (info.subgroupMaxSize ?? anySubgroup.max) : 0,
    packedDot,
    timestamps: source.features.has('timestamp-query'),
    subgroupMatrices: source.features.has('chromium-experimental-subgroup-matrix') ? matrixConfigs(info) : [],
    vendor: info.vendor ?? '',
    architecture: info.architecture ?? '',
    description: describe(info),
    software: isSoftware(info),
  };
}

function limitsOf(limits: GPUSupportedLimits): GpuLimits {
  return Object.fromEntries(limitNames.map((name) => [name, Number(limits[name] ?? baseCapabilities.limits[name])])) as unknown as GpuLimits;
}

function matrixConfigs(info: AdapterInfoLike): SubgroupMatrixConfig[] {
  return [...(info.subgroupMatrixConfigs ?? [])].map(({ componentType, resultComponentType, M, N, K }) => ({
    componentType,
    resultComponentType,
    m: M,
    n: N,
    k: K,
  }));
}

/** The best name that the adapter gives: Dawn has a device and its driver, browsers often only the vendor and architecture. */
export function describe(info: AdapterInfoLike): string {
  const device = (info.device ?? '').replace(/-+$/, '');
  const description = info.description ?? '';
  if (device !== '' && description !== '') return `${device} (${description})`;
  const made = [info.vendor, info.architecture].filter((text) => text !== undefined && text !== '').join(' ');
  return [device, description, made].find((text) => text !== '') ?? 'unnamed adapter';
}

const softwareNames = /llvmpipe|lavapipe|softpipe|swiftshader|microsoft basic render|\bwarp\b/i;

/** A rasteriser that runs on the CPU: by its own flag, else by its name. */
export function isSoftware(info: AdapterInfoLike): boolean {
  if (info.isFallbackAdapter === true) return true;
  return softwareNames.test([info.vendor, info.architecture, info.device, info.description].join(' '));
}

/** Features to request: those wanted, offered and not masked away, so that a kernel that uses a masked feature fails to compile. */
export function featuresToRequest(adapter: CapabilitySource, mask: CapabilityMask = {}): GPUFeatureName[] {
  const noSubgroups = mask.subgroups === false;
  const masked = (name: string) =>
    (name === 'shader-f16' && mask.f16 === false) ||
    (name.includes('subgroup') && noSubgroups) ||
    (name === 'chromium-experimental-subgroup-matrix' && mask.subgroupMatrices === false);
  return wantedFeatures.filter((name) => adapter.features.has(name) && !masked(name)) as GPUFeatureName[];
}

/** Limits to request: the adapter's own, lowered by the mask (WebGPU raises what lies below its floor back to the floor). */
export function limitsToRequest(adapter: CapabilitySource, mask: CapabilityMask = {}): Record<string, number> {
  return { ...limitsOf(adapter.limits), ...mask.limits };
}
