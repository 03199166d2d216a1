/** A model in which every matrix has a type of its own, in no order: queries, keys and values of one layer too. */

import type { DType } from '../../src/core/dtype.js';
import { byteLengthOf, dtypes } from '../../src/core/dtype.js';
import { elementCount, type TensorType } from '../../src/core/tensor.js';
import { seededRandom } from '../../src/ops/cases/weight-data.js';
import { floatToHalf } from '../../src/quant/half.js';
import { type EncodableDType, quantize } from '../../src/quant/index.js';
import type { LoadedFile } from './models.js';
import { type SyntheticOptions, syntheticModel } from './synthetic.js';

/** Where the blocks that nothing here encodes have their f16 scales, and what gives random bits a spread of about 0.05 and no mean. */
const scales: Partial<Record<DType, readonly (readonly [byte: number, value: number])[]>> = {
  // 6-bit scale and minimum to 32 numbers of 4 and of 5 bits.
  q4_k: [
    [0, 0.05 / 145],
    [2, (7.5 * 0.05) / 145],
  ],
  q5_k: [
    [0, 0.05 / 290],
    [2, (15.5 * 0.05) / 290],
  ],
  // An 8-bit scale with sign to 16 numbers of 6 bits less 32.
  q6_k: [[208, 0.05 / 1300]],
};

/** `types` are taken in turn by the model's matrices, in the order of its tensors. */
export function mixedModel(types: readonly DType[], options: SyntheticOptions = {}): LoadedFile {
  const floats = syntheticModel(options);
  const random = seededRandom(77);
  const weights = new Map<string, TensorType>(floats.weights);
  const bytes = new Map(floats.bytes);
  let turn = 0;
  for (const [name, { shape }] of floats.weights) {
    if (shape.length === 1) continue;
    const dtype = types[turn++ % types.length] ?? 'f32';
    const values = floats.bytes.get(name) ?? new Uint8Array();
    weights.set(name, { dtype, shape });
    bytes.set(name, scales[dtype] === undefined ? encoded(dtype, values, shape) : randomBlocks(dtype, elementCount(shape), random));
  }
  return { ...floats, weights, bytes };
}

function encoded(dtype: DType, bytes: Uint8Array, shape: readonly number[]): Uint8Array {
  return quantize(dtype as EncodableDType, new Float32Array(Uint8Array.from(bytes).buffer), shape.at(-1) ?? 1);
}

function randomBlocks(dtype: DType, elements: number, random: () => number): Uint8Array {
  const bytes = Uint8Array.from({ length: byteLengthOf(dtype, elements) }, () => Math.floor(random() * 256));
  const view = new DataView(bytes.buffer);
  for (let block = 0; block < bytes.length; block += dtypes[dtype].bytes)
    for (const [at, value] of scales[dtype] ?? []) view.setUint16(block + at, floatToHalf(value), true);
  return bytes;
}
