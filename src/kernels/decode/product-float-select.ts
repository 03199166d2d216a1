/** Which fused product with f32 activations a problem gets, and why not: pure functions of shapes and capabilities. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { TensorType } from '../../core/tensor.js';
import type { WeightStore } from '../../ops/target.js';
import { isBlockType, weightLayout } from '../weights-layout.js';
import type { ProductEnd } from './product.js';
import { chunkOf, type FloatProblem, type FloatShape, floatBytes } from './product-float-shape.js';
import { type ActivationChoice, halfDecode, refuseProduct, workgroupThreads } from './select.js';

/** A product before it is lowered. */
export interface ProductTypes {
  readonly weights: readonly TensorType[];
  readonly end: ProductEnd;
  /** Width of the result where 8-bit activations are made of it. */
  readonly results?: number;
  /** Buffers that its kernel binds beside the weights, with f32 activations. */
  readonly vectors: number;
}

/** What a product multiplies its weights with: 8-bit activations or f32 ones in one fused dispatch, or in the steps of the plain operations. */
export interface ProductPath {
  readonly path: 'int8' | 'f32' | 'steps';
  readonly reason: string;
}

export function selectProductPath(product: ProductTypes, choice: ActivationChoice, store: WeightStore, capabilities: GpuCapabilities): ProductPath {
  const packed = refuseProduct(product.weights, product.results, choice, store, capabilities);
  if (packed === undefined) return { path: 'int8', reason: 'the device multiplies 8-bit activations fast' };
  if (choice === 'auto' && capabilities.software) return { path: 'steps', reason: packed };
  const float = refuseFloat(product, store, capabilities);
  return float === undefined ? { path: 'f32', reason: packed } : { path: 'steps', reason: `${packed}; ${float}` };
}

/** A reason why no fused kernel with f32 activations takes a product, or undefined. */
function refuseFloat({ weights, end, vectors }: ProductTypes, store: WeightStore, { limits }: GpuCapabilities): string | undefined {
  const depth = weights[0]?.shape[1] ?? 0;
  if (depth % 4 !== 0) return `${depth} columns are no multiple of 4`;
  const bindings = weights.length + vectors;
  if (bindings > limits.maxStorageBuffersPerShaderStage) return `it binds ${bindings} buffers, and the device ${limits.maxStorageBuffersPerShaderStage}`;
  if (weights.length > 1 && weights.some((weight) => store.shards(weight).length > 1)) return 'a weight of several takes more than one binding';
  const chunks = new Set(weights.map((weight) => chunkOf(weightLayout(weight))));
  return end === 'gated' && chunks.size > 1 ? 'gate and up have weights of different kinds' : undefined;
}

/** The shape of a product: what was measured for shapes like it, bent to the device's limits. */
export function selectFloat(problem: Pick<FloatProblem, 'depth' | 'matrices' | 'end' | 'best'>, capabilities: GpuCapabilities): FloatShape {
  const { limits, subgroups, subgroupMinSize: size, subgroupMaxSize } = capabilities;
  const adding = subgroups && size === subgroupMaxSize && size >= 4 ? 'subgroup' : 'memory';
  const lanes = adding === 'subgroup' ? size : memoryLanes;
  const most = Math.max(1, Math.floor(workgroupThreads(capabilities) / lanes));
  const wanted = capabilities.software ? shortShape(problem.end) : wantedShape(problem);
  const teams = Math.min(wanted.teams, most);
  const split = adding === 'subgroup' ? Math.min(wanted.split, teams) : 1;
  const shape = { ...wanted, adding, lanes, teams, split, staged: true, halves: halfDecode(capabilities) } as const;
  return floatBytes(problem, shape) <= limits.maxComputeWorkgroupStorageSize ? shape : { ...shape, staged: false };
}

/** Lanes of a team that adds in workgroup memory: few enough that short rows keep them all busy. */
const memoryLanes = 32;

type Wanted = Pick<FloatShape, 'teams' | 'rows' | 'together' | 'split' | 'ahead'>;

/** A rasteriser hides no latency and compiles for long. */
function shortShape(end: ProductEnd): Wanted {
  const rows = end === 'gated' ? 2 : 1;
  return { teams: 4, rows, together: rows, split: 1, ahead: 0 };
}

/**
 * Measured on an H200 with subgroups of 32 (bench/float-products.ts): large workgroups share the staged activations, a few loads of 16 bytes in flight for each lane; short matrices want their rows
 * split, or there are too few workgroups.
 */
function wantedShape({ depth, end, best, matrices }: Pick<FloatProblem, 'depth' | 'matrices' | 'end' | 'best'>): Wanted {
  const plain = matrices.every(({ layout }) => !isBlockType(layout.dtype));
  const short = depth <= 2048;
  if (best !== undefined) return { teams: 8, rows: 2, together: 2, split: 1, ahead: plain ? 4 : 1 };
  if (end === 'gated') return { teams: plain || depth > 1024 ? 16 : 4, rows: 4, together: 4, split: 1, ahead: 2 };
  if (!plain) return { teams: end === 'none' ? 8 : 4, rows: 1, together: 1, split: end === 'residual' && short ? 2 : 1, ahead: 2 };
  if (end === 'none') return { teams: 16, rows: 2, together: 2, split: 2, ahead: 2 };
  return short ? { teams: 8, rows: 1, together: 1, split: 2, ahead: 2 } : { teams: 16, rows: 1, together: 1, split: 1, ahead: 2 };
}
