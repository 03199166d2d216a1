export type { WeightData } from './encode.js';
export { type CachedWeightInfo, GpuMatmulCache, type MatmulCacheOptions, type MatmulOptions, type UploadWeightOptions } from './matmul-cache.js';
