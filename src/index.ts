/**
 * Centella: language models and tensor compute on WebGPU, and on WASM SIMD where there is no GPU.
 * @module
 */

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
  GraphError,
  OutOfMemoryError,
  PlanError,
  ShapeError,
  UnsupportedError,
} from './core/errors.js';
export { GpuDevice } from './gpu/device.js';
export { GraphBuilder } from './graph/builder.js';
export type { Graph } from './graph/graph.js';
export { loadModel } from './llm.js';
export { CompiledGraph } from './runtime/compiled-graph.js';
export { openBackend } from './runtime/select.js';
