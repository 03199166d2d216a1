/**
 * Centella: language models and tensor compute on WebGPU, and on WASM SIMD where there is no GPU.
 * @module
 */

export { GpuCommandBatch, type MatmulOptions as BatchMatmulOptions } from './compute/batch.js';
export { type BatchTensor, BufferId, type RowOptions } from './compute/batch-record.js';
export type { BatchViewReport } from './compute/batch-views.js';
export { type CompileGraphOptions, compile } from './compute/compile.js';
export { type EigenOptions, type EigenResult, symmetricEigen } from './compute/eigen.js';
export { type Convolution, GpuBackend, type GpuBackendOptions, type HostArray } from './compute/gpu-backend.js';
export {
  type CachedWeightInfo,
  GpuMatmulCache,
  type MatmulCacheOptions,
  type MatmulOptions,
  type UploadWeightOptions,
  type WeightData,
} from './compute/matmul-cache/index.js';
export type { ComputeTarget } from './compute/open.js';
export { shaders } from './compute/shaders.js';
export { foldPartials, TILE_SIZE, tiledMax2d, tiledMin2d, tiledReduce2d, tiledReducePartial, tiledSum2d } from './compute/tiled/reduce.js';
export { MaxOp, MinOp, type ReduceOp, SumOp } from './compute/tiled/reduce-op.js';
export { baseCapabilities, type CapabilityMask, type GpuCapabilities, type GpuLimits, maskCapabilities } from './core/capabilities.js';
export { type DType, dtypes } from './core/dtype.js';
export {
  AbortedError,
  ArgumentError,
  BusyError,
  CentellaError,
  ContextError,
  DeviceError,
  DeviceLostError,
  DisposedError,
  type ErrorCode,
  FormatError,
  type FormatErrorCode,
  GraphError,
  OutOfMemoryError,
  PlanError,
  ShapeError,
  UnsupportedError,
} from './core/errors.js';
export type { GpuKernel } from './core/kernel.js';
export type { MemoryClass, MemoryLedger } from './core/memory.js';
export type { Shape, TensorType } from './core/tensor.js';
export { type AdapterKey, parseTuning, type TunedProduct, type TunedShape, type Tuning } from './core/tuning.js';
export type { MemoryLayout } from './core/views/layout.js';
export { PartitionView, type TileInfo } from './core/views/partition-view.js';
export { TensorView, type ViewOptions } from './core/views/tensor-view.js';
export type { AdapterEntry, AdapterList, PowerPreference } from './gpu/adapter.js';
export { GpuDevice, type GpuDeviceOptions } from './gpu/device.js';
export { PipelineCache } from './gpu/pipeline-cache.js';
export { GpuDevicePool, type GpuDevicePoolOptions, type GpuLease, type PoolReport } from './gpu/pool.js';
export { GraphBuilder } from './graph/builder.js';
export { type Evaluation, evaluate, type LeafValues } from './graph/evaluate.js';
export type { Graph, GraphNode, NodeId } from './graph/graph.js';
export { type RewriteEntry, type RewriteResult, rewrite } from './graph/rewrite.js';
export { loadModel } from './llm.js';
export { type ForwardPassMemory, type ForwardPassOptions, WgslForwardPass } from './model/forward-pass.js';
export type { OpName, OpParams } from './ops/params.js';
export type { ExecutionPlan } from './plan/execution-plan.js';
export type { MemoryPlan, Slot } from './plan/memory.js';
export { formatMemoryPlan } from './plan/report.js';
export { detectRuntime as runtime, type Runtime } from './platform/runtime.js';
export { Arena, type ArenaLocation } from './runtime/arena.js';
export type { Backend, BackendKind, StepTiming } from './runtime/backend.js';
export { CompiledGraph, type CompileOptions, type OutputData, type TensorData } from './runtime/compiled-graph.js';
export { chromeTrace, chromeTraceOfRuns, formatProfile, type ProfileRow, profileRows, type TracedRun } from './runtime/profile.js';
export { type BackendOptions, type DeviceChoice, openBackend } from './runtime/select.js';
export type { TuningChoice } from './runtime/tuning-file.js';
