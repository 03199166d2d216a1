/** Shapes of released models and the types that ggml's quantisation mixes give their tensors. */

import type { DType } from '../../src/core/dtype.js';
import { architectures, type DecoderConfig } from '../../src/model/decoder-config.js';

/** Block types that random weights are made for. */
export type SyntheticType = Extract<DType, 'f32' | 'f16' | 'q4_0' | 'q8_0' | 'q4_k' | 'q6_k'>;

interface Shape extends Pick<DecoderConfig, 'layers' | 'width' | 'feedForward' | 'heads' | 'kvHeads' | 'headWidth' | 'vocabulary' | 'ropeBase'> {
  readonly architecture: 'llama' | 'qwen2' | 'qwen3';
  /** Whether the output head is the embedding. */
  readonly tied: boolean;
  /** Llama 3's stretch of RoPE, stored as factors in the file. */
  readonly ropeFactor?: number;
  readonly trainedContext: number;
}

const llama8b: Shape = {
  architecture: 'llama',
  layers: 32,
  width: 4096,
  feedForward: 14336,
  heads: 32,
  kvHeads: 8,
  headWidth: 128,
  vocabulary: 128_256,
  ropeBase: 500_000,
  tied: false,
  ropeFactor: 8,
  trainedContext: 131_072,
};
const qwen3: Shape = {
  architecture: 'qwen3',
  layers: 28,
  width: 1024,
  feedForward: 3072,
  heads: 16,
  kvHeads: 8,
  headWidth: 128,
  vocabulary: 151_936,
  ropeBase: 1_000_000,
  tied: true,
  trainedContext: 40_960,
};

const shapes = {
  'llama-3.1-8b': llama8b,
  'llama-3.2-1b': { ...llama8b, layers: 16, width: 2048, feedForward: 8192, headWidth: 64, tied: true, ropeFactor: 32 },
  'qwen3-0.6b': qwen3,
  'qwen2.5-1.5b': { ...qwen3, architecture: 'qwen2', width: 1536, feedForward: 8960, heads: 12, kvHeads: 2, trainedContext: 32_768 },
  /** No released model: small enough for any machine, to see that a benchmark works. */
  tiny: { ...llama8b, layers: 2, width: 256, feedForward: 768, heads: 4, kvHeads: 2, headWidth: 64, vocabulary: 2048, tied: true, trainedContext: 8192 },
} satisfies Record<string, Shape>;

const mixes = ['f32', 'f16', 'q4_0', 'q8_0', 'q4_k_m'] as const;
type Mix = (typeof mixes)[number];

export interface SyntheticSpec {
  readonly name: string;
  readonly mix: Mix;
  readonly shape: Shape;
  readonly config: DecoderConfig;
}

/** Reads "llama-3.1-8b:q4_k_m". @throws Error naming the models and the mixes that there are. */
export function parseSpec(text: string): SyntheticSpec {
  const [name = '', quantization = 'q4_k_m', ...more] = text.split(':');
  const shape: Shape | undefined = new Map<string, Shape>(Object.entries(shapes)).get(name);
  const mix = mixes.find((known) => known === quantization);
  if (shape === undefined || mix === undefined || more.length > 0)
    throw new Error(`a synthetic model is NAME:MIX with a name of ${Object.keys(shapes).join(', ')} and a mix of ${mixes.join(', ')}, got "${text}"`);
  const architecture = architectures.get(shape.architecture);
  if (architecture === undefined) throw new Error(`there is no architecture ${shape.architecture}`);
  return { name, mix, shape, config: { ...architecture, ...shape, eps: 1e-5, rotated: shape.headWidth, ropePositionScale: 1 } };
}

/**
 * The type of a matrix in a mix. In Q4_K_M the values' and the down projections of an eighth of the layers at each end and of every third between them are Q6_K, as is the
 * output head (the embedding where it is tied).
 */
export function typeOf(part: string, layer: number, { mix, shape: { layers, tied } }: SyntheticSpec): SyntheticType {
  if (mix !== 'q4_k_m') return mix;
  const eighth = Math.floor(layers / 8);
  const more = layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2;
  if (part === 'output.weight' || (part === 'token_embd.weight' && tied)) return 'q6_k';
  return more && (part === 'attn_v.weight' || part === 'ffn_down.weight') ? 'q6_k' : 'q4_k';
}
