/** y = x W^T with W [N, K], for any number of rows of x: which kernel, and the steps that run it. */

import type { GpuCapabilities } from '../core/capabilities.js';
import type { GpuKernel } from '../core/kernel.js';
import type { TensorType } from '../core/tensor.js';
import type { OpParams } from '../ops/params.js';
import type { LoweringRule } from '../ops/target.js';
import type { ActivationChoice } from './decode/select.js';
import { type PackedChoice, type PackedShape, packedSteps, selectPacked } from './dp4a/linear.js';
import { linearSteps } from './linear-steps.js';
import type { LinearProblem } from './linear-text.js';
import { type MatmulTile, matmulKernel, tileBytes, tileSize } from './matmul.js';
import { type MatrixChoice, matrixSteps, selectMatrix, takesHalves } from './matrix/linear.js';
import { type MatvecShape, matvecKernel } from './matvec.js';

/** Sizes that decide which kernel runs. */
export interface LinearShape {
  /** Rows of x. */
  readonly rows: number;
  /** Rows of the weight (of one shard). */
  readonly outputs: number;
}

export type LinearChoice = { readonly reason: string } & (
  | { readonly family: 'matvec'; readonly shape: MatvecShape }
  | { readonly family: 'matmul'; readonly tile: MatmulTile }
);

/** Up to here reading the weight is the cost, and a row of x more is nearly free. */
export const maxMatvecRows = 8;

/** Tiles that keep a large GPU busy: about two for each of its multiprocessors. */
const busyTiles = 256;

/** From large to small. A large tile reads less for each product; a small one wastes less on edges and makes more workgroups. */
const largeTiles: readonly MatmulTile[] = [
  { threads: [16, 16], quadrants: [2, 2], depth: 8, schedule: 'double' },
  { threads: [16, 16], quadrants: [2, 2], depth: 8, schedule: 'single' },
  { threads: [8, 8], quadrants: [2, 2], depth: 16, schedule: 'single' },
];
/** 32x32, and 16x64 for few rows: both fit every device. */
const squareTile: MatmulTile = { threads: [8, 8], quadrants: [1, 1], depth: 16, schedule: 'single' };
const flatTile: MatmulTile = { threads: [4, 16], quadrants: [1, 1], depth: 16, schedule: 'single' };

/** Every tile that selection may choose. */
export const matmulTiles: readonly MatmulTile[] = [
  ...largeTiles,
  squareTile,
  flatTile,
  { ...squareTile, schedule: 'short' },
  { ...flatTile, schedule: 'short' },
];

/** Pure: equal arguments give equal kernels. */
export function selectLinear(shape: LinearShape, capabilities: GpuCapabilities): LinearChoice {
  return shape.rows <= maxMatvecRows ? selectMatvec(shape, capabilities) : selectMatmul(shape, capabilities);
}

function selectMatvec({ rows, outputs }: LinearShape, { subgroups, subgroupMinSize, subgroupMaxSize, software }: GpuCapabilities): LinearChoice {
  const most = rows === 1 ? 4 : 2;
  const teamRows = Math.min(most, outputs >= 8192 ? 4 : outputs >= 2048 ? 2 : 1);
  // About eight loads in flight hide the latency of memory; a rasteriser on the CPU has none to hide, and compiles longer.
  const unroll = rows > 1 || software ? 1 : 8 / Math.max(2, teamRows);
  const why = `${rows} ${rows === 1 ? 'row' : 'rows'}: every weight is read once`;
  if (subgroups && subgroupMinSize === subgroupMaxSize && subgroupMinSize >= 4) {
    const threads = Math.max(subgroupMinSize, Math.min(128, 4 * subgroupMinSize));
    return {
      family: 'matvec',
      shape: { team: 'subgroup', threads, subgroupSize: subgroupMinSize, teamRows, unroll },
      reason: `${why}; subgroups of ${subgroupMinSize} add up`,
    };
  }
  if (subgroups && subgroupMinSize >= 4) {
    const threads = Math.max(64, subgroupMaxSize);
    const reason = `${why}; subgroups of ${subgroupMinSize} to ${subgroupMaxSize} add up, then the workgroup`;
    return { family: 'matvec', shape: { team: 'subgroups', threads, subgroupSize: subgroupMinSize, teamRows, unroll }, reason };
  }
  return { family: 'matvec', shape: { team: 'tree', threads: 64, subgroupSize: 0, teamRows, unroll }, reason: `${why}; no subgroups: the workgroup adds up` };
}

/** The largest tile that fits the device and leaves enough tiles to keep a GPU busy. */
function selectMatmul({ rows, outputs }: LinearShape, { limits, software }: GpuCapabilities): LinearChoice {
  const count = (tile: MatmulTile): number => Math.ceil(rows / tileSize(tile)[0]) * Math.ceil(outputs / tileSize(tile)[1]);
  const fits = (tile: MatmulTile): boolean =>
    tile.threads[0] * tile.threads[1] <= limits.maxComputeInvocationsPerWorkgroup && tileBytes(tile) <= limits.maxComputeWorkgroupStorageSize;
  const small = rows <= 16 ? flatTile : squareTile;
  const large = largeTiles.find((tile) => fits(tile) && count(tile) >= busyTiles);
  const tile: MatmulTile = software ? { ...small, schedule: 'short' } : (large ?? small);
  const why = software
    ? 'the short kernel, since the CPU compiles it'
    : tile === large
      ? `${count(tile)} tiles keep a GPU busy`
      : 'larger tiles would be too few';
  return { family: 'matmul', tile, reason: `${rows} rows: tiles of ${tileSize(tile).join('x')}, ${tile.schedule} schedule; ${why}` };
}

/** The kernel for one shard of a weight. */
export function linearKernel(problem: LinearProblem, capabilities: GpuCapabilities): GpuKernel {
  const choice = selectLinear({ rows: problem.rows, outputs: problem.layout.rows }, capabilities);
  return choice.family === 'matvec' ? matvecKernel(problem, choice.shape) : matmulKernel(problem, choice.tile);
}

export interface LinearOptions {
  /** Rows from which f16 matrices are used, where the device has them. */
  readonly leastMatrixRows?: number;
  /** Whether many rows may become 8-bit integers where there are no matrices. Default 'auto'. */
  readonly activations?: ActivationChoice;
}

/** A product whose x may be rounded: with its kind of kernels, and why not the faster kinds. */
export type LinearPath = { readonly reason: string } & (
  | { readonly path: 'f16 matrices'; readonly choice: MatrixChoice }
  | { readonly path: '8-bit activations'; readonly choice: PackedChoice }
  | { readonly path: 'f32' }
);

/** The fastest that the device has: f16 matrices, then 8-bit activations, then f32. Pure. */
export function selectPath(shape: PackedShape, capabilities: GpuCapabilities, { leastMatrixRows, activations }: LinearOptions = {}): LinearPath {
  const matrix = shape.dtype === 'f32' ? undefined : selectMatrix(shape, capabilities, leastMatrixRows);
  if (matrix !== undefined) return { path: 'f16 matrices', choice: matrix, reason: matrix.reason };
  const packed = selectPacked(shape, capabilities, activations);
  if (typeof packed === 'object') return { path: '8-bit activations', choice: packed, reason: packed.reason };
  return { path: 'f32', reason: packed };
}

export function linearRule(capabilities: GpuCapabilities, options: LinearOptions = {}): LoweringRule<'linear', GpuKernel> {
  return (node, context) => {
    const shape = roundedShape(
      node.params,
      node.inputs.map((input) => input.type),
    );
    const found = shape && selectPath(shape, capabilities, options);
    if (found?.path === 'f16 matrices') return matrixSteps(node, context, found.choice);
    if (found?.path === '8-bit activations') return packedSteps(node, context, found.choice);
    return linearSteps(node, (problem) => linearKernel(problem, capabilities));
  };
}

/** The sizes of a product whose x may be rounded. */
function roundedShape(params: OpParams['linear'], [x, w]: readonly TensorType[]): PackedShape | undefined {
  const [rows = 0, depth = 0] = x?.shape ?? [];
  if (params.rounded !== true || w === undefined) return undefined;
  return { rows, outputs: w.shape[0] ?? 0, depth, dtype: w.dtype };
}

/** Whether a product reads x as f16, and can where its producer has left it so. */
export function linearTakesHalves(
  params: OpParams['linear'],
  inputs: readonly TensorType[],
  capabilities: GpuCapabilities,
  options: LinearOptions = {},
): boolean {
  const shape = roundedShape(params, inputs);
  return shape !== undefined && takesHalves(shape.depth) && selectPath(shape, capabilities, options).path === 'f16 matrices';
}
