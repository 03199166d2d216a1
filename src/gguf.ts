/**
 * `centella/gguf`: model files by themselves. Read and write GGUF, decode and encode ggml's block types, read safetensors.
 *
 * @example
 * const file = await openGguf('model.gguf');
 * const weights = dequantize('q4_k', await file.readTensor('blk.0.ffn_up.weight'));
 * await file.close();
 *
 * @module
 */

export { type DType, dtypes } from './core/dtype.js';
export {
  AbortedError,
  ArgumentError,
  CentellaError,
  DisposedError,
  FormatError,
  type FormatErrorCode,
  OutOfMemoryError,
  UnsupportedError,
} from './core/errors.js';
export { GgufFile } from './formats/gguf/file.js';
export type { GgufTensor } from './formats/gguf/header.js';
export { defaultGgufLimits, type GgufLimits } from './formats/gguf/limits.js';
export { type OpenGgufOptions, openGguf } from './formats/gguf/open.js';
export type { StreamOptions, TensorPiece } from './formats/gguf/stream.js';
export { type GgufArray, type GgufType, type GgufValue, ggufValue } from './formats/gguf/values.js';
export { type GgufInput, type GgufShard, type GgufSink, type GgufTensorInput, ggufChunks, splitGguf, writeGguf, writeGgufTo } from './formats/gguf/writer.js';
export { openSafetensors, type SafetensorsFile, type SafetensorsTensor } from './formats/safetensors/reader.js';
export type { ByteSource, SourceLike } from './formats/source.js';
export { HttpStatusError, type UrlOptions } from './formats/url-source.js';
export { type DecodableDType, dequantize, type EncodableDType, floatToHalf, halfToFloat, quantize } from './quant/index.js';
