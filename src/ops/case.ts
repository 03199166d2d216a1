import { ArgumentError } from '../core/errors.js';
import { byteLengthOfType, elementCount, type TensorType } from '../core/tensor.js';
import { dequantize } from '../quant/index.js';
import type { ComputeOp, OpParams } from './params.js';

/** One input of a case: raw little-endian bytes of its type (packed blocks for quantised weights), so that every backend gets the same bits. */
export interface CaseInput {
  readonly role: 'input' | 'param' | 'state' | 'constant';
  readonly type: TensorType;
  readonly bytes: Uint8Array;
}

/** Largest accepted |got - wanted|, absolute plus relative to |wanted|; `relativeToMax` scales by the largest |wanted| of the output instead (sums that cancel). */
export interface Tolerance {
  readonly absolute?: number;
  readonly relative?: number;
  readonly relativeToMax?: number;
}

/** One operation on given bits, to be compared with its f64 reference: run by the tests on every backend and by `centella doctor --check` on the user's device. */
export interface OpCase<K extends ComputeOp = ComputeOp> {
  readonly name: string;
  readonly op: K;
  readonly params: OpParams[K];
  readonly inputs: readonly CaseInput[];
  readonly tolerance: Tolerance;
  /** Rows of axis 0 that are compared, where the rest is padding. */
  readonly liveRows?: number;
}

/** The numbers that raw bytes stand for, in f64. */
export function decodeBytes(type: TensorType, bytes: Uint8Array): Float64Array {
  if (bytes.byteLength < byteLengthOfType(type)) throw new ArgumentError('bytes', `${byteLengthOfType(type)} bytes are wanted, got ${bytes.byteLength}`);
  const copy = Uint8Array.from(bytes);
  if (type.dtype === 'u32') return Float64Array.from(new Uint32Array(copy.buffer, 0, elementCount(type.shape)));
  if (type.dtype === 'i32') return Float64Array.from(new Int32Array(copy.buffer, 0, elementCount(type.shape)));
  return Float64Array.from(dequantize(type.dtype, copy.subarray(0, byteLengthOfType(type))));
}
