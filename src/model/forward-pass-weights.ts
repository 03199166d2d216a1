import { bytesOf } from '../core/bytes.js';
import { byteLengthOf, type DType, dtypes } from '../core/dtype.js';
import { ArgumentError } from '../core/errors.js';
import { byteLengthOfType, elementCount, type Shape, type TensorType } from '../core/tensor.js';
import { quantize } from '../quant/index.js';
import type { DecoderConfig } from './decoder-config.js';
import { tensorNames } from './tensors.js';

/** A weight of the pass: its name in the decoder's graph, and its shape, slowest axis first. */
export interface WeightSlot {
  readonly tensor: string;
  readonly shape: Shape;
}

/** Every weight that the pass needs, by the name that it is uploaded under; matrices are [outputs, inputs]. */
export function weightSlots(config: DecoderConfig, tiedEmbedding: boolean): ReadonlyMap<string, WeightSlot> {
  const { width, feedForward, headWidth, vocabulary } = config;
  const [queries, keys] = [config.heads * headWidth, config.kvHeads * headWidth];
  const slots = new Map<string, WeightSlot>([['embedding', { tensor: tensorNames.embedding, shape: [vocabulary, width] }]]);
  for (let layer = 0; layer < config.layers; layer++) {
    const slot = (name: string, part: string, ...shape: number[]): void => {
      slots.set(`layer.${layer}.${name}`, { tensor: tensorNames.layer(layer, part), shape });
    };
    slot('attn_norm', 'attn_norm.weight', width);
    slot('q_proj', 'attn_q.weight', queries, width);
    slot('k_proj', 'attn_k.weight', keys, width);
    slot('v_proj', 'attn_v.weight', keys, width);
    slot('o_proj', 'attn_output.weight', width, queries);
    slot('ffn_norm', 'ffn_norm.weight', width);
    slot('gate_proj', 'ffn_gate.weight', feedForward, width);
    slot('up_proj', 'ffn_up.weight', feedForward, width);
    slot('down_proj', 'ffn_down.weight', width, feedForward);
    if (!config.qkvBias) continue;
    slot('q_bias', 'attn_q.bias', queries);
    slot('k_bias', 'attn_k.bias', keys);
    slot('v_bias', 'attn_v.bias', keys);
  }
  slots.set('out_norm', { tensor: tensorNames.outputNorm, shape: [width] });
  if (!tiedEmbedding) slots.set('lm_head', { tensor: tensorNames.output, shape: [vocabulary, width] });
  return slots;
}

/** The type that a weight is kept in, and its bytes in ggml's layout. Numbers are encoded; norms and biases are f32. */
export function encodeSlot(
  name: string,
  { shape }: WeightSlot,
  data: Float32Array | Uint8Array,
  asked: DType | undefined,
  fallback: DType,
): { readonly type: TensorType; readonly bytes: Uint8Array } {
  if (!(data instanceof Uint8Array || data instanceof Float32Array))
    throw new ArgumentError(
      'data',
      `"${name}" is a Float32Array of numbers or a Uint8Array of packed blocks, got ${typeof data}: convert numbers by Float32Array.from()`,
    );
  const vector = shape.length === 1;
  const dtype = asked ?? (vector ? 'f32' : data instanceof Float32Array ? fallback : undefined);
  if (dtype === undefined) throw new ArgumentError('type', `"${name}" comes as packed bytes: say their type, for example { type: 'q4_k' }`);
  if (vector && dtype !== 'f32') throw new ArgumentError('type', `"${name}" is a vector, which is kept in f32, got the type ${dtype}`);
  const type = { dtype, shape };
  const columns = shape.at(-1) ?? 0;
  const { block } = dtypes[dtype];
  if (columns % block !== 0) throw new ArgumentError('type', `"${name}" has rows of ${columns} numbers: ${dtype} takes whole blocks of ${block}`);
  if (data instanceof Uint8Array) {
    if (data.byteLength !== byteLengthOfType(type))
      throw wrongLength(name, type, `${byteLengthOf(dtype, elementCount(shape))} bytes`, `${data.byteLength} bytes`);
    return { type, bytes: data };
  }
  if (data.length !== elementCount(shape)) throw wrongLength(name, type, `${elementCount(shape)} numbers`, `${data.length}`);
  return { type, bytes: dtype === 'f32' ? bytesOf(data) : quantize(dtype, data, columns) };
}

function wrongLength(name: string, { dtype, shape }: TensorType, wanted: string, got: string): ArgumentError {
  return new ArgumentError('data', `"${name}" is ${dtype} [${shape.join(', ')}] and takes ${wanted}, got ${got}`);
}
