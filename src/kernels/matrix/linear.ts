/** Products of many rows on subgroup matrices: when they are chosen, in which tiles, and the steps that run them. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import type { Step, StepArg } from '../../core/step.js';
import { roundUp } from '../../core/tensor.js';
import { need } from '../../ops/definition.js';
import type { LoweringContext, LoweringNode, RowShard, TensorRef } from '../../ops/target.js';
import { arg } from '../template.js';
import { type WeightLayout, weightLayout } from '../weights-layout.js';
import { type GemmProblem, type GemmTile, gemmBytes, gemmKernel, gemmTiles, matrixSize } from './gemm.js';
import { dequantiseKernel, halvesKernel } from './halves.js';
import { splitSumKernel } from './split-sum.js';

export interface MatrixShape {
  /** Rows of x. */
  readonly rows: number;
  /** Rows of the weight. */
  readonly outputs: number;
  /** Columns of both. */
  readonly depth: number;
}

export interface MatrixChoice {
  readonly tile: GemmTile;
  readonly splits: number;
  readonly subgroupSize: number;
  readonly reason: string;
}

/** From large to small: a large tile reads less for each product, a small one keeps more of a GPU busy. */
export const gemmTileShapes: readonly GemmTile[] = [
  { rows: 128, columns: 128, depth: 32, subgroupRows: 64, subgroupColumns: 64 },
  { rows: 128, columns: 64, depth: 32, subgroupRows: 64, subgroupColumns: 32 },
  { rows: 64, columns: 64, depth: 64, subgroupRows: 32, subgroupColumns: 32 },
];

/** Workgroups that keep a large GPU busy. */
const busyTiles = 128;
/** Depth that a split has at least: below, adding up the parts costs more than the split brings. */
const leastSplitDepth = 512;
/** Rows from which decoding the whole weight once is worth it: measured faster than the f32 tiles for every number of rows that no matrix-vector kernel takes. */
export const leastMatrixRows = 9;
/** Weights of one slab: what is decoded at a time, so that the scratch memory stays small beside the weights. */
const slabWeights = 2 ** 26;

/** Whether a device multiplies f16 matrices of 16 x 16 into f32 in subgroups of one known size. */
export function hasMatrices({ f16, subgroups, subgroupMinSize, subgroupMaxSize, subgroupMatrices }: GpuCapabilities): boolean {
  const fits = subgroupMatrices.some(
    ({ componentType, resultComponentType, m, n, k }) =>
      componentType === 'f16' && resultComponentType === 'f32' && m === matrixSize && n === matrixSize && k === matrixSize,
  );
  return f16 && subgroups && subgroupMinSize === subgroupMaxSize && subgroupMinSize >= 16 && fits;
}

/**
 * The tile of a product, or undefined where it is not for matrices: on devices without them, for few rows, and for f32 weights, whose precision f16 would not keep.
 */
export function selectMatrix(shape: MatrixShape, capabilities: GpuCapabilities, leastRows = leastMatrixRows): MatrixChoice | undefined {
  if (!hasMatrices(capabilities) || shape.rows < leastRows) return undefined;
  const { limits, subgroupMinSize: subgroupSize } = capabilities;
  const fitting = gemmTileShapes.filter((tile) => {
    const threads = ((tile.rows * tile.columns) / (tile.subgroupRows * tile.subgroupColumns)) * subgroupSize;
    return gemmBytes(tile) <= limits.maxComputeWorkgroupStorageSize && threads <= limits.maxComputeInvocationsPerWorkgroup;
  });
  const tile = fitting.find((candidate) => gemmTiles(shape, candidate) >= busyTiles) ?? fitting.at(-1);
  if (tile === undefined) return undefined;
  const tiles = gemmTiles(shape, tile);
  const splits = splitsFor(tiles, roundUp(shape.depth, tile.depth) / tile.depth, tile.depth);
  const parts = splits === 1 ? '' : ` in ${splits} parts of the depth`;
  const reason = `${shape.rows} rows: f16 matrices, tiles of ${tile.rows}x${tile.columns}${parts}; ${tiles * splits} workgroups`;
  return { tile, splits, subgroupSize, reason };
}

/** Parts of the depth, so that few tiles still make many workgroups: a power of two that divides the steps. */
function splitsFor(tiles: number, steps: number, depth: number): number {
  let splits = 1;
  while (tiles * splits < busyTiles && steps % (2 * splits) === 0 && (steps / (2 * splits)) * depth >= leastSplitDepth) splits *= 2;
  return splits;
}

/** Steps of `linear` by `choice`: x and each slab of the weight become f16, then they are multiplied. */
export function matrixSteps(node: LoweringNode<'linear'>, context: LoweringContext, choice: MatrixChoice): readonly Step<GpuKernel>[] {
  const [x, w] = [need(node.inputs[0]), need(node.inputs[1])];
  const { label, id } = node;
  const [rows = 0, columns = 0] = x.type.shape;
  const depth = roundUp(columns, Math.max(...gemmTileShapes.map((tile) => tile.depth)));
  const steps: Step<GpuKernel>[] = [];
  const halves = context.derived(x, `f16 ${depth}`, { dtype: 'f16', shape: [rows, depth] });
  if (halves.fresh)
    steps.push({ label: `${label} f16`, node: id, kernel: halvesKernel(rows, columns, depth), args: [arg(x, 'read'), arg(halves.ref, 'write')] });
  const slabs = w.shards.flatMap((shard, index) => slabsOf(shard, depth).map((slab) => ({ ...slab, shard: index, layout: shardLayout(w, shard) })));
  for (const slab of slabs) {
    const weight = slabWeight(node, context, slab, depth);
    if (weight.step !== undefined) steps.push(weight.step);
    steps.push(
      ...productSteps(node, context, choice, { a: halves.ref, w: weight.arg, depth, start: slab.start, outputs: slab.rows, alone: slabs.length === 1 }),
    );
  }
  return steps;
}

interface Slab {
  /** The first row of the slab in its shard, and in the weight. */
  readonly first: number;
  readonly start: number;
  readonly rows: number;
  readonly shard: number;
  readonly layout: WeightLayout;
}

function shardLayout(w: TensorRef, shard: RowShard): WeightLayout {
  return weightLayout({ dtype: w.type.dtype, shape: [shard.rows, ...w.type.shape.slice(1)] });
}

function slabsOf(shard: RowShard, depth: number): { first: number; start: number; rows: number }[] {
  const most = Math.max(128, Math.floor(slabWeights / depth / 128) * 128);
  const count = Math.ceil(shard.rows / most);
  const rows = roundUp(Math.ceil(shard.rows / count), 128);
  return Array.from({ length: Math.ceil(shard.rows / rows) }, (_, i) => ({
    first: i * rows,
    start: shard.start + i * rows,
    rows: Math.min(rows, shard.rows - i * rows),
  }));
}

/** The f16 form of a slab: the weight itself where it is stored so, else scratch and the step that fills it. */
function slabWeight(
  { inputs, label, id }: LoweringNode<'linear'>,
  context: LoweringContext,
  { layout, first, rows, shard }: Slab,
  depth: number,
): { readonly arg: StepArg; readonly step?: Step<GpuKernel> } {
  const packed: StepArg = { value: need(inputs[1]).id, shard, access: 'read' };
  if (layout.dtype === 'f16' && layout.columns === depth && rows === layout.rows) return { arg: packed };
  const scratch = context.scratch({ dtype: 'f16', shape: [rows, depth] });
  const step = { label: `${label} weights`, node: id, kernel: dequantiseKernel(layout, first, rows, depth), args: [packed, arg(scratch, 'write')] };
  return { arg: arg(scratch, 'read'), step };
}

interface Product {
  readonly a: TensorRef;
  readonly w: StepArg;
  readonly depth: number;
  readonly start: number;
  readonly outputs: number;
  /** The only product of its node: y may take the residual's place. */
  readonly alone: boolean;
}

function productSteps(node: LoweringNode<'linear'>, context: LoweringContext, choice: MatrixChoice, product: Product): readonly Step<GpuKernel>[] {
  const { inputs, output, params, label, id } = node;
  const { tile, splits, subgroupSize } = choice;
  const [rows = 0, columns = 0] = output.type.shape;
  const { depth, start, outputs } = product;
  const others = inputs.slice(2).map((ref) => arg(ref, 'read'));
  const residual = params.residual ? 'read' : 'none';
  const operands = [arg(product.a, 'read'), product.w];
  if (splits > 1) {
    const partials = context.scratch({ dtype: 'f32', shape: [splits, rows, outputs] });
    const problem: GemmProblem = { rows, outputs, depth, columns, start, bias: false, residual: 'none', splits };
    const sum = { splits, rows, outputs, columns, start, bias: params.bias, residual } as const;
    return [
      { label, node: id, kernel: gemmKernel(problem, tile, subgroupSize), args: [...operands, arg(partials, 'write')] },
      { label: `${label} sum`, node: id, kernel: splitSumKernel(sum), args: [arg(partials, 'read'), ...others, arg(output, 'write')] },
    ];
  }
  const problem: GemmProblem = { rows, outputs, depth, columns, start, bias: params.bias, residual, splits };
  const args = [...operands, ...others, arg(output, 'write')];
  const step = { label, node: id, kernel: gemmKernel(problem, tile, subgroupSize), args };
  if (!params.residual || !product.alone) return [step];
  const inPlace = { input: args.length - 2, output: args.length - 1, kernel: gemmKernel({ ...problem, residual: 'inPlace' }, tile, subgroupSize) };
  return [{ ...step, inPlace }];
}
