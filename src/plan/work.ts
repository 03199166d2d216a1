/** What the steps of a plan move and compute, counted from shapes: what measured times are held against. */

import { elementCount } from '../core/tensor.js';
import type { GraphNode } from '../graph/graph.js';
import { isCompute } from '../ops/table.js';
import type { ExecutionPlan, PlannedStep } from './execution-plan.js';
import { isPacked, type PlanValue } from './plan-value.js';

export interface StepWork {
  /** Bytes that the step has to read and to write, each once. */
  readonly bytes: number;
  /** Multiplications and additions of products and attention; 0 for other operations. */
  readonly flops: number;
}

/** How much of a plan's size a run uses. */
export interface LiveRun {
  /** Rows that are not padding. */
  readonly rows: number;
  /** Positions that a cache holds once the run has written its own. */
  readonly positions: number;
}

/** The work of every step, in order. Without `live` caches and tables count as a whole. An operation's flops are counted at the step that moves the most of its bytes. */
export function planWork(plan: ExecutionPlan<unknown>, live?: LiveRun): readonly StepWork[] {
  const bytes = plan.steps.map((step) => stepBytes(plan, step, live));
  const heaviest = new Map<number, number>();
  plan.steps.forEach(({ node }, index) => {
    if ((bytes[index] ?? 0) > (bytes[heaviest.get(node) ?? -1] ?? -1)) heaviest.set(node, index);
  });
  return plan.steps.map(({ node }, index) => {
    const counted = heaviest.get(node) === index ? plan.graph.nodes[node] : undefined;
    return { bytes: bytes[index] ?? 0, flops: counted === undefined ? 0 : nodeFlops(plan, counted, live) };
  });
}

function stepBytes(plan: ExecutionPlan<unknown>, { node, args }: PlannedStep<unknown>, live: LiveRun | undefined): number {
  const op = plan.graph.nodes[node]?.op;
  return args.reduce((sum, { value, access, location }) => {
    const planned = plan.values.get(value);
    const times = access === 'readwrite' && location.storage === 'arena' ? 2 : 1;
    const part = planned === undefined || live === undefined ? 1 : usedPart(planned, op, access !== 'read', live);
    return sum + location.byteLength * times * part;
  }, 0);
}

/** The part of a value that a step touches: caches [heads, positions, width] up to the position, tables the rows that are gathered. */
function usedPart({ type, storage }: PlanValue, op: GraphNode['op'] | undefined, written: boolean, { rows, positions }: LiveRun): number {
  if (storage === 'state' && type.shape.length === 3) return Math.min(1, (written && op === 'cacheWrite' ? rows : positions) / (type.shape[1] ?? 1));
  const table = op === 'gatherRows' ? type.shape.length === 2 : (op === 'rope' || op === 'attendToken') && type.shape.length === 3;
  return storage === 'param' && table ? Math.min(1, rows / (type.shape[0] ?? 1)) : 1;
}

/** Two for each weight and row, two for each score and as many for its use. */
function nodeFlops({ graph, values }: ExecutionPlan<unknown>, node: GraphNode, live: LiveRun | undefined): number {
  if (!isCompute(node.op)) return 0;
  const inputs = node.inputs.flatMap((id) => graph.nodes[id] ?? []);
  const weights = inputs.filter(({ id, type }) => values.get(id)?.storage === 'param' && isPacked(type));
  switch (node.op) {
    case 'linear':
    case 'tokenLinear':
    case 'qkv':
    case 'gatedProduct': {
      const rows = Math.min(live?.rows ?? Number.POSITIVE_INFINITY, node.type.shape[0] ?? 1);
      return weights.reduce((sum, { type }) => sum + 2 * rows * elementCount(type.shape), 0);
    }
    case 'matmul': {
      const a = inputs[0]?.type.shape ?? [];
      return 2 * elementCount(node.type.shape) * ((node.params.transposeA ? a.at(-2) : a.at(-1)) ?? 1);
    }
    case 'attention':
    case 'attendToken':
      return attentionFlops(node, inputs, live);
    default:
      return 0;
  }
}

/** Rows see the positions before them and their own: all but half of the rows on the average. */
function attentionFlops(node: GraphNode, inputs: readonly GraphNode[], live: LiveRun | undefined): number {
  const cache = inputs[node.op === 'attention' ? 1 : 0]?.type.shape ?? [];
  const rows = Math.min(live?.rows ?? Number.POSITIVE_INFINITY, node.type.shape[0] ?? 1);
  const width = elementCount(node.type.shape) / (node.type.shape[0] ?? 1);
  return 4 * rows * width * Math.max(1, (live?.positions ?? cache[1] ?? 0) - (rows - 1) / 2);
}
