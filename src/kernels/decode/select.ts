/** Which fused decode kernel a problem gets, and why not: pure functions of shapes and capabilities. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { TensorType } from '../../core/tensor.js';
import type { WeightStore } from '../../ops/target.js';
import { isBlockType } from '../weights-layout.js';
import { activationBlock, packsActivations } from './activations.js';
import { type ProductEnd, type ProductShape, productBytes } from './product.js';
import type { HalfDecode } from './product-text.js';

/** 'auto': 8-bit activations where a device multiplies them fast and K is large enough that roundings average out. The others force one. */
export type ActivationChoice = 'auto' | 'int8' | 'f32';

/** Depth from which 'auto' takes 8-bit activations: below it a step is bound by its dispatches anyway. */
const leastDepth = 1024;

/** A reason why products of these weights stay in f32, or undefined. */
export function refuseProduct(
  weights: readonly TensorType[],
  results: number | undefined,
  choice: ActivationChoice,
  store: WeightStore,
  capabilities: GpuCapabilities,
): string | undefined {
  const depth = weights[0]?.shape[1] ?? 0;
  const unable = packsActivations(capabilities);
  if (choice === 'f32') return 'activations are kept in f32';
  if (unable !== undefined) return unable;
  if (choice === 'auto' && capabilities.software) return 'a rasteriser has no fast dot products';
  if (choice === 'auto' && depth < leastDepth) return `${depth} columns are few: activations stay in f32`;
  const plain = weights.find((weight) => !isBlockType(weight.dtype));
  if (plain !== undefined) return `weights of type ${plain.dtype} take f32 activations`;
  if (depth % 64 !== 0 || (results ?? 32) % 32 !== 0) return 'the widths are not multiples of 64 and 32';
  if (weights.some((weight) => store.shards(weight).length > 1)) return 'a weight takes several bindings';
  return undefined;
}

export interface ProductNeeds {
  readonly depth: number;
  /** Rows of all matrices (of one where gated). */
  readonly results: number;
  readonly end: ProductEnd;
  readonly best: boolean;
}

/** f16 scales as subnormals survive the conversion of NVIDIA's hardware; elsewhere that is not known. */
export function halfDecode({ vendor }: GpuCapabilities): HalfDecode {
  return vendor === 'nvidia' ? 'hardware' : 'integers';
}

/** The shape of a product: what was measured for shapes like it, bent to the device's limits and to whole blocks of results. */
export function selectProduct({ depth, results, end, best }: ProductNeeds, capabilities: GpuCapabilities): ProductShape {
  const size = capabilities.subgroupMinSize;
  const most = Math.max(1, Math.floor(capabilities.limits.maxComputeInvocationsPerWorkgroup / size));
  const wanted = wantedShape(depth, results, end, best);
  let { subgroups, rows, split } = wanted;
  while (subgroups > most) {
    subgroups /= 2;
    if (split > 1) split /= 2;
    else if (end !== 'none') rows *= 2;
  }
  const outputs = (): number => ((subgroups / split) * rows) / (end === 'gated' ? 2 : 1);
  // A workgroup that finishes blocks of 16 needs whole ones, and no partial workgroup.
  while (end !== 'none' && outputs() % activationBlock !== 0) rows *= 2;
  while (end !== 'none' && results % outputs() !== 0 && outputs() > activationBlock) rows /= 2;
  const together = Math.min(wanted.together, rows);
  const shape = { subgroupSize: size, subgroups, rows, together, split, ahead: wanted.ahead, staged: true, halves: halfDecode(capabilities) };
  return productBytes({ depth, end, best }, shape) <= capabilities.limits.maxComputeWorkgroupStorageSize ? shape : { ...shape, staged: false };
}

interface Wanted {
  readonly subgroups: number;
  readonly rows: number;
  readonly together: number;
  readonly split: number;
  readonly ahead: number;
}

/**
 * Measured on an H200 with subgroups of 32 (bench/decode-products.ts): two rows side by side with two or three steps of loads ahead keep enough on its way without running out of registers;
 * short matrices want many subgroups, and share the columns of a row between them where those are long.
 */
function wantedShape(depth: number, results: number, end: ProductEnd, best: boolean): Wanted {
  const long = depth > 2048;
  if (end === 'gated') return long ? { subgroups: 16, rows: 4, together: 2, split: 1, ahead: 2 } : { subgroups: 8, rows: 4, together: 4, split: 1, ahead: 1 };
  if (end === 'residual' && results >= 4096)
    return depth > 8192 ? { subgroups: 16, rows: 1, together: 1, split: 1, ahead: 1 } : { subgroups: 8, rows: 2, together: 2, split: 1, ahead: 3 };
  if (end === 'residual')
    return long ? { subgroups: 32, rows: 1, together: 1, split: 2, ahead: 2 } : { subgroups: 16, rows: 1, together: 1, split: 1, ahead: 4 };
  // 16 results to a workgroup: fewer make the choice read many pairs.
  if (best) return { subgroups: 4, rows: 4, together: 4, split: 1, ahead: 1 };
  if (long) return { subgroups: 16, rows: 1, together: 1, split: 1, ahead: 1 };
  return depth > 1024 ? { subgroups: 4, rows: 2, together: 2, split: 1, ahead: 4 } : { subgroups: 4, rows: 1, together: 1, split: 1, ahead: 1 };
}
