/** Products of many rows on subgroup matrices: when they are chosen, in which tiles, and the steps that run them. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import type { Step, StepArg } from '../../core/step.js';
import { roundUp } from '../../core/tensor.js';
import { need } from '../../ops/definition.js';
import type { LoweringContext, LoweringNode, RowShard, TensorRef } from '../../ops/target.js';
import { arg } from '../template.js';
import { type WeightLayout, weightLayout } from '../weights-layout.js';
import { madeHalves } from './form.js';
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

/** A tile with its measured speed where every processor is full, in FLOP a second. */
interface TileChoice {
  readonly tile: GemmTile;
  readonly rate: number;
  /** Whether splitting the depth was found to pay. */
  readonly splits: boolean;
}

/** A large tile reads less for each product, a small one wastes less on edges and keeps more of a GPU busy. */
const tileChoices: readonly TileChoice[] = [
  { tile: { rows: 128, columns: 128, depth: 32, subgroupRows: 64, subgroupColumns: 64 }, rate: 288e12, splits: true },
  { tile: { rows: 128, columns: 64, depth: 32, subgroupRows: 64, subgroupColumns: 32 }, rate: 202e12, splits: true },
  { tile: { rows: 64, columns: 64, depth: 64, subgroupRows: 32, subgroupColumns: 32 }, rate: 190e12, splits: false },
];

/** Rows of f16 operands are filled up with zeros to whole tiles, of any shape. */
export const depthUnit = 64;

export const gemmTileShapes: readonly GemmTile[] = tileChoices.map(({ tile }) => tile);

/**
 * A large GPU, as measured: workgroups that it runs at once, two on each of 132 processors; the share of its speed that half of them reach; what adding up the parts of a split
 * costs: bytes a second, and a dispatch. WebGPU tells none of it; on smaller GPUs the choice is between tiles that are all full.
 */
const largeGpu = { slots: 264, half: 0.63, bytesPerSecond: 3.5e12, dispatchSeconds: 2e-6 } as const;
const mostSplits = 8;

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
  const fitting = tileChoices.filter(({ tile }) => {
    const threads = ((tile.rows * tile.columns) / (tile.subgroupRows * tile.subgroupColumns)) * subgroupSize;
    return gemmBytes(tile) <= limits.maxComputeWorkgroupStorageSize && threads <= limits.maxComputeInvocationsPerWorkgroup;
  });
  const candidates = fitting.flatMap((choice) =>
    splitsOf(shape, choice).map((splits) => ({ ...choice, splits, seconds: expectedSeconds(shape, choice, splits) })),
  );
  const best = candidates.sort((a, b) => a.seconds - b.seconds)[0];
  if (best === undefined) return undefined;
  const { tile, splits } = best;
  const parts = splits === 1 ? '' : ` in ${splits} parts of the depth`;
  const reason = `${shape.rows} rows: f16 matrices, tiles of ${tile.rows}x${tile.columns}${parts}; ${gemmTiles(shape, tile) * splits} workgroups`;
  return { tile, splits, subgroupSize, reason };
}

/** Powers of two that divide the depth's tiles. */
function splitsOf({ depth }: MatrixShape, { tile, splits }: TileChoice): number[] {
  const steps = roundUp(depth, depthUnit) / tile.depth;
  const all: number[] = [];
  for (let count = 1; count === 1 || (splits && count <= mostSplits && steps % count === 0); count *= 2) all.push(count);
  return all;
}

function expectedSeconds(shape: MatrixShape, { tile, rate }: TileChoice, splits: number): number {
  const tiles = gemmTiles(shape, tile);
  const operations = 2 * tiles * tile.rows * tile.columns * shape.depth;
  const partBytes = splits === 1 ? 0 : (2 * splits + 1) * shape.rows * shape.outputs * 4;
  const adding = splits === 1 ? 0 : partBytes / largeGpu.bytesPerSecond + largeGpu.dispatchSeconds;
  return operations / (rate * occupancy(tiles * splits)) + adding;
}

/** The share of its speed that a large GPU reaches with this many workgroups: the last round of them may leave processors idle. */
function occupancy(workgroups: number): number {
  const { slots, half } = largeGpu;
  const filled = workgroups / slots;
  if (filled > 1) return filled / Math.ceil(filled);
  return filled < 0.5 ? 2 * filled * half : half + (2 * filled - 1) * (1 - half);
}

/** Whether x needs no padding, so that its producer may leave it as f16. */
export function takesHalves(columns: number): boolean {
  return columns % depthUnit === 0;
}

/** Steps of `linear` by `choice`: x and each slab of the weight become f16, then they are multiplied. */
export function matrixSteps(node: LoweringNode<'linear'>, context: LoweringContext, choice: MatrixChoice): readonly Step<GpuKernel>[] {
  const [x, w] = [need(node.inputs[0]), need(node.inputs[1])];
  const { label, id } = node;
  const [rows = 0, columns = 0] = x.type.shape;
  const depth = roundUp(columns, depthUnit);
  const steps: Step<GpuKernel>[] = [];
  const made = madeHalves(x, context);
  const halves = made === undefined ? context.derived(x, `f16 ${depth}`, { dtype: 'f16', shape: [rows, depth] }) : { ref: made, fresh: false };
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
