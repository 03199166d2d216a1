/** Which kernel makes a product of f32 matrices, and the steps that run it. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import { need } from '../../ops/definition.js';
import type { LoweringRule } from '../../ops/target.js';
import { reduceSteps } from '../reduce.js';
import { arg } from '../template.js';
import type { GemmShape } from './shape.js';
import { maxSkinny, skinnyKernel, skinnySplits } from './skinny.js';
import { type GemmTile, gemmKernel, gemmTileBytes, gemmTileSize } from './tile.js';

export type GemmChoice = { readonly reason: string; readonly splits: number } & (
  | { readonly kind: 'skinny' }
  | { readonly kind: 'tile'; readonly tile: GemmTile; readonly tiles: number }
);

/** Workgroups that keep a large GPU busy: about two for each of its multiprocessors, of large tiles one. */
const busyGroups = 264;

/** 128x128, 64x64 and 32x32. */
const tiles = [
  { threads: [16, 16], quadrants: [2, 2], depth: 8, schedule: 'double', enough: 128 },
  { threads: [8, 8], quadrants: [2, 2], depth: 8, schedule: 'double', enough: 200 },
  { threads: [8, 8], quadrants: [1, 1], depth: 16, schedule: 'double', enough: 0 },
] as const;

/** Every tile that selection may choose. */
export const gemmTiles: readonly GemmTile[] = [
  ...tiles.flatMap(({ enough: _, ...tile }) => [
    { ...tile, padded: true },
    { ...tile, padded: false },
  ]),
  { threads: [8, 8], quadrants: [1, 1], depth: 16, schedule: 'short', padded: false },
];

/** Pure: equal arguments give equal kernels. The depth is split where the tiles are too few to keep a GPU busy. */
export function selectGemm(shape: GemmShape, { limits, software }: GpuCapabilities): GemmChoice {
  const { m, n, k } = shape;
  if (Math.min(m, n) <= maxSkinny) {
    return { kind: 'skinny', splits: skinnySplits(shape), reason: `${Math.min(m, n)} ${m <= n ? 'rows' : 'columns'}: the other matrix is read once` };
  }
  const count = (tile: GemmTile): number => Math.ceil(m / gemmTileSize(tile)[0]) * Math.ceil(n / gemmTileSize(tile)[1]);
  const fits = (tile: GemmTile): boolean =>
    tile.threads[0] * tile.threads[1] <= limits.maxComputeInvocationsPerWorkgroup && gemmTileBytes(tile) <= limits.maxComputeWorkgroupStorageSize;
  const candidates = tiles.flatMap(({ enough, ...tile }) => {
    const padded: GemmTile = { ...tile, padded: true };
    const fitting = fits(padded) ? padded : { ...tile, padded: false };
    return fits(fitting) && count(fitting) >= enough ? [fitting] : [];
  });
  const least: GemmTile = { threads: [8, 8], quadrants: [1, 1], depth: 16, schedule: 'short', padded: false };
  const tile = software ? least : (candidates[0] ?? least);
  const depthTiles = Math.ceil(k / tile.depth);
  const wanted = Math.max(1, Math.min(Math.floor(busyGroups / count(tile)), Math.floor(k / 256)));
  const perSplit = Math.ceil(depthTiles / wanted);
  const splits = Math.ceil(depthTiles / perSplit);
  const why = splits > 1 ? `, the depth of ${k} in ${splits} parts` : '';
  return { kind: 'tile', tile, tiles: perSplit, splits, reason: `tiles of ${gemmTileSize(tile).join('x')}, ${count(tile)} of them${why}` };
}

/** The kernel of a choice; with several splits its output is [splits, M, N]. */
export function gemmKernelOf(shape: GemmShape, choice: GemmChoice): GpuKernel {
  return choice.kind === 'skinny' ? skinnyKernel(shape, choice.splits) : gemmKernel(shape, choice.tile, choice);
}

export function matmulRule(capabilities: GpuCapabilities): LoweringRule<'matmul', GpuKernel> {
  return gemmRule((shape) => selectGemm(shape, capabilities));
}

export function gemmRule(select: (shape: GemmShape) => GemmChoice): LoweringRule<'matmul', GpuKernel> {
  return (node, context) => {
    const [a, b] = [need(node.inputs[0]), need(node.inputs[1])];
    const [m = 0, n = 0] = node.output.type.shape;
    const shape: GemmShape = { m, n, k: a.type.shape[node.params.transposeA ? 0 : 1] ?? 0, ...node.params };
    const choice = select(shape);
    const kernel = gemmKernelOf(shape, choice);
    const split = choice.splits > 1;
    const y = split ? context.scratch({ dtype: 'f32', shape: [choice.splits, m, n] }) : node.output;
    const product = { label: split ? `${node.label} parts` : node.label, node: node.id, kernel, args: [arg(a, 'read'), arg(b, 'read'), arg(y, 'write')] };
    if (!split) return [product];
    const sum = reduceSteps(
      { ...node, label: `${node.label} sum` },
      { fold: 'sum', scale: 1, source: 'tensor' },
      [y],
      [choice.splits, m * n],
      [0],
      node.output,
      context,
    );
    return [product, ...sum];
  };
}
