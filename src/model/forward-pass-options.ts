import type { DType } from '../core/dtype.js';
import { ArgumentError } from '../core/errors.js';
import type { RopePairing } from '../ops/params.js';
import type { Backend } from '../runtime/backend.js';
import type { BackendOptions } from '../runtime/select.js';
import type { DecoderConfig } from './decoder-config.js';
import type { CacheType } from './decoder-graph.js';

/** The shape of a decoder, and where it runs. */
export interface ForwardPassOptions {
  /** As for `openBackend`: default 'auto'. Not together with `backend`. */
  readonly device?: BackendOptions['device'];
  /** The caller's backend, which outlives the pass. */
  readonly backend?: Backend;

  readonly numLayers: number;
  readonly hiddenDim: number;
  readonly numHeads: number;
  /** Default: as many as heads. */
  readonly numKvHeads?: number;
  /** Elements of a head. Default: hiddenDim / numHeads; heads times it need not be hiddenDim. */
  readonly headDim?: number;
  readonly intermediateDim: number;
  readonly vocabSize: number;
  /** Positions of the KV cache. */
  readonly contextLength: number;

  /** Of every RMSNorm. Default 1e-6. */
  readonly eps?: number;
  /** Default 1,000,000. */
  readonly ropeBase?: number;
  /** Default 'halves': elements i and i + headDim / 2 turn together. */
  readonly ropePairing?: RopePairing;
  /** Biases on the Q, K and V projections. Default false. */
  readonly qkvBias?: boolean;
  /** The head's weight is the embedding: no `lm_head` is uploaded. Default false. */
  readonly tiedEmbedding?: boolean;
  /** Default 'f32'. */
  readonly cacheType?: CacheType;
  /** What matrices given as numbers are kept as, where an upload does not say. Default 'f32'. */
  readonly weightType?: DType;
}

/** The options as a configuration of the decoder's graph, checked. */
export function forwardPassConfig(options: ForwardPassOptions): DecoderConfig {
  for (const name of ['numLayers', 'hiddenDim', 'numHeads', 'intermediateDim', 'vocabSize', 'contextLength'] as const) count(name, options[name]);
  const { hiddenDim, numHeads, numKvHeads = numHeads, headDim = hiddenDim / numHeads, eps = 1e-6, ropeBase = 1_000_000 } = options;
  count('numKvHeads', numKvHeads);
  count('headDim', headDim);
  if (numHeads % numKvHeads !== 0) throw new ArgumentError('numKvHeads', `${numHeads} query heads do not divide over ${numKvHeads} KV heads`);
  if (headDim % 2 !== 0) throw new ArgumentError('headDim', `RoPE turns pairs of elements: a head of ${headDim} is odd`);
  if (!(eps >= 0 && eps < 1)) throw new ArgumentError('eps', `eps is a small number from 0, got ${eps}`);
  if (!(ropeBase >= 1 && Number.isFinite(ropeBase))) throw new ArgumentError('ropeBase', `the base of RoPE's frequencies is a number from 1, got ${ropeBase}`);
  return {
    architecture: 'forward pass',
    ropePairing: options.ropePairing ?? 'halves',
    qkvBias: options.qkvBias ?? false,
    qkNorm: false,
    layers: options.numLayers,
    width: hiddenDim,
    feedForward: options.intermediateDim,
    heads: numHeads,
    kvHeads: numKvHeads,
    headWidth: headDim,
    vocabulary: options.vocabSize,
    eps,
    rotated: headDim,
    ropeBase,
    ropePositionScale: 1,
    trainedContext: options.contextLength,
  };
}

function count(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) throw new ArgumentError(name, `${name} is a whole number from 1, got ${value}`);
}
