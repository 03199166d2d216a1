export { GgufFile } from './file.js';
export type { GgufTensor } from './header.js';
export { defaultGgufLimits, type GgufLimits } from './limits.js';
export { type GgufSource, type OpenGgufOptions, openGguf } from './open.js';
export type { StreamOptions, TensorPiece } from './stream.js';
export { type GgufArray, type GgufNumericType, type GgufType, type GgufValue, ggufValue } from './values.js';
export { type GgufInput, type GgufShard, type GgufSink, type GgufTensorInput, ggufChunks, splitGguf, writeGguf, writeGgufTo } from './writer.js';
