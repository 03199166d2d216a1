/** y = x W^T with W [N, K], for any number of rows of x: which kernel, and the steps that run it. */

import type { GpuCapabilities } from '../core/capabilities.js';
import { PlanError } from '../core/errors.js';
import type { GpuKernel } from '../core/kernel.js';
import type { Step, StepArg } from '../core/step.js';
import type { LoweringNode, LoweringRule, RowShard } from '../ops/target.js';
import type { LinearProblem } from './linear-text.js';
import { type MatmulTile, matmulKernel, tileBytes, tileSize } from './matmul.js';
import { type MatrixChoice, matrixSteps, selectMatrix } from './matrix/linear.js';
import { type MatvecShape, matvecKernel } from './matvec.js';
import { arg } from './template.js';
import { weightLayout } from './weights-layout.js';

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

/** `leastMatrixRows`: rows from which f16 matrices are used, where the device has them. */
export function linearRule(capabilities: GpuCapabilities, { leastMatrixRows }: { readonly leastMatrixRows?: number } = {}): LoweringRule<'linear', GpuKernel> {
  return (node, context) => {
    const choice = matrixChoice(node, capabilities, leastMatrixRows);
    return choice === undefined ? linearSteps(node, (problem) => linearKernel(problem, capabilities)) : matrixSteps(node, context, choice);
  };
}

/** Products with weights that f16 holds as well as their own type does. */
function matrixChoice(node: LoweringNode<'linear'>, capabilities: GpuCapabilities, leastRows?: number): MatrixChoice | undefined {
  const [x, w] = [node.inputs[0], node.inputs[1]];
  const [rows = 0, depth = 0] = x?.type.shape ?? [];
  if (node.params.rounded !== true || w === undefined || w.type.dtype === 'f32') return undefined;
  return selectMatrix({ rows, outputs: w.type.shape[0] ?? 0, depth }, capabilities, leastRows);
}

/** One step for each shard of the weight, with the kernel that `kernelFor` makes; each writes its columns of y. */
export function linearSteps(node: LoweringNode<'linear'>, kernelFor: (problem: LinearProblem) => GpuKernel): readonly Step<GpuKernel>[] {
  const { inputs, output, params, label, id } = node;
  const [x, w, ...rest] = inputs;
  if (x === undefined || w === undefined) throw new PlanError(`${label}: linear needs x and a weight`);
  const [rows = 0, outputs = 0] = output.type.shape;
  const others = rest.map((ref) => arg(ref, 'read'));
  return w.shards.map((shard, index): Step<GpuKernel> => {
    const layout = weightLayout({ dtype: w.type.dtype, shape: [shard.rows, ...w.type.shape.slice(1)] });
    const problem: LinearProblem = { layout, start: shard.start, outputs, rows, bias: params.bias, residual: params.residual ? 'read' : 'none' };
    const args: readonly StepArg[] = [arg(x, 'read'), { value: w.id, shard: index, access: 'read' }, ...others, arg(output, 'write')];
    const step = { label: stepLabel(label, w.shards, index), node: id, kernel: kernelFor(problem), args };
    // With several shards y would have to be in place in every step or in none, which one step cannot promise for the others.
    if (!params.residual || w.shards.length > 1) return step;
    return { ...step, inPlace: { input: args.length - 2, output: args.length - 1, kernel: kernelFor({ ...problem, residual: 'inPlace' }) } };
  });
}

function stepLabel(label: string, shards: readonly RowShard[], index: number): string {
  return shards.length === 1 ? label : `${label} (rows ${shards[index]?.start} on)`;
}
