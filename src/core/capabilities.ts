/** What a WebGPU device can do, as plain data: kernel selection is a pure function of it, and tests mask it. */

export interface SubgroupMatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/** Limits that kernels and plans depend on; names are WebGPU's. */
export interface GpuLimits {
  readonly maxBufferSize: number;
  readonly maxStorageBufferBindingSize: number;
  readonly maxUniformBufferBindingSize: number;
  readonly maxStorageBuffersPerShaderStage: number;
  readonly maxComputeWorkgroupStorageSize: number;
  readonly maxComputeInvocationsPerWorkgroup: number;
  readonly maxComputeWorkgroupSizeX: number;
  readonly maxComputeWorkgroupSizeY: number;
  readonly maxComputeWorkgroupSizeZ: number;
  readonly maxComputeWorkgroupsPerDimension: number;
  readonly minStorageBufferOffsetAlignment: number;
  readonly minUniformBufferOffsetAlignment: number;
}

/** Features and limits of a device, as kernel selection reads them. */
export interface GpuCapabilities {
  readonly limits: GpuLimits;
  /** `shader-f16`: f16 arithmetic and f16 storage. */
  readonly f16: boolean;
  readonly subgroups: boolean;
  /** Smallest and largest subgroup that the adapter may use; both 0 without subgroups. */
  readonly subgroupMinSize: number;
  readonly subgroupMaxSize: number;
  /** `dot4I8Packed` and `dot4U8Packed` (the WGSL feature `packed_4x8_integer_dot_product`). */
  readonly packedDot: boolean;
  readonly timestamps: boolean;
  /** Supported matrix shapes; empty where subgroup matrices are missing. */
  readonly subgroupMatrices: readonly SubgroupMatrixConfig[];
  /** Adapter description for reports and per-vendor choices. */
  readonly vendor: string;
  readonly architecture: string;
  readonly description: string;
  /** A software rasteriser (by its own flag or by its name). */
  readonly software: boolean;
}

/** WebGPU's guaranteed floor, with no optional feature: the poorest device that every kernel must run on. */
export const baseCapabilities: GpuCapabilities = {
  limits: {
    maxBufferSize: 268_435_456,
    maxStorageBufferBindingSize: 134_217_728,
    maxUniformBufferBindingSize: 65_536,
    maxStorageBuffersPerShaderStage: 8,
    maxComputeWorkgroupStorageSize: 16_384,
    maxComputeInvocationsPerWorkgroup: 256,
    maxComputeWorkgroupSizeX: 256,
    maxComputeWorkgroupSizeY: 256,
    maxComputeWorkgroupSizeZ: 64,
    maxComputeWorkgroupsPerDimension: 65_535,
    minStorageBufferOffsetAlignment: 256,
    minUniformBufferOffsetAlignment: 256,
  },
  f16: false,
  subgroups: false,
  subgroupMinSize: 0,
  subgroupMaxSize: 0,
  packedDot: false,
  timestamps: false,
  subgroupMatrices: [],
  vendor: '',
  architecture: '',
  description: '',
  software: false,
};

/** Features and limits to take away from a device, so that the poorer variants run on a rich one. */
export interface CapabilityMask {
  readonly f16?: false;
  readonly subgroups?: false;
  readonly packedDot?: false;
  readonly subgroupMatrices?: false;
  readonly timestamps?: false;
  readonly limits?: Partial<GpuLimits>;
}

/** The capabilities without what `mask` takes away. Pure. */
export function maskCapabilities(capabilities: GpuCapabilities, mask: CapabilityMask): GpuCapabilities {
  const noSubgroups = mask.subgroups === false;
  return {
    ...capabilities,
    limits: { ...capabilities.limits, ...mask.limits },
    f16: capabilities.f16 && mask.f16 !== false,
    packedDot: capabilities.packedDot && mask.packedDot !== false,
    timestamps: capabilities.timestamps && mask.timestamps !== false,
    subgroups: capabilities.subgroups && !noSubgroups,
    subgroupMinSize: noSubgroups ? 0 : capabilities.subgroupMinSize,
    subgroupMaxSize: noSubgroups ? 0 : capabilities.subgroupMaxSize,
    subgroupMatrices: noSubgroups || mask.subgroupMatrices === false ? [] : capabilities.subgroupMatrices,
  };
}
