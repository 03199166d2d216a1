import type { DType } from '../core/dtype.js';
import { type ActivationGrid, decodeRounding, linearRounding } from '../ops/activation-rounding.js';
import type { OpCase } from '../ops/case.js';
import { blockFormats, isPackedType } from './formats.js';

/** What 16-bit activations may add to the error of each output of a case: of a product with packed weights, or of a fused operation that holds one. */
export function caseRounding(opCase: OpCase): Float64Array | undefined {
  return linearRounding(opCase, activationGrid) ?? decodeRounding(opCase, activationGrid);
}

/** Products with packed weights round every activation to a multiple of its unit's largest magnitude / 32,767; with other weights they compute in f32. */
function activationGrid(dtype: DType): ActivationGrid | undefined {
  return isPackedType(dtype) ? { unit: blockFormats[dtype].unit, levels: 32_767 } : undefined;
}
