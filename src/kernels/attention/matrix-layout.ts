/** How a workgroup's subgroups, threads and memory are shared out in attention on subgroup matrices. */

import { matrixSize } from '../matrix/gemm.js';
import { repeat } from '../template.js';
import type { AttentionProblem } from './text.js';

export interface MatrixAttentionShape {
  readonly tileRows: number;
  readonly tileKeys: number;
  /** How the subgroups share the scores (rows, keys) and the output (rows, columns). */
  readonly scores: readonly [number, number];
  readonly output: readonly [number, number];
  readonly subgroupSize: number;
}

export interface MatrixAttentionLayout {
  readonly subgroups: number;
  readonly threads: number;
  /** Pieces of 16 bytes in a head, and strides of rows in workgroup memory: of keys and values, scores, P. */
  readonly pieces: number;
  readonly keyStride: number;
  readonly scoreStride: number;
  readonly weightStride: number;
  /** Where values, scores and P begin in workgroup memory, and its size, in pieces. */
  readonly valuesAt: number;
  readonly scoresAt: number;
  readonly weightsAt: number;
  readonly size: number;
  /** Matrices of a subgroup: scores down and across, output down and across. */
  readonly si: number;
  readonly sj: number;
  readonly oi: number;
  readonly oj: number;
  /** Matrices along the head and along the keys of a tile. */
  readonly headSteps: number;
  readonly keySteps: number;
  /** Threads of a row of scores, and chunks of 8 scores that each of them has. */
  readonly lanes: number;
  readonly chunks: number;
  /** Pieces of keys (and of values) that a thread moves for a tile. */
  readonly moves: number;
}

export function matrixAttentionLayout(
  { width }: AttentionProblem,
  { tileRows, tileKeys, scores, output, subgroupSize }: MatrixAttentionShape,
): MatrixAttentionLayout {
  const subgroups = scores[0] * scores[1];
  const threads = subgroups * subgroupSize;
  const pieces = width / 8;
  const [keyStride, scoreStride, weightStride] = [pieces + 1, tileKeys / 4 + 2, tileKeys / 8 + 1];
  const valuesAt = tileKeys * keyStride;
  const scoresAt = 2 * valuesAt;
  const weightsAt = scoresAt + tileRows * scoreStride;
  const lanes = threads / tileRows;
  return {
    subgroups,
    threads,
    pieces,
    keyStride,
    scoreStride,
    weightStride,
    valuesAt,
    scoresAt,
    weightsAt,
    size: weightsAt + tileRows * weightStride,
    si: tileRows / scores[0] / matrixSize,
    sj: tileKeys / scores[1] / matrixSize,
    oi: tileRows / output[0] / matrixSize,
    oj: width / output[1] / matrixSize,
    headSteps: width / matrixSize,
    keySteps: tileKeys / matrixSize,
    lanes,
    chunks: tileKeys / lanes / 8,
    moves: Math.ceil((tileKeys * pieces) / threads),
  };
}

/** Bytes of workgroup memory that a shape takes. */
export function matrixAttentionBytes(problem: AttentionProblem, shape: MatrixAttentionShape): number {
  return matrixAttentionLayout(problem, shape).size * 16 + shape.tileRows * 4 + 4;
}

/** Lines for n x m matrices. */
export const grid = (n: number, m: number, line: (i: number, j: number) => string, separator = '\n'): string =>
  repeat(n, (i) => repeat(m, (j) => line(i, j), separator), separator);

/** Distances at which `count` neighbours, a power of two, exchange values to reduce them. */
export const laneSteps = (count: number): number[] => Array.from({ length: Math.log2(count) }, (_, i) => 2 ** i);
