/** Which fused attention of one token a problem gets, and why not: pure functions of shapes and capabilities. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { TensorType } from '../../core/tensor.js';
import { attendTokenShape } from '../../ops/decode.js';
import type { OpParams } from '../../ops/params.js';
import { refuseSubgroups } from './activations.js';
import { type AttendShape, attendBytes, attendRounds } from './attend.js';
import { type SplitShape, splitBytes, splitStep } from './attend-split.js';
import { type AttendProblem, fitsLanes } from './attend-text.js';

/** The attention of a node, or a reason why the device has no fused one. */
export function attendProblem(types: readonly TensorType[], params: OpParams['attendToken'], capabilities: GpuCapabilities): AttendProblem | string {
  const [keys, values, , angles] = types;
  const unable = refuseSubgroups(capabilities);
  if (unable !== undefined) return unable;
  const { heads, kvHeads, width, capacity } = attendTokenShape(types);
  if (keys?.dtype !== 'f16' || values?.dtype !== 'f16') return 'the caches are not f16';
  if (!fitsLanes(width, capabilities.subgroupMinSize)) return `heads of ${width} do not fit lanes of 8 elements`;
  const [positions = 0, half = 0] = angles?.shape ?? [];
  if (half * 2 !== width) return 'only a part of each head turns';
  const { window, pairing, eps, scale } = params;
  return { heads, kvHeads, width, capacity, window, positions, pairing, eps, scale };
}

/** Windows up to here are one dispatch: all scores of a head fit one workgroup, and reading its keys once for every query head still costs less than a second dispatch. */
const shortWindow = 1024;

/** Values that a lane has in registers at most. */
const mostRounds = 16;

/** One dispatch for short windows: undefined where the window is long, or its scores or values do not fit. Shapes were measured on an H200 (bench/attention). */
export function selectAttend(problem: AttendProblem, capabilities: GpuCapabilities): AttendShape | undefined {
  if (problem.window > shortWindow) return undefined;
  const { maxComputeWorkgroupStorageSize: bytes } = capabilities.limits;
  return attendShapes(problem, capabilities).find(
    (shape) =>
      attendRounds(problem, shape) <= mostRounds &&
      shape.subgroups * shape.subgroupSize >= problem.width / shape.slices &&
      attendBytes(problem, shape) <= bytes,
  );
}

/**
 * Shapes for a short window, the fastest first. Slices have at least 32 columns, and no fewer than a subgroup has lanes (a lane's 8 sums are shared by at most 8 rows). Up to 768 positions about 64
 * workgroups hold all keys of a head in registers, in more registers rather than more subgroups: a second step costs as much as the first, however few positions it has. Beyond it there are as many
 * workgroups as slices.
 */
function attendShapes({ window, width, heads }: AttendProblem, capabilities: GpuCapabilities): readonly AttendShape[] {
  const subgroupSize = capabilities.subgroupMinSize;
  const room = Math.floor(capabilities.limits.maxComputeInvocationsPerWorkgroup / subgroupSize);
  const most = Math.max(1, Math.min(4, width / Math.max(32, subgroupSize)));
  const few = Math.min(most, 2 ** Math.max(0, Math.ceil(Math.log2(64 / heads))));
  const unroll = Math.max(16, width / 8);
  const shape = (slices: number, subgroups: number, keys = unroll): AttendShape => ({
    subgroupSize,
    slices,
    subgroups: Math.min(subgroups, room),
    unroll: keys,
  });
  const short = shape(few, width / few > 32 ? 16 : 8);
  const long = shape(most, 16);
  if (window <= shortWindow / 2) return [short];
  const keys = subgroupSize >= 32 && width === 128 ? 32 : unroll;
  const needed = Math.ceil((window * width) / (8 * subgroupSize * keys));
  return needed <= Math.min(12, room) ? [shape(few, needed, keys), long] : [long];
}

/** Windows from which loads, not latency, take the time: then each key serves more query heads, and fewer workgroups with more loads in flight each share the cache. */
const streamWindow = 8192;

/** Two dispatches for long windows: the positions that there are, whatever their number, are shared by the same workgroups. Shapes were measured on an H200 (bench/attention). */
export function selectSplit(problem: AttendProblem, capabilities: GpuCapabilities): SplitShape {
  const { heads, kvHeads, width, window } = problem;
  const size = capabilities.subgroupMinSize;
  const { maxComputeInvocationsPerWorkgroup: invocations, maxComputeWorkgroupStorageSize: bytes } = capabilities.limits;
  const streams = window > streamWindow;
  const ratio = heads / kvHeads;
  let groupHeads = largestDivisor(ratio, streams ? 4 : Math.min(4, ratio / 2));
  let subgroups = Math.min(4, Math.floor(invocations / size));
  const shape = (splits: number): SplitShape => {
    return { subgroupSize: size, subgroups, unroll: streams ? 8 : 4, groupHeads, splits, ahead: streams || groupHeads * width <= 256 };
  };
  while (splitBytes(problem, shape(1)) > bytes && subgroups * groupHeads > 1) {
    if (subgroups > 1) subgroups = Math.floor(subgroups / 2);
    else groupHeads = largestDivisor(ratio, groupHeads - 1);
  }
  const parts = streams ? ratio / groupHeads : 1;
  const wanted = Math.min(64, 256 / (kvHeads * parts), window / splitStep(problem, shape(1)));
  return shape(2 ** Math.floor(Math.log2(Math.max(1, wanted))));
}

function largestDivisor(count: number, most: number): number {
  for (let divisor = Math.floor(Math.min(count, most)); divisor > 1; divisor--) if (count % divisor === 0) return divisor;
  return 1;
}
