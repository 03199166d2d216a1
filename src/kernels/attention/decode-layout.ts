/** How a workgroup of decode attention shares its heads, positions and columns among its threads: what the text of the kernel is made from. */

import { type CacheReader, cacheReader } from './cache-reader.js';
import { type AttentionProblem, reachOf } from './text.js';

export interface DecodeShape {
  readonly threads: number;
  /** Positions of a workgroup. */
  readonly split: number;
  /** Query heads of a workgroup; all read one KV head. */
  readonly groupHeads: number;
  /** Threads that share a score: a power of two. More than 1 needs subgroups of at least that size. */
  readonly lanes: number;
  /** Workgroups that share the columns of the values; more than 1 only where `direct`. */
  readonly slices: number;
  /** Subgroup size where it is the only one that the device has, else 0: then rows are added in registers first. */
  readonly subgroupSize: number;
  readonly direct: boolean;
}

/** Everything that the text needs, derived once. */
export interface DecodeLayout {
  readonly problem: AttentionProblem;
  readonly shape: DecodeShape;
  readonly keyChunks: CacheReader;
  readonly valueChunks: CacheReader;
  /** Width of the f32 vectors, the same for query, keys and values. */
  readonly vector: 1 | 2 | 4;
  /** Vectors of a head. */
  readonly headVectors: number;
  /** Chunks of a row of keys. */
  readonly keyRow: number;
  readonly valueRow: number;
  /** Chunks of a row of values within a slice. */
  readonly sliceRow: number;
  /** Vectors of a row of values within a slice. */
  readonly sliceVectors: number;
  /** Rows of values that the workgroup takes at a time. */
  readonly valueRows: number;
  /** Rows of partial sums after those of a subgroup are added in registers. */
  readonly sumRows: number;
  readonly folded: boolean;
  /** Threads of a head that work on its weights. */
  readonly team: number;
  /** Heads whose rows are added at a time. */
  readonly roundHeads: number;
  /** Vectors of the workgroup array that holds the query first and rows of sums later. */
  readonly pool: number;
}

export function layoutOf(problem: AttentionProblem, shape: DecodeShape): DecodeLayout {
  const { width } = problem;
  const [keyChunks, valueChunks] = [cacheReader(problem, 'keys', 16), cacheReader(problem, 'values', 8)];
  const vector = width % 4 === 0 ? 4 : width % 2 === 0 ? 2 : 1;
  const headVectors = width / vector;
  const [keyRow, valueRow] = [width / keyChunks.elements, width / valueChunks.elements];
  const sliceRow = valueRow / shape.slices;
  const size = shape.subgroupSize;
  const folded = size > sliceRow && Number.isInteger(Math.log2(sliceRow)) && shape.threads % size === 0;
  const valueRows = Math.floor(shape.threads / sliceRow);
  const sumRows = folded ? shape.threads / size : valueRows;
  const sliceVectors = headVectors / shape.slices;
  const room = Math.max(shape.groupHeads * headVectors, sumRows * sliceVectors);
  return {
    problem,
    shape,
    keyChunks,
    valueChunks,
    vector,
    headVectors,
    keyRow,
    valueRow,
    sliceRow,
    sliceVectors,
    valueRows,
    sumRows,
    folded,
    team: Math.min(Math.floor(shape.threads / shape.groupHeads), 2 ** Math.ceil(Math.log2(shape.split) / 2)),
    roundHeads: Math.min(shape.groupHeads, Math.floor(room / (sumRows * sliceVectors))),
    pool: room,
  };
}

/** Bytes of workgroup memory that a shape takes. */
export function decodeBytes(problem: AttentionProblem, shape: DecodeShape): number {
  const { pool, vector, team } = layoutOf(problem, shape);
  return (pool * vector + shape.groupHeads * shape.split + 2 * shape.groupHeads * team) * 4;
}

export function decodeSplits(problem: AttentionProblem, shape: DecodeShape): number {
  return Math.ceil(reachOf(problem) / shape.split);
}
