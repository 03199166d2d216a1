/** Which kernel makes a product of f32 matrices, and the steps that run it. */

import type { GpuCapabilities, GpuLimits } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import { need } from '../../ops/definition.js';
import type { LoweringNode, LoweringRule } from '../../ops/target.js';
import { finishSteps, matmulMatrixSteps, selectMatmulMatrix } from '../matrix/matmul.js';
import { splitSumKernel } from '../matrix/split-sum.js';
import { expectedSeconds, splitCounts, type TileRate } from '../occupancy.js';
import { permutedAxes, stridedCopyKernel } from '../strided-copy.js';
import { arg } from '../template.js';
import { epilogueOf } from './epilogue.js';
import type { GemmShape } from './shape.js';
import { maxSkinny, type SkinnyPlan, selectSkinny, skinnyKernel } from './skinny.js';
import { type GemmTile, gemmKernel, gemmTileBytes, gemmTileSize } from './tile.js';

export type GemmChoice = { readonly reason: string; readonly splits: number } & (
  | { readonly kind: 'skinny'; readonly plan: SkinnyPlan }
  | { readonly kind: 'tile'; readonly tile: GemmTile; readonly tiles: number }
);

interface RatedTile extends TileRate {
  readonly tile: Omit<GemmTile, 'padded'>;
}

/** 128x128, 64x64 and 32x32: a large tile reads less for each product, a small one wastes less on edges and makes more workgroups. */
const ratedTiles: readonly RatedTile[] = [
  { tile: { threads: [16, 16], quadrants: [2, 2], depth: 8, schedule: 'double' }, rate: 46e12, shares: [0.88] },
  { tile: { threads: [8, 8], quadrants: [2, 2], depth: 8, schedule: 'double' }, rate: 40e12, shares: [0.42, 0.83, 0.9, 0.97] },
  { tile: { threads: [8, 8], quadrants: [1, 1], depth: 16, schedule: 'double' }, rate: 27e12, shares: [0.37, 0.72, 0.82, 0.9, 0.95] },
];

/** For rasterisers on the CPU, which take seconds to compile the others. */
const shortTile: GemmTile = { threads: [8, 8], quadrants: [1, 1], depth: 16, schedule: 'short', padded: false };

/** Every tile that selection may choose. */
export const gemmTiles: readonly GemmTile[] = [...ratedTiles.flatMap(({ tile }) => [true, false].map((padded) => ({ ...tile, padded }))), shortTile];

/** Depth of a part from which a split is considered. */
const leastPart = 128;

/** Pure: equal arguments give equal kernels. The depth is split where the tiles are too few to keep a GPU busy. */
export function selectGemm(shape: GemmShape, { limits, software }: GpuCapabilities): GemmChoice {
  const { m, n, k } = shape;
  if (Math.min(m, n) <= maxSkinny) {
    const plan = selectSkinny(shape, limits.maxComputeInvocationsPerWorkgroup);
    const parts = plan.splits > 1 ? `, the depth in ${plan.splits} parts` : '';
    return { kind: 'skinny', plan, splits: plan.splits, reason: `${Math.min(m, n)} ${m <= n ? 'rows' : 'columns'}: the other matrix is read once${parts}` };
  }
  const candidates = fittingTiles(limits).flatMap(({ tile, rated }) =>
    splitsOf(shape, tile).map((splits) => ({ tile, splits, seconds: secondsOf(shape, tile, splits, rated) })),
  );
  const best = leastSeconds(candidates);
  const { tile, splits: wanted } = software || best === undefined ? { tile: shortTile, splits: shortSplits(shape) } : best;
  const depthTiles = Math.ceil(k / tile.depth);
  const perSplit = Math.ceil(depthTiles / wanted);
  const splits = Math.ceil(depthTiles / perSplit);
  const why = splits > 1 ? `, the depth of ${k} in ${splits} parts` : '';
  return { kind: 'tile', tile, tiles: perSplit, splits, reason: `tiles of ${gemmTileSize(tile).join('x')}, ${tileCount(shape, tile)} of them${why}` };
}

/** The tile for `copies` products of one shape side by side, none of them split. */
export function selectTile(shape: GemmShape, copies: number, { limits, software }: Pick<GpuCapabilities, 'limits' | 'software'>): GemmTile {
  const best = leastSeconds(fittingTiles(limits).map(({ tile, rated }) => ({ tile, seconds: secondsOf(shape, tile, 1, rated, copies) })));
  return software || best === undefined ? shortTile : best.tile;
}

/** The tiles that a device has room for, padded where there is room for that too. */
function fittingTiles(limits: GpuLimits): readonly { readonly tile: GemmTile; readonly rated: TileRate }[] {
  const fits = (tile: GemmTile): boolean =>
    tile.threads[0] * tile.threads[1] <= limits.maxComputeInvocationsPerWorkgroup && gemmTileBytes(tile) <= limits.maxComputeWorkgroupStorageSize;
  return ratedTiles.flatMap(({ tile: own, ...rated }) => {
    const tile = [true, false].map((padded): GemmTile => ({ ...own, padded })).find(fits);
    return tile === undefined ? [] : [{ tile, rated }];
  });
}

function leastSeconds<T extends { readonly seconds: number }>(candidates: readonly T[]): T | undefined {
  return candidates.reduce<T | undefined>((a, b) => (a !== undefined && a.seconds <= b.seconds ? a : b), undefined);
}

function tileCount({ m, n }: GemmShape, tile: GemmTile): number {
  return Math.ceil(m / gemmTileSize(tile)[0]) * Math.ceil(n / gemmTileSize(tile)[1]);
}

function splitsOf({ k }: GemmShape, tile: GemmTile): readonly number[] {
  return splitCounts.filter((splits) => splits === 1 || k / splits >= Math.max(leastPart, 2 * tile.depth));
}

/** A rasteriser has a few cores to keep busy. */
function shortSplits(shape: GemmShape): number {
  return Math.max(1, Math.min(Math.floor(16 / tileCount(shape, shortTile)), Math.floor(shape.k / 256)));
}

function secondsOf(shape: GemmShape, tile: GemmTile, splits: number, rated: TileRate, copies = 1): number {
  const tiles = tileCount(shape, tile) * copies;
  const [rows, columns] = gemmTileSize(tile);
  return expectedSeconds({ flop: 2 * tiles * rows * columns * shape.k, tiles, splits, results: shape.m * shape.n * copies }, rated);
}

/** The kernel of a choice; with several splits its output is [splits, M, N]. */
export function gemmKernelOf(shape: GemmShape, choice: GemmChoice): GpuKernel {
  return choice.kind === 'skinny' ? skinnyKernel(shape, choice.plan) : gemmKernel(shape, choice.tile, choice);
}

/**
 * Whether b is turned before the product: tiles of a large [N, K] touch a few bytes in each of thousands of rows, which costs a product of 4096 two thirds of its speed,
 * and a copy a twentieth.
 */
export function turnsFirst({ m, n, k, transposeB }: GemmShape, { software }: GpuCapabilities): boolean {
  return transposeB && !software && Math.min(m, n, k) >= 1024;
}

/** `leastMatrixRows`: the least side of products whose operands may be rounded from which they use f16 matrices, where the device has them. */
export function matmulRule(capabilities: GpuCapabilities, { leastMatrixRows }: { readonly leastMatrixRows?: number } = {}): LoweringRule<'matmul', GpuKernel> {
  const product = gemmRule((shape) => selectGemm(shape, capabilities));
  return (given, context) => {
    const node = given.params.alpha === 0 ? withZeroStep(given) : given;
    const b = need(node.inputs[1]);
    const shape = shapeOf(node);
    const matrix = selectMatmulMatrix(shape, node.params, capabilities, leastMatrixRows);
    if (matrix !== undefined) return matmulMatrixSteps(node, context, matrix);
    if (!turnsFirst(shape, capabilities)) return product(node, context);
    const turned = context.scratch({ dtype: 'f32', shape: [shape.k, shape.n] });
    const kernel = stridedCopyKernel(permutedAxes([shape.n, shape.k], [1, 0]), 0);
    const copy = { label: `${node.label} turn`, node: node.id, kernel, args: [arg(b, 'read'), arg(turned, 'write')] };
    return [
      copy,
      ...product({ ...node, params: { ...node.params, transposeB: false }, inputs: [need(node.inputs[0]), turned, ...node.inputs.slice(2)] }, context),
    ];
  };
}

/** A factor of 0 as a step of the epilogue, which knows that 0 times an infinity is none: compilers do not. */
function withZeroStep(node: LoweringNode<'matmul'>): LoweringNode<'matmul'> {
  return { ...node, params: { ...node.params, alpha: 1, epilogue: finishSteps(node.params) } };
}

function shapeOf({ inputs, output, params }: LoweringNode<'matmul'>): GemmShape {
  const [m = 0, n = 0] = output.type.shape;
  const { epilogue, rounded: _, ...plain } = params;
  const shape = { m, n, k: need(inputs[0]).type.shape[params.transposeA ? 0 : 1] ?? 0, ...plain };
  if (epilogue === undefined) return shape;
  const extras = inputs.slice(2).map((ref) => ref.type.shape);
  return { ...shape, epilogue: epilogueOf(epilogue, extras, output.type.shape) };
}

export function gemmRule(select: (shape: GemmShape) => GemmChoice): LoweringRule<'matmul', GpuKernel> {
  return (node, context) => {
    const [a, b] = [need(node.inputs[0]), need(node.inputs[1])];
    const shape = shapeOf(node);
    const { m, n } = shape;
    const choice = select(shape);
    const split = choice.splits > 1;
    const { epilogue, ...plain } = shape;
    const kernel = gemmKernelOf(split ? plain : shape, choice);
    const extras = node.inputs.slice(2).map((ref) => arg(ref, 'read'));
    const y = split ? context.scratch({ dtype: 'f32', shape: [choice.splits, m, n] }) : node.output;
    const product = {
      label: split ? `${node.label} parts` : node.label,
      node: node.id,
      kernel,
      args: [arg(a, 'read'), arg(b, 'read'), ...(split ? [] : extras), arg(y, 'write')],
    };
    if (!split) return [product];
    const finish = epilogue === undefined ? {} : { epilogue };
    const sum = splitSumKernel({ splits: choice.splits, rows: m, outputs: n, columns: n, start: 0, bias: false, residual: 'none', ...finish });
    return [product, { label: `${node.label} sum`, node: node.id, kernel: sum, args: [arg(y, 'read'), ...extras, arg(node.output, 'write')] }];
  };
}
