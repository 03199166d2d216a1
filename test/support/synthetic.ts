/** A decoder with random weights, for lengths and sizes that no fixture has. */

import type { TensorType } from '../../src/core/tensor.js';
import { elementCount } from '../../src/core/tensor.js';
import { architectures, type DecoderConfig } from '../../src/model/decoder-config.js';
import { decoderTensors, tensorNames } from '../../src/model/tensors.js';
import { type EncodableDType, quantize } from '../../src/quant/index.js';
import type { LoadedFile } from './models.js';

export interface SyntheticOptions
  extends Partial<Pick<DecoderConfig, 'layers' | 'width' | 'feedForward' | 'heads' | 'kvHeads' | 'vocabulary' | 'trainedContext'>> {
  /** Type of the matrices. Default f32. */
  readonly dtype?: EncodableDType;
}

/** A small Llama whose weights are multiples of 2^-8 in about [-1, 1] over the square root of their columns: the same on every machine. */
export function syntheticModel(options: SyntheticOptions = {}): LoadedFile {
  const { dtype = 'f32', layers = 1, width = 32, feedForward = 64, heads = 2, kvHeads = 1, vocabulary = 64, trainedContext = 4096 } = options;
  const llama = architectures.get('llama');
  if (llama === undefined) throw new Error('there is no llama architecture');
  const headWidth = width / heads;
  const shared = { ...llama, architecture: 'llama', eps: 1e-5, ropeBase: 10_000, ropePositionScale: 1, rotated: headWidth };
  const config: DecoderConfig = { ...shared, layers, width, feedForward, heads, kvHeads, headWidth, vocabulary, trainedContext };
  const random = generator();
  const bytes = new Map<string, Uint8Array>();
  const types = new Map<string, TensorType>();
  for (const [name, shape] of shapes(config)) {
    const type: TensorType = { dtype: shape.length === 1 ? 'f32' : dtype, shape };
    const columns = shape.at(-1) ?? 1;
    const values = Float32Array.from({ length: elementCount(shape) }, () => (shape.length === 1 ? 1 : (random() * 2) / Math.sqrt(columns)));
    types.set(name, type);
    bytes.set(name, quantize(shape.length === 1 ? 'f32' : dtype, values, columns));
  }
  return { config, weights: decoderTensors(config, types), bytes, ropeFactors: undefined };
}

function shapes({ layers, width, feedForward, heads, kvHeads, headWidth, vocabulary }: DecoderConfig): [string, readonly number[]][] {
  const blocks = Array.from({ length: layers }, (_, layer): [string, readonly number[]][] => {
    const name = (part: string): string => tensorNames.layer(layer, part);
    return [
      [name('attn_norm.weight'), [width]],
      [name('attn_q.weight'), [heads * headWidth, width]],
      [name('attn_k.weight'), [kvHeads * headWidth, width]],
      [name('attn_v.weight'), [kvHeads * headWidth, width]],
      [name('attn_output.weight'), [width, heads * headWidth]],
      [name('ffn_norm.weight'), [width]],
      [name('ffn_gate.weight'), [feedForward, width]],
      [name('ffn_up.weight'), [feedForward, width]],
      [name('ffn_down.weight'), [width, feedForward]],
    ];
  });
  return [[tensorNames.embedding, [vocabulary, width]], ...blocks.flat(), [tensorNames.outputNorm, [width]], [tensorNames.output, [vocabulary, width]]];
}

/** Multiples of 1/128 in [-1, 1). */
function generator(): () => number {
  let state = 12_345;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state >>> 24) / 128 - 1;
  };
}
