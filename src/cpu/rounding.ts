import type { DType } from '../core/dtype.js';
import { decodeRounding } from '../ops/activation-rounding.js';
import type { OpCase } from '../ops/case.js';
import { dequantize } from '../quant/index.js';
import { blockFormats, isPackedType } from './formats.js';

/** What 16-bit activations may add to the error of each output of a case: of a product with packed weights, or of a fused operation that holds one. */
export function caseRounding(opCase: OpCase): Float64Array | undefined {
  const rounding = (dtype: DType): { unit: number; levels: number } | undefined =>
    isPackedType(dtype) ? { unit: blockFormats[dtype].unit, levels: 32_767 } : undefined;
  return activationRounding(opCase) ?? decodeRounding(opCase, rounding);
}

/** Standard deviations that are accepted: beyond any that a few million outputs show. */
const deviations = 6;

/**
 * What the CPU backend's 16-bit activations may add to the error of each output of a case, [T, N]: products with packed weights round every activation to a multiple
 * of its unit's largest magnitude / 32,767, which moves an output by sum(w * rounding), roundings being uniform in half a step to either side. Undefined for every
 * other case: there the backend computes in f32.
 */
export function activationRounding(opCase: OpCase): Float64Array | undefined {
  const [x, w] = opCase.inputs;
  if (opCase.op !== 'linear' || x === undefined || w === undefined || !isPackedType(w.type.dtype)) return undefined;
  const { unit } = blockFormats[w.type.dtype];
  const [rows = 0, columns = 0] = w.type.shape;
  const values = dequantize('f32', Uint8Array.from(x.bytes));
  const weights = dequantize(w.type.dtype, Uint8Array.from(w.bytes));
  const tokens = values.length / columns;
  const accepted = new Float64Array(tokens * rows);
  for (let t = 0; t < tokens; t++) {
    const variances = unitVariances(values.subarray(t * columns, (t + 1) * columns), unit);
    for (let n = 0; n < rows; n++) {
      let variance = 0;
      for (let k = 0; k < columns; k++) variance += (weights[n * columns + k] ?? 0) ** 2 * (variances[Math.floor(k / unit)] ?? 0);
      accepted[t * rows + n] = deviations * Math.sqrt(variance);
    }
  }
  return accepted;
}

/** Variance of the rounding of one value, for each unit: step^2 / 12. */
function unitVariances(row: Float32Array, unit: number): Float64Array {
  return Float64Array.from({ length: row.length / unit }, (_, i) => {
    const largest = row.subarray(i * unit, (i + 1) * unit).reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    return (largest / 32_767) ** 2 / 12;
  });
}
