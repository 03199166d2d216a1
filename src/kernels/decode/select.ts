/** Which fused decode kernel a problem gets, and why not: pure functions of shapes and capabilities. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { TensorType } from '../../core/tensor.js';
import type { WeightStore } from '../../ops/target.js';
import { isBlockType } from '../weights-layout.js';
import { activationBlock, packsActivations } from './activations.js';
import { type ProductEnd, type ProductShape, productBytes } from './product.js';
import type { HalfDecode } from './product-text.js';

/** Fewer lanes to a row read too little of it at once. */
export const leastLanes = 4;

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

/** The most threads of a workgroup along one axis. */
export function workgroupThreads({ limits }: GpuCapabilities): number {
  return Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX);
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
  const strips = stripsOf(wanted.strips, size, end === 'gated' ? rows / 2 : rows, together);
  const shape: ProductShape = {
    ...{ subgroupSize: size, subgroups, lanes: size / strips, rows, together, split, ahead: wanted.ahead },
    ...{ staged: true, halves: halfDecode(capabilities) },
  };
  return productBytes({ depth, end, best }, shape) <= capabilities.limits.maxComputeWorkgroupStorageSize ? shape : { ...shape, staged: false };
}

/** As many of the wanted rows at once as leave each 8 lanes, and divide a subgroup's rows of a matrix and those side by side. */
function stripsOf(wanted: number, size: number, rows: number, together: number): number {
  let strips = wanted;
  while (strips > 1 && (size / strips < 8 || rows % strips !== 0 || together % strips !== 0)) strips /= 2;
  return strips;
}

interface Wanted {
  readonly subgroups: number;
  /** Rows that a subgroup reads at once, each with a part of its lanes. */
  readonly strips: number;
  readonly rows: number;
  readonly together: number;
  readonly split: number;
  readonly ahead: number;
}

const wanted = (subgroups: number, strips: number, rows: number, together: number, split: number, ahead: number): Wanted => ({
  ...{ subgroups, strips, rows, together, split, ahead },
});

/**
 * Measured on an H200 with subgroups of 32 (bench/decode-products.ts, and by the rate of whole steps): halves of a subgroup with a row each waste no lane where rows are 48 or 80 blocks, and add
 * up two rows as fast as a subgroup adds up one. Short matrices want many loads ahead; long ones several rows side by side, without running out of registers.
 */
function wantedShape(depth: number, results: number, end: ProductEnd, best: boolean): Wanted {
  const long = depth > 2048;
  if (end === 'gated') return long ? wanted(16, 2, 4, 2, 1, 1) : wanted(8, 2, 4, 4, 1, depth > 1024 ? 1 : 2);
  if (end === 'residual' && results >= 4096) return depth > 8192 ? wanted(16, 1, 1, 1, 1, 1) : wanted(8, 2, 4, 4, 2, 2);
  if (end === 'residual' && long) return depth > 4096 ? wanted(16, 1, 1, 1, 1, 4) : wanted(8, 2, 2, 2, 1, 6);
  if (end === 'residual') return wanted(8, 2, 2, 2, 1, 4);
  // 16 results to a workgroup: fewer make the choice read many pairs.
  if (best) return wanted(4, 2, 4, 4, 1, long ? 1 : 2);
  return long ? wanted(16, 1, 1, 1, 1, 1) : wanted(4, 2, 2, 2, 1, 4);
}
