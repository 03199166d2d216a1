/** Products of one token with f32 activations, as data: what is multiplied, and how it is laid out on a device. */

import { weightReader } from '../blocks.js';
import type { WeightLayout } from '../weights-layout.js';
import { matrixGroups, type ProductEnd } from './product.js';
import type { HalfDecode } from './product-text.js';

/** A matrix, or the rows of one that a binding holds. */
export interface FloatMatrix {
  readonly layout: WeightLayout;
  /** First element of the output (and of the residual) that the rows make. */
  readonly start: number;
  /** First element of the bias that they take. */
  readonly biasStart: number | undefined;
}

export interface FloatProblem {
  /** Columns of every matrix: a multiple of 4. */
  readonly depth: number;
  readonly matrices: readonly FloatMatrix[];
  /** eps of the norm in front. */
  readonly eps: number | undefined;
  readonly end: ProductEnd;
  /** Write f32 results. */
  readonly plain: boolean;
  /** Write the best (rank, index) of each workgroup, from this pair on. */
  readonly best: number | undefined;
}

export interface FloatShape {
  /** How the lanes of a team add up: a team is a subgroup of a known size, or adds in workgroup memory. */
  readonly adding: 'subgroup' | 'memory';
  /** Threads of a team: a power of 2. */
  readonly lanes: number;
  readonly teams: number;
  /** Rows of weights of a team; of both matrices together where gated. */
  readonly rows: number;
  /** Rows that a team reads side by side: `rows`, or a divisor of it, the rest one after the other. */
  readonly together: number;
  /** Teams that share the columns of a row; 1 where not `subgroup`. */
  readonly split: number;
  /** Steps whose loads are issued before the first is multiplied; 0: one after the other in a loop, for compilers that take long. */
  readonly ahead: number;
  /** Stage the activations in workgroup memory. */
  readonly staged: boolean;
  readonly halves: HalfDecode;
}

/** Results of a workgroup. */
export function floatOutputs(end: ProductEnd, { teams, rows, split }: Pick<FloatShape, 'teams' | 'rows' | 'split'>): number {
  return ((teams / split) * rows) / (end === 'gated' ? 2 : 1);
}

/** Weights of a type that a lane loads at once; activations are staged so that the lanes read them side by side. */
export function chunkOf(layout: WeightLayout): number {
  return weightReader(layout).chunk;
}

/** vec4 of the staged activations: one plane for each quad of a chunk, with one more element so that lanes that write a chunk hit different banks. */
export function stagedVectors(depth: number, chunk: number): number {
  return (chunk / 4) * (Math.ceil(depth / chunk) + 1);
}

export function floatBytes({ depth, matrices, end }: Pick<FloatProblem, 'depth' | 'matrices' | 'end'>, shape: FloatShape): number {
  const vectors = Math.max(...matrices.map(({ layout }) => stagedVectors(depth, chunkOf(layout))));
  return (shape.staged ? vectors * 16 : 0) + (sumsOf(end, shape) + shape.teams) * 4;
}

/** f32 of workgroup memory in which sums meet. */
export function sumsOf(end: ProductEnd, shape: FloatShape): number {
  const { adding, lanes, teams, rows, split } = shape;
  return adding === 'memory' ? (rows + 1) * lanes * teams : floatOutputs(end, shape) * split * (end === 'gated' ? 2 : 1);
}

export function floatGroups({ matrices, end }: Pick<FloatProblem, 'matrices' | 'end'>, shape: FloatShape): readonly number[] {
  return matrixGroups(end, matrices, floatOutputs(end, shape));
}
