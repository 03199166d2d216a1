/** Products of many rows with 8-bit activations: when they are chosen, in which tiles, and the steps that run them. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { DType } from '../../core/dtype.js';
import type { GpuKernel } from '../../core/kernel.js';
import type { Step } from '../../core/step.js';
import { need } from '../../ops/definition.js';
import type { LoweringContext, LoweringNode } from '../../ops/target.js';
import type { ActivationChoice } from '../decode/select.js';
import { linearSteps } from '../linear-steps.js';
import { splitSumKernel } from '../matrix/split-sum.js';
import { expectedSeconds, splitCounts, type TileRate } from '../occupancy.js';
import { arg } from '../template.js';
import { isBlockType, weightLayout } from '../weights-layout.js';
import { packRowsKernel, rowBlock, rowsType } from './activations.js';
import { type PackedTile, packedKernel, packedTileBytes, packedTileSize } from './product.js';

export interface PackedShape {
  /** Rows of x. */
  readonly rows: number;
  /** Rows of the weight. */
  readonly outputs: number;
  /** Columns of both. */
  readonly depth: number;
  readonly dtype: DType;
}

export interface PackedChoice {
  readonly tile: PackedTile;
  readonly splits: number;
  readonly reason: string;
}

/** Columns from which 'auto' rounds activations to 8 bits: in shorter sums roundings average out less. */
const leastDepth = 1024;
/** Rows from which products are made in tiles; fewer read every weight once in f32. */
export const leastPackedRows = 9;

interface RatedTile extends TileRate {
  readonly tile: PackedTile;
}

/** Measured with weights of 4 bits. A large tile reads less for each product; a small one wastes less on edges and makes more workgroups. All fit the guaranteed workgroup memory. */
const ratedTiles: readonly RatedTile[] = [
  { tile: { threads: [8, 16], results: [8, 4], blocks: 2, ahead: false }, rate: 71e12, shares: [0.6, 0.85, 0.9, 0.95] },
  { tile: { threads: [8, 8], results: [8, 4], blocks: 2, ahead: false }, rate: 74e12, shares: [0.38, 0.69, 0.8, 0.87, 0.93] },
  { tile: { threads: [4, 16], results: [8, 4], blocks: 2, ahead: false }, rate: 71e12, shares: [0.38, 0.67, 0.78, 0.85, 0.92] },
  { tile: { threads: [4, 16], results: [4, 4], blocks: 2, ahead: true }, rate: 60e12, shares: [0.33, 0.64, 0.78, 0.9] },
];
/** For rasterisers on the CPU, which take seconds to compile the others. */
const shortTile: PackedTile = { threads: [8, 8], results: [2, 2], blocks: 1, ahead: false };

/** Every tile that selection may choose. */
export const packedTiles: readonly PackedTile[] = [...ratedTiles.map(({ tile }) => tile), shortTile];

/** Columns of a part from which a split is considered. */
const leastPart = 1024;

/** A reason against 8-bit activations for many rows, or undefined. */
export function refusePacked({ rows, depth, dtype }: PackedShape, capabilities: GpuCapabilities, activations: ActivationChoice): string | undefined {
  if (rows < leastPackedRows) return 'few rows read every weight once, in f32';
  if (activations === 'f32') return 'activations are kept in f32';
  if (!capabilities.packedDot) return 'the device has no dot products of packed bytes';
  if (!isBlockType(dtype)) return `weights of type ${dtype} take f32 activations`;
  if (activations === 'int8') return undefined;
  if (capabilities.software) return 'a rasteriser has no fast dot products';
  if (capabilities.vendor === 'apple') return 'this vendor has no instruction for dot products of packed bytes';
  if (depth < leastDepth) return `${depth} columns are few: activations stay in f32`;
  return undefined;
}

/** Pure: the tile of a product with 8-bit activations, or the reason why it has none. */
export function selectPacked(shape: PackedShape, capabilities: GpuCapabilities, activations: ActivationChoice = 'auto'): PackedChoice | string {
  const refused = refusePacked(shape, capabilities, activations);
  if (refused !== undefined) return refused;
  const { limits, software } = capabilities;
  const fitting = ratedTiles.filter(
    ({ tile }) =>
      tile.threads[0] * tile.threads[1] <= limits.maxComputeInvocationsPerWorkgroup && packedTileBytes(tile) <= limits.maxComputeWorkgroupStorageSize,
  );
  const candidates = fitting.flatMap(({ tile, ...rated }) =>
    splitCounts
      .filter((splits) => splits === 1 || shape.depth / splits >= leastPart)
      .map((splits) => ({ tile, splits, seconds: secondsOf(shape, tile, splits, rated) })),
  );
  const best = candidates.reduce<(typeof candidates)[number] | undefined>((a, b) => (a !== undefined && a.seconds <= b.seconds ? a : b), undefined);
  const { tile, splits } = software || best === undefined ? { tile: shortTile, splits: 1 } : best;
  const parts = splits === 1 ? '' : ` in ${splits} parts of the depth`;
  const size = packedTileSize(tile).join('x');
  return { tile, splits, reason: `${shape.rows} rows: 8-bit activations, tiles of ${size}${parts}; ${tileCount(shape, tile) * splits} workgroups` };
}

function tileCount({ rows, outputs }: PackedShape, tile: PackedTile): number {
  const [x, w] = packedTileSize(tile);
  return Math.ceil(rows / x) * Math.ceil(outputs / w);
}

function secondsOf(shape: PackedShape, tile: PackedTile, splits: number, rated: TileRate): number {
  const tiles = tileCount(shape, tile);
  const [x, w] = packedTileSize(tile);
  return expectedSeconds({ flop: 2 * tiles * x * w * shape.depth, tiles, splits, results: shape.rows * shape.outputs }, rated);
}

/** Steps of `linear` by `choice`: x becomes 8-bit integers once for all its products, then every shard of the weight is multiplied. */
export function packedSteps(node: LoweringNode<'linear'>, context: LoweringContext, { tile, splits }: PackedChoice): readonly Step<GpuKernel>[] {
  const [x, w] = [need(node.inputs[0]), need(node.inputs[1])];
  const { label, id, output, params } = node;
  const [rows = 0, depth = 0] = x.type.shape;
  const made = context.derived(x, `int8 ${rowBlock}`, rowsType(rows, depth));
  const pack = { label: `${label} int8`, node: id, kernel: packRowsKernel(rows, depth), args: [arg(x, 'read'), arg(made.ref, 'write')] };
  const first = made.fresh ? [pack] : [];
  const source = arg(made.ref, 'read');
  if (splits === 1) return [...first, ...linearSteps(node, (problem) => packedKernel({ ...problem, splits }, tile), { source })];
  const columns = output.type.shape[1] ?? 0;
  const others = node.inputs.slice(2).map((ref) => arg(ref, 'read'));
  const products = w.shards.flatMap((shard, index): Step<GpuKernel>[] => {
    const layout = weightLayout({ dtype: w.type.dtype, shape: [shard.rows, depth] });
    const parts = context.scratch({ dtype: 'f32', shape: [splits, rows, shard.rows] });
    const kernel = packedKernel({ layout, start: 0, outputs: shard.rows, rows, bias: false, residual: 'none', splits }, tile);
    const sum = { splits, rows, outputs: shard.rows, columns, start: shard.start, bias: params.bias, residual: params.residual ? 'read' : 'none' } as const;
    return [
      { label, node: id, kernel, args: [source, { value: w.id, shard: index, access: 'read' }, arg(parts, 'write')] },
      { label: `${label} sum`, node: id, kernel: splitSumKernel(sum), args: [arg(parts, 'read'), ...others, arg(output, 'write')] },
    ];
  });
  return [...first, ...products];
}
