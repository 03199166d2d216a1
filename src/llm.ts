/**
 * `centella/llm`: language models from a GGUF file to text.
 * @module
 */

export { CentellaError, type ErrorCode, FormatError, type FormatErrorCode } from './core/errors.js';
export { type AdapterKey, parseTuning, type TunedProduct, type TunedShape, type Tuning } from './core/tuning.js';
export type { GenerateOptions, Prompt } from './engine/generate-options.js';
export type { ChosenOn, FinishReason, Generation, GenerationChunk, GenerationResult, Timings } from './engine/generation.js';
export { type LoadOptions, type LoadProgress, loadModel } from './engine/load.js';
export type { BackendReport, LoadTimings, Model, ProfileOptions } from './engine/model.js';
export type { LogitsHook, SamplingOptions } from './engine/sampler.js';
export type { DecoderConfig } from './model/decoder-config.js';
export type { CacheType } from './model/decoder-graph.js';
export type { BackendKind, Ceilings, StepTiming } from './runtime/backend.js';
export type { BackendOptions, DeviceChoice } from './runtime/select.js';
export type { TuningChoice } from './runtime/tuning-file.js';
export { type DecodeOptions, type EncodeOptions, loadTokenizer, type StreamDecoder, type Tokenizer } from './text/index.js';
