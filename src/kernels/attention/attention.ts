/** Which attention kernel a problem gets, and the lowering rule. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import { UnsupportedError } from '../../core/errors.js';
import type { GpuKernel } from '../../core/kernel.js';
import type { StepArg } from '../../core/step.js';
import { need } from '../../ops/definition.js';
import type { LoweringNode, LoweringRule } from '../../ops/target.js';
import { halvesOf, wantsHalves } from '../matrix/form.js';
import { arg, oneStep, subgroupRange, vectorWidth } from '../template.js';
import { cacheType } from './cache.js';
import { cacheReader } from './cache-reader.js';
import { attentionDecodeKernel } from './decode.js';
import { type DecodeShape, decodeBytes, decodeSplits } from './decode-layout.js';
import { attentionMergeKernel } from './decode-merge.js';
import { attentionMatrixKernel, selectMatrixAttention } from './matrix.js';
import { attentionPrefillKernel, type PrefillShape, prefillBytes } from './prefill.js';
import { type AttentionProblem, attentionReads, reachOf } from './text.js';

/** Positions that a row may see up to which one dispatch without partial sums is faster than two. */
const directCapacity = 1024;

/** Positions of a split by those that a row may see: a fixed length, so that results do not depend on the number of processors. */
function splitLength(reach: number): number {
  if (reach <= 8192) return 128;
  return reach <= 32_768 ? 256 : 512;
}

function largestDivisor(count: number, most: number): number {
  for (let divisor = Math.min(count, most); divisor > 1; divisor--) if (count % divisor === 0) return divisor;
  return 1;
}

/** Threads that share a score: 4 neighbours read 64 bytes of a row together, which is what one memory transaction moves. */
function scoreLanes(problem: AttentionProblem, capabilities: GpuCapabilities): number {
  if (!capabilities.subgroups) return 1;
  const chunks = problem.width / cacheReader(problem, 'keys', 16).elements;
  return [4, 2].find((lanes) => chunks % lanes === 0 && lanes <= capabilities.subgroupMinSize) ?? 1;
}

export function selectDecode(problem: AttentionProblem, capabilities: GpuCapabilities): { readonly shape: DecodeShape; readonly reason: string } {
  const { maxComputeInvocationsPerWorkgroup: invocations, maxComputeWorkgroupStorageSize: bytes } = capabilities.limits;
  const reach = reachOf(problem);
  const direct = reach <= directCapacity;
  const ratio = problem.heads / problem.kvHeads;
  const threads = Math.min(256, invocations);
  const { subgroupMinSize: min, subgroupMaxSize: max } = capabilities;
  const fixed = { threads, lanes: scoreLanes(problem, capabilities), slices: 1, subgroupSize: capabilities.subgroups && min === max ? min : 0, direct };
  const split = direct ? reach : splitLength(reach);
  let groupHeads = direct ? 1 : largestDivisor(ratio, 8);
  while (groupHeads > 1 && decodeBytes(problem, { ...fixed, split, groupHeads }) > bytes) groupHeads = largestDivisor(ratio, groupHeads - 1);
  const shape = { ...fixed, split, groupHeads };
  const vectors = problem.width / vectorWidth(problem.width);
  if (vectors > threads || decodeBytes(problem, shape) > bytes)
    throw new UnsupportedError(`attention with heads of ${problem.width} elements needs more than ${threads} threads or ${bytes} bytes of workgroup memory`);
  const what = problem.window === undefined ? `a capacity of ${reach}` : `a window of ${reach}`;
  const how = direct ? `one dispatch for ${what}` : `splits of ${split} positions and a merge for ${what}`;
  return {
    shape,
    reason: `${how}; ${groupHeads} of ${ratio} query heads share the loads; ${fixed.lanes > 1 ? `${fixed.lanes} lanes a score` : 'no subgroups'}`,
  };
}

/** Tile shapes from the best to the poorest device. */
const prefillTiles = [
  { tileRows: 64, tileKeys: 64, slice: 32 },
  { tileRows: 64, tileKeys: 64, slice: 16 },
  { tileRows: 32, tileKeys: 32, slice: 32 },
  { tileRows: 32, tileKeys: 32, slice: 16 },
  { tileRows: 16, tileKeys: 32, slice: 16 },
] as const;

export function selectPrefill(problem: AttentionProblem, capabilities: GpuCapabilities): { readonly shape: PrefillShape; readonly reason: string } {
  const { maxComputeInvocationsPerWorkgroup: invocations, maxComputeWorkgroupStorageSize: bytes } = capabilities.limits;
  const rows = (problem.rows * problem.heads) / problem.kvHeads;
  for (const [index, tile] of prefillTiles.entries()) {
    const shape = { ...tile, shuffles: capabilities.subgroups && capabilities.subgroupMinSize >= tile.tileKeys / 4 };
    const smaller = prefillTiles.slice(index + 1).some((other) => other.tileRows < tile.tileRows);
    if (smaller && rows <= tile.tileRows / 2) continue;
    if ((tile.tileRows * tile.tileKeys) / 16 > invocations || prefillBytes(problem, shape) > bytes) continue;
    const how = shape.shuffles ? 'row maxima by shuffles' : 'row maxima through workgroup memory';
    return { shape, reason: `tiles of ${tile.tileRows} rows and ${tile.tileKeys} keys fit ${bytes} bytes of workgroup memory; ${how}` };
  }
  throw new UnsupportedError(`attention with heads of ${problem.width} elements needs more than the device's ${bytes} bytes of workgroup memory`);
}

/** What a node asks of a kernel. */
export function attentionProblem(node: LoweringNode<'attention'>): AttentionProblem {
  const [q, keys, values] = [need(node.inputs[0]), need(node.inputs[1]), need(node.inputs[2])];
  const [rows = 0, heads = 0, width = 0] = q.type.shape;
  const [kvHeads = 0, capacity = 0] = keys.type.shape;
  return {
    rows,
    heads,
    kvHeads,
    width,
    capacity,
    keys: cacheType('the key cache', keys.type),
    values: cacheType('the value cache', values.type),
    ...node.params,
    sinks: node.inputs.length > 4,
  };
}

/** What a kernel reads, in the order of its bindings: a cache in planes is bound twice, for its bytes and for its scales. */
export function attentionArgs({ inputs }: LoweringNode<'attention'>): readonly StepArg[] {
  return inputs.flatMap((input) => (input.type.dtype === 'q8_planes' ? [arg(input, 'read'), arg(input, 'read')] : [arg(input, 'read')]));
}

/** `leastMatrixRows`: rows (of tokens, times query heads of a KV head) from which f16 matrices are used, where the device has them. */
export function attentionRule(
  capabilities: GpuCapabilities,
  { leastMatrixRows }: { readonly leastMatrixRows?: number } = {},
): LoweringRule<'attention', GpuKernel> {
  return (node, context) => {
    const problem = attentionProblem(node);
    const inputs = attentionArgs(node);
    const shared = inputs.slice(0, attentionReads({ ...problem, sinks: false }));
    if (problem.rows > 1) {
      const matrix = selectMatrixAttention(problem, capabilities, leastMatrixRows);
      const half = matrix !== undefined && wantsHalves(context);
      const kernel =
        matrix === undefined ? attentionPrefillKernel(problem, selectPrefill(problem, capabilities).shape) : attentionMatrixKernel(problem, matrix.shape, half);
      return oneStep(node, kernel, [...inputs, arg(half ? halvesOf(node.output, context) : node.output, 'write')]);
    }
    const { shape } = selectDecode(problem, capabilities);
    const kernel = attentionDecodeKernel(problem, shape);
    if (shape.direct) return oneStep(node, kernel, [...inputs, arg(node.output, 'write')]);
    const splits = decodeSplits(problem, shape);
    const partials = context.scratch({ dtype: 'f32', shape: [splits, problem.heads, problem.width] });
    const stats = context.scratch({ dtype: 'f32', shape: [splits, problem.heads, 2] });
    const merge = attentionMergeKernel(problem, shape, subgroupRange(capabilities));
    return [
      { label: node.label, node: node.id, kernel, args: [...shared, arg(partials, 'write'), arg(stats, 'write')] },
      {
        label: `${node.label} merge`,
        node: node.id,
        kernel: merge,
        args: [arg(partials, 'read'), arg(stats, 'read'), ...inputs.slice(shared.length - 1), arg(node.output, 'write')],
      },
    ];
  };
}
