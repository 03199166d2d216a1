import { FormatError, shown, UnsupportedError } from '../core/errors.js';
import type { RopePairing } from '../ops/params.js';
import type { Hyperparameters } from './hyperparameters.js';

/** What sets one architecture of the family apart: data over the one decoder graph. */
export interface Architecture {
  readonly ropePairing: RopePairing;
  /** Biases on the Q, K and V projections. */
  readonly qkvBias: boolean;
  /** RMSNorm over each head of Q and K before RoPE. */
  readonly qkNorm: boolean;
}

/** By GGUF's `general.architecture`. Llama's files have Q and K permuted so that RoPE turns neighbours. */
export const architectures: ReadonlyMap<string, Architecture> = new Map([
  ['llama', { ropePairing: 'adjacent', qkvBias: false, qkNorm: false }],
  ['qwen2', { ropePairing: 'halves', qkvBias: true, qkNorm: false }],
  ['qwen3', { ropePairing: 'halves', qkvBias: false, qkNorm: true }],
] satisfies [string, Architecture][]);

/** Everything that the decoder's graph depends on. Widths count elements. */
export interface DecoderConfig extends Architecture {
  readonly architecture: string;
  readonly layers: number;
  readonly width: number;
  readonly feedForward: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headWidth: number;
  readonly vocabulary: number;
  readonly eps: number;
  /** Elements of a head that RoPE turns. */
  readonly rotated: number;
  readonly ropeBase: number;
  /** Positions are divided by this before the angle is taken (linear scaling). */
  readonly ropePositionScale: number;
  /** The longest context that the model was made for. */
  readonly trainedContext: number;
}

/** The configuration of a supported architecture; `vocabulary` is the number of rows of the token embedding. */
export function decoderConfig(hp: Hyperparameters, vocabulary: number): DecoderConfig {
  const architecture = architectures.get(hp.architecture);
  if (architecture === undefined) {
    throw new UnsupportedError(`the architecture ${shown(hp.architecture)} is not supported: this build runs ${[...architectures.keys()].join(', ')}`);
  }
  const need = (name: string, value: number | undefined): number => {
    const key = `${hp.architecture}.${name}`;
    if (value === undefined) throw new FormatError('E_HPARAM', `${key} is missing: the model cannot be built without it`, { key });
    return value;
  };
  const heads = need('attention.head_count', hp.headCount);
  const width = need('embedding_length', hp.embeddingLength);
  const headWidth = hp.keyLength ?? width / heads;
  const config = {
    ...architecture,
    architecture: hp.architecture,
    layers: need('block_count', hp.blockCount),
    width,
    feedForward: need('feed_forward_length', hp.feedForwardLength),
    heads,
    kvHeads: hp.headCountKv ?? heads,
    headWidth,
    vocabulary,
    eps: need('attention.layer_norm_rms_epsilon', hp.rmsEpsilon),
    rotated: hp.ropeDimensionCount ?? headWidth,
    ropeBase: hp.ropeBase ?? 10_000,
    ropePositionScale: positionScale(hp),
    trainedContext: need('context_length', hp.contextLength),
  };
  checkWidths(hp, config);
  return config;
}

function positionScale(hp: Hyperparameters): number {
  switch (hp.ropeScaling) {
    case undefined:
    case 'none':
      return 1;
    case 'linear':
      return hp.ropeScalingFactor ?? 1;
    default:
      throw new UnsupportedError(`RoPE scaling ${shown(hp.ropeScaling)} is not supported: none, linear and rope_freqs are`);
  }
}

function checkWidths(hp: Hyperparameters, config: DecoderConfig): void {
  const fail = (name: string, message: string): never => {
    const key = `${hp.architecture}.${name}`;
    throw new FormatError('E_HPARAM', `${key}: ${message}`, { key });
  };
  if (!Number.isInteger(config.headWidth)) fail('attention.head_count', `${config.width} elements do not divide into ${config.heads} heads`);
  if (config.heads % config.kvHeads !== 0) fail('attention.head_count_kv', `${config.heads} query heads do not divide over ${config.kvHeads} KV heads`);
  if (config.rotated > config.headWidth || config.rotated % 2 !== 0)
    fail('rope.dimension_count', `${config.rotated} of ${config.headWidth} elements cannot turn in pairs`);
  if (hp.valueLength !== undefined && hp.valueLength !== config.headWidth) {
    throw new UnsupportedError(`value heads of ${hp.valueLength} elements beside key heads of ${config.headWidth} are not supported`);
  }
}
