/** Which fused decode kernel a problem gets, and why not: pure functions of shapes and capabilities. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { TensorType } from '../../core/tensor.js';
import type { WeightStore } from '../../ops/target.js';
import { isBlockType } from '../weights-layout.js';
import { activationBlock, packsActivations } from './activations.js';
import { type ProductEnd, type ProductShape, productBytes, productOutputs } from './product.js';
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

/**
 * Measured on an H200: few registers and 8 to 16 subgroups keep most loads in flight. About 128 workgroups at least, so that every processor has one: short matrices share the columns of a row
 * between subgroups.
 */
export function selectProduct({ depth, results, end, best }: ProductNeeds, capabilities: GpuCapabilities): ProductShape {
  const size = capabilities.subgroupMinSize;
  const most = Math.max(1, Math.floor(capabilities.limits.maxComputeInvocationsPerWorkgroup / size));
  const shape = wantedShape(depth, results, end, best);
  const fixed = { subgroupSize: size, halves: halfDecode(capabilities) };
  let { subgroups, rows, split } = shape;
  while (subgroups > most) {
    subgroups /= 2;
    if (split > 1) split /= 2;
    else if (end !== 'none') rows *= 2;
  }
  // A workgroup that finishes blocks of 16 needs whole ones, and no partial workgroup.
  while (end !== 'none' && productOutputs(end, { ...shape, ...fixed, subgroups, rows, split, staged: true }) % activationBlock !== 0) rows *= 2;
  const outputs = productOutputs(end, { ...shape, ...fixed, subgroups, rows, split, staged: true });
  if (end !== 'none' && results % outputs !== 0) rows /= 2;
  const staged = { ...fixed, subgroups, rows, split, ahead: shape.ahead, staged: true };
  return productBytes({ depth, end, best }, staged) <= capabilities.limits.maxComputeWorkgroupStorageSize ? staged : { ...staged, staged: false };
}

interface Wanted {
  readonly subgroups: number;
  readonly rows: number;
  readonly split: number;
  readonly ahead: number;
}

function wantedShape(depth: number, results: number, end: ProductEnd, best: boolean): Wanted {
  if (end === 'gated')
    return depth > 2048
      ? { subgroups: 16, rows: 2, split: 1, ahead: 2 }
      : results >= 8192
        ? { subgroups: 16, rows: 4, split: 1, ahead: 1 }
        : { subgroups: 16, rows: 2, split: 1, ahead: 2 };
  if (end === 'residual') {
    if (results >= 4096) return { subgroups: 32, rows: 1, split: 1, ahead: 4 };
    return depth > 2048 ? { subgroups: 32, rows: 1, split: 2, ahead: 2 } : { subgroups: 16, rows: 1, split: 1, ahead: 4 };
  }
  if (best) return depth > 2048 ? { subgroups: 8, rows: 1, split: 1, ahead: 4 } : { subgroups: 8, rows: 2, split: 1, ahead: 2 };
  return depth > 2048 ? { subgroups: 8, rows: 2, split: 1, ahead: 2 } : { subgroups: 4, rows: 2, split: 1, ahead: 4 };
}
