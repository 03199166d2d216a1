import { FormatError } from '../core/errors.js';
import { formatType, type Shape, sameShape, type TensorType } from '../core/tensor.js';
import type { DecoderConfig } from './decoder-config.js';

/** Names of a decoder's tensors in GGUF. */
export const tensorNames = {
  embedding: 'token_embd.weight',
  outputNorm: 'output_norm.weight',
  output: 'output.weight',
  ropeFactors: 'rope_freqs.weight',
  layer: (layer: number, part: string): string => `blk.${layer}.${part}`,
} as const;

interface TensorRule {
  readonly name: string;
  readonly shape: Shape;
  readonly optional?: true;
}

/** Every tensor that the decoder reads, with its shape, slowest axis first. */
function tensorRules(config: DecoderConfig): TensorRule[] {
  const { width, feedForward, headWidth, vocabulary } = config;
  const [queries, keys] = [config.heads * headWidth, config.kvHeads * headWidth];
  const layers = Array.from({ length: config.layers }, (_, layer): TensorRule[] => {
    const rule = (part: string, shape: Shape): TensorRule => ({ name: tensorNames.layer(layer, part), shape });
    return [
      rule('attn_norm.weight', [width]),
      rule('attn_q.weight', [queries, width]),
      rule('attn_k.weight', [keys, width]),
      rule('attn_v.weight', [keys, width]),
      rule('attn_output.weight', [width, queries]),
      rule('ffn_norm.weight', [width]),
      rule('ffn_gate.weight', [feedForward, width]),
      rule('ffn_up.weight', [feedForward, width]),
      rule('ffn_down.weight', [width, feedForward]),
      ...(config.qkvBias ? [rule('attn_q.bias', [queries]), rule('attn_k.bias', [keys]), rule('attn_v.bias', [keys])] : []),
      ...(config.qkNorm ? [rule('attn_q_norm.weight', [headWidth]), rule('attn_k_norm.weight', [headWidth])] : []),
    ];
  });
  return [
    { name: tensorNames.embedding, shape: [vocabulary, width] },
    ...layers.flat(),
    { name: tensorNames.outputNorm, shape: [width] },
    { name: tensorNames.output, shape: [vocabulary, width], optional: true },
    { name: tensorNames.ropeFactors, shape: [config.rotated / 2], optional: true },
  ];
}

/** The types of the decoder's weights by tensor name, checked against the configuration; `FormatError` for one that is missing or has another shape. */
export function decoderTensors(config: DecoderConfig, tensors: ReadonlyMap<string, TensorType>): ReadonlyMap<string, TensorType> {
  const found = new Map<string, TensorType>();
  for (const { name, shape, optional } of tensorRules(config)) {
    const type = tensors.get(name);
    if (type === undefined) {
      if (optional) continue;
      throw new FormatError('E_TENSOR_MISSING', `${name} is missing: the ${config.architecture} architecture needs it as [${shape.join(', ')}]`, {
        tensor: name,
      });
    }
    if (!sameShape(type.shape, shape)) {
      throw new FormatError('E_TENSOR_SHAPE', `${name} must be [${shape.join(', ')}], the file has ${formatType(type)}`, { tensor: name });
    }
    if (shape.length === 1 && type.dtype !== 'f32') {
      throw new FormatError('E_TENSOR_TYPE', `${name} must be f32 like every vector of the model, the file has ${formatType(type)}`, { tensor: name });
    }
    found.set(name, { dtype: type.dtype, shape });
  }
  return found;
}
