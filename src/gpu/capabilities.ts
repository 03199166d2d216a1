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

/**
 * The one name that an adapter has in lists, reports and errors, however it was found: "nvidia-h200". Dawn tells the device, browsers often only the vendor and
 * architecture.
 */
export function adapterName({ device = '', description = '', vendor = '', architecture = '' }: AdapterInfoLike): string {
  const made = [vendor, architecture].filter((text) => text !== '').join(' ');
  return [identifier(device), description, made].find((text) => text !== '') ?? 'unnamed adapter';
}

/** The name, and what the adapter says beside it: with Dawn the driver. */
export function describe(info: AdapterInfoLike): string {
  const name = adapterName(info);
  const description = info.description ?? '';
  return description === '' || description === name ? name : `${name} (${description})`;
}

/** A driver's name of its device as WebGPU writes it in `GPUAdapterInfo.device`: "NVIDIA H200" is "nvidia-h200". */
export function identifier(name: string): string {
  return name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
}

/** Whether `wanted` is a part of an adapter's name, as the driver or as WebGPU writes it. */
export function isPartOfName(wanted: string, name: string): boolean {
  const part = identifier(wanted);
  return part === '' ? name.toLowerCase().includes(wanted.toLowerCase()) : identifier(name).includes(part);
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
    (name === 'timestamp-query' && mask.timestamps === false) ||
    (name.includes('subgroup') && noSubgroups) ||
    (name === 'chromium-experimental-subgroup-matrix' && mask.subgroupMatrices === false);
  return wantedFeatures.filter((name) => adapter.features.has(name) && !masked(name)) as GPUFeatureName[];
}

/** Limits to request: the adapter's own, lowered by the mask (WebGPU raises what lies below its floor back to the floor). */
export function limitsToRequest(adapter: CapabilitySource, mask: CapabilityMask = {}): Record<string, number> {
  return { ...limitsOf(adapter.limits), ...mask.limits };
}
