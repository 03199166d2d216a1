import type { DType } from '../core/dtype.js';
import { elementCount } from '../core/tensor.js';
import { type CaseInput, decodeBytes, type OpCase } from './case.js';
import { tokenLinearInputs } from './decode.js';
import { need } from './definition.js';
import type { OpParams } from './params.js';

/** Activations in blocks of `unit`, each rounded to a multiple of its largest magnitude / `levels`. */
export interface ActivationGrid {
  readonly unit: number;
  readonly levels: number;
}

/** Standard deviations that are accepted: beyond any that a few million outputs show. */
const deviations = 6;

/**
 * What rounded activations may add to the error of each output of a case of tokenLinear, qkv or gatedProduct: an output moves by sum(w * rounding), roundings being uniform in half a step to either
 * side. `gridOf` says how the products with a weight type round; undefined for types that they do not round for, and for other operations.
 */
export function decodeRounding(opCase: OpCase, gridOf: (dtype: DType) => ActivationGrid | undefined): Float64Array | undefined {
  const inputs = opCase.inputs;
  if (opCase.op === 'tokenLinear') {
    const { x, gain, w } = tokenLinearInputs(inputs, opCase.params as OpParams['tokenLinear']);
    return vectorErrors(x, gain, w, gridOf);
  }
  if (opCase.op === 'qkv') {
    const parts = [2, 3, 4].map((i) => vectorErrors(need(inputs[0]), inputs[1], need(inputs[i]), gridOf));
    return Float64Array.from(parts.flatMap((part) => [...part]));
  }
  if (opCase.op !== 'gatedProduct') return undefined;
  const [x, gain, gate, up] = [need(inputs[0]), need(inputs[1]), need(inputs[2]), need(inputs[3])];
  const [gateErrors, upErrors] = [vectorErrors(x, gain, gate, gridOf), vectorErrors(x, gain, up, gridOf)];
  const [gates, ups] = [productsOf(x, gain, gate), productsOf(x, gain, up)];
  // silu's slope is at most 1.1, and its size at most that of its argument.
  return gateErrors.map((error, i) => {
    const upError = upErrors[i] ?? 0;
    return 1.1 * error * (Math.abs(ups[i] ?? 0) + upError) + Math.abs(gates[i] ?? 0) * upError;
  });
}

/** x, normed where there is a gain, without eps, which the cases' sizes leave without weight. */
function source(x: CaseInput, gain: CaseInput | undefined): Float64Array {
  const values = decodeBytes(x.type, x.bytes);
  if (gain === undefined) return values;
  const gains = decodeBytes(gain.type, gain.bytes);
  const scale = 1 / Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length);
  return values.map((value, i) => value * scale * (gains[i] ?? 0));
}

function productsOf(x: CaseInput, gain: CaseInput | undefined, w: CaseInput): Float64Array {
  const values = source(x, gain);
  const weights = decodeBytes(w.type, w.bytes);
  return Float64Array.from({ length: elementCount(w.type.shape) / values.length }, (_, n) =>
    values.reduce((sum, value, k) => sum + value * (weights[n * values.length + k] ?? 0), 0),
  );
}

/** The same for `linear`, [T, N]: every row of x has blocks of its own. */
export function linearRounding(opCase: OpCase, gridOf: (dtype: DType) => ActivationGrid | undefined): Float64Array | undefined {
  const [x, w] = opCase.inputs;
  const grid = opCase.op === 'linear' && w !== undefined ? gridOf(w.type.dtype) : undefined;
  if (grid === undefined || x === undefined || w === undefined) return undefined;
  return errorsOf(decodeBytes(x.type, x.bytes), w, grid);
}

function vectorErrors(x: CaseInput, gain: CaseInput | undefined, w: CaseInput, gridOf: (dtype: DType) => ActivationGrid | undefined): Float64Array {
  const grid = gridOf(w.type.dtype);
  return grid === undefined ? new Float64Array(w.type.shape[0] ?? 0) : errorsOf(source(x, gain), w, grid);
}

/** `values` are rows as wide as those of `w`. */
function errorsOf(values: Float64Array, w: CaseInput, { unit, levels }: ActivationGrid): Float64Array {
  const [outputs = 0, depth = 0] = w.type.shape;
  const squares = decodeBytes(w.type, w.bytes).map((weight) => weight * weight);
  const rows = Array.from({ length: values.length / depth }, (_, t) => {
    const variances = unitVariances(values.subarray(t * depth, (t + 1) * depth), unit, levels);
    return Float64Array.from({ length: outputs }, (_, n) => {
      let variance = 0;
      for (let k = 0; k < depth; k++) variance += (squares[n * depth + k] ?? 0) * (variances[Math.floor(k / unit)] ?? 0);
      return deviations * Math.sqrt(variance);
    });
  });
  return Float64Array.from(rows.flatMap((row) => [...row]));
}

/** Variance of the rounding of one value, for each unit: step^2 / 12. */
function unitVariances(row: Float64Array, unit: number, levels: number): Float64Array {
  return Float64Array.from({ length: Math.ceil(row.length / unit) }, (_, i) => {
    const largest = row.subarray(i * unit, (i + 1) * unit).reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    return (largest / levels) ** 2 / 12;
  });
}
