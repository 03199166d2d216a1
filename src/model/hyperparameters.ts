import { FormatError } from '../core/errors.js';

/** Typed look-ups in a model file's metadata: undefined where the key is absent, `FormatError` where it has another type. `GgufFile` is one. */
export interface ModelMetadata {
  getString(key: string): string | undefined;
  getUint(key: string): number | undefined;
  getFloat(key: string): number | undefined;
}

/** The numbers of a decoder as its file states them; what is absent is undefined, so that `inspect` can say so. */
export interface Hyperparameters {
  readonly architecture: string;
  readonly blockCount: number | undefined;
  readonly contextLength: number | undefined;
  readonly embeddingLength: number | undefined;
  readonly feedForwardLength: number | undefined;
  readonly headCount: number | undefined;
  readonly headCountKv: number | undefined;
  readonly keyLength: number | undefined;
  readonly valueLength: number | undefined;
  readonly rmsEpsilon: number | undefined;
  readonly ropeDimensionCount: number | undefined;
  readonly ropeBase: number | undefined;
  readonly ropeScaling: string | undefined;
  readonly ropeScalingFactor: number | undefined;
}

/** Upper bounds that no released model comes near: a value above is a damaged or hostile file. */
const bounds = { block: 4096, context: 2 ** 31, width: 2 ** 20, heads: 2 ** 14, headWidth: 2 ** 14 } as const;

/** Reads and range-checks the hyperparameters of any architecture; `FormatError` E_HPARAM names the key of a value that cannot be. */
export function readHyperparameters(metadata: ModelMetadata): Hyperparameters {
  const architecture = metadata.getString('general.architecture');
  if (architecture === undefined)
    throw new FormatError('E_HPARAM', 'general.architecture is missing: this is not a model file', { key: 'general.architecture' });
  const key = (name: string): string => `${architecture}.${name}`;
  const uint = (name: string, max: number, min = 1): number | undefined => inRange(key(name), metadata.getUint(key(name)), min, max);
  const headCount = uint('attention.head_count', bounds.heads);
  return {
    architecture,
    blockCount: uint('block_count', bounds.block),
    contextLength: uint('context_length', bounds.context),
    embeddingLength: uint('embedding_length', bounds.width),
    feedForwardLength: uint('feed_forward_length', bounds.width),
    headCount,
    headCountKv: uint('attention.head_count_kv', headCount ?? bounds.heads),
    keyLength: uint('attention.key_length', bounds.headWidth),
    valueLength: uint('attention.value_length', bounds.headWidth),
    rmsEpsilon: inRange(key('attention.layer_norm_rms_epsilon'), metadata.getFloat(key('attention.layer_norm_rms_epsilon')), 0, 1),
    ropeDimensionCount: uint('rope.dimension_count', bounds.headWidth),
    ropeBase: inRange(key('rope.freq_base'), metadata.getFloat(key('rope.freq_base')), 1, 1e12),
    ropeScaling: metadata.getString(key('rope.scaling.type')),
    ropeScalingFactor: inRange(key('rope.scaling.factor'), metadata.getFloat(key('rope.scaling.factor')), 1e-3, 1e6),
  };
}

/** NaN fails the comparison and is refused with the rest. */
function inRange(key: string, value: number | undefined, min: number, max: number): number | undefined {
  if (value === undefined || (value >= min && value <= max)) return value;
  throw new FormatError('E_HPARAM', `${key} must be between ${min} and ${max}, the file says ${value}`, { key });
}
