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
export {
  defaultGgufLimits,
  type GgufArray,
  GgufFile,
  type GgufInput,
  type GgufLimits,
  type GgufNumericType,
  type GgufShard,
  type GgufSink,
  type GgufSource,
  type GgufTensor,
  type GgufTensorInput,
  type GgufType,
  type GgufValue,
  ggufChunks,
  ggufValue,
  type OpenGgufOptions,
  openGguf,
  type StreamOptions,
  splitGguf,
  type TensorPiece,
  writeGguf,
  writeGgufTo,
} from './formats/gguf/index.js';
export { openSafetensors, type SafetensorsFile, type SafetensorsTensor } from './formats/safetensors/reader.js';
export type { ByteSource, SourceLike } from './formats/source.js';
export type { UrlOptions } from './formats/url-source.js';
export { type DecodableDType, dequantize, type EncodableDType, floatToHalf, halfToFloat, quantize } from './quant/index.js';
