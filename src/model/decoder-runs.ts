/** Which runs a decoder may plan: their rows, their windows, and the graph of each, fused where the backend wants it. */

import { ArgumentError } from '../core/errors.js';
import type { TensorType } from '../core/tensor.js';
import type { Graph } from '../graph/graph.js';
import { type RewriteEntry, type RewriteResult, rewrite } from '../graph/rewrite.js';
import { type Refusal, rewriteDecode } from '../graph/rewrite-decode.js';
import type { BackendKind } from '../runtime/backend.js';
import type { DecoderConfig } from './decoder-config.js';
import { type CacheType, decoderGraph } from './decoder-graph.js';

export interface DecoderOptions {
  /** Positions of the KV cache. */
  readonly contextLength: number;
  readonly cacheType: CacheType;
  /** Most prompt tokens in one run. */
  readonly prefillChunk: number;
}

/** Up to `rows` rows at positions below `window`; its graph is made when it is asked for. */
export class DecoderRun {
  readonly rows: number;
  readonly window: number;
  readonly #describe: () => RewriteResult;
  #described: RewriteResult | undefined;

  constructor(rows: number, window: number, describe: () => RewriteResult) {
    this.rows = rows;
    this.window = window;
    this.#describe = describe;
  }

  get graph(): Graph {
    return this.#result().graph;
  }

  get report(): readonly RewriteEntry[] {
    return this.#result().report;
  }

  #result(): RewriteResult {
    this.#described ??= this.#describe();
    return this.#described;
  }
}

/** Positions below which a decode step has kernels of its own where the backend has fused ones: the work of one-dispatch attention grows with its window, not with the position. */
export const shortWindows: readonly number[] = [128, 256, 384, 512, 640, 768, 1024];

/** Every run that a decoder may plan, by rows and then by window, smallest first. */
export function decoderRuns(
  kind: BackendKind,
  config: DecoderConfig,
  weights: ReadonlyMap<string, TensorType>,
  options: DecoderOptions,
  refuses?: Refusal,
): readonly DecoderRun[] {
  const sizes = runSizes(kind, options);
  const maxRows = sizes.at(-1) ?? 1;
  const { contextLength } = options;
  const describe = (rows: number): RewriteResult => rewrite(decoderGraph(config, weights, { ...options, rows, maxRows, logits: 'next' }));
  const prefill = sizes.slice(1).map((rows) => new DecoderRun(rows, contextLength, () => describe(rows)));
  if (refuses === undefined) return [new DecoderRun(1, contextLength, () => describe(1)), ...prefill];
  const plain = describe(1);
  const last = new DecoderRun(1, contextLength, () => fused(plain, refuses, contextLength));
  const short = shortWindows.filter((window) => window < contextLength).map((window) => new DecoderRun(1, window, () => within(last, window)));
  const decode = [...short, last];
  // Without the fused attention a step is the same at every position.
  const attends = last.graph.nodes.some((node) => node.op === 'attendToken');
  return [...(attends ? decode : decode.slice(-1)), ...prefill];
}

/** The runs whose activations get their memory at once: the decode step and the largest run. Others share it, or get their own when they are first needed. */
export function runsAtLoad(runs: readonly DecoderRun[]): readonly DecoderRun[] {
  return runs.length < 2 ? runs : [...runs.slice(0, 1), ...runs.slice(-1)];
}

/** The smallest run that takes `rows` rows at a position. */
export function runFor(runs: readonly DecoderRun[], rows: number, position: number): DecoderRun {
  const run = runs.find((candidate) => candidate.rows >= rows && position < candidate.window);
  if (run !== undefined) return run;
  throw new ArgumentError(
    'rows',
    `the largest run takes ${runs.at(-1)?.rows ?? 0} rows at positions below ${runs.at(-1)?.window ?? 0}, got ${rows} at ${position}`,
  );
}

/** Tokens ahead of which the kernels of a decode step are compiled: some tenths of a second of a fast device, whose driver takes one or two for a kernel that it has not seen. */
const compileAhead = 512;

/** The decode steps that the next `left` tokens from `position` on come to, as far ahead as they are worth compiling. */
export function stepsAhead(runs: readonly DecoderRun[], position: number, left: number): readonly DecoderRun[] {
  const end = position + Math.min(left, compileAhead);
  return runs.filter(({ rows, window }, i) => rows === 1 && position < window && (runs[i - 1]?.window ?? 0) < end);
}

function fused(plain: RewriteResult, refuses: Refusal, window: number): RewriteResult {
  const { graph, report } = rewriteDecode(plain.graph, refuses, window);
  return { graph, report: [...plain.report, ...report] };
}

/** The same step at positions below a window alone: all other nodes stay the same objects. */
function within({ graph, report }: DecoderRun, window: number): RewriteResult {
  const nodes = graph.nodes.map((node) => (node.op === 'attendToken' ? { ...node, params: { ...node.params, window } } : node));
  return { graph: { ...graph, nodes }, report };
}

/**
 * Row counts of the runs: 1 to decode, then steps up to the chunk. A run computes all its rows, so finer steps waste less; each has kernels of its own, which cost a GPU time to compile
 * and a CPU none.
 */
function runSizes(kind: BackendKind, { prefillChunk, contextLength }: DecoderOptions): number[] {
  const largest = Math.min(prefillChunk, contextLength);
  const ratio = kind === 'cpu' ? 2 : 4;
  const sizes = new Set([1]);
  for (let rows = 8; rows < largest; rows *= ratio) sizes.add(rows);
  return [...sizes, ...(largest > 1 ? [largest] : [])];
}
