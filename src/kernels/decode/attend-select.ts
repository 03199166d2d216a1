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
 * Shapes for a short window, the fastest first. A lane loads all keys that it multiplies at once, 16 of them where that does not take too many subgroups, else 32: a second step costs as much as the
 * first, however few positions it has. What the scores do not take from a head's columns is shared by slices, which compute the scores each for themselves; a slice has at least 32 columns, and no
 * fewer than a subgroup has lanes (a lane's 8 sums are shared by at most 8 rows). Where keys do not fit, 16 subgroups and as many workgroups as slices walk over them.
 */
function attendShapes({ window, width, heads }: AttendProblem, capabilities: GpuCapabilities): readonly AttendShape[] {
  const subgroupSize = capabilities.subgroupMinSize;
  const room = Math.floor(capabilities.limits.maxComputeInvocationsPerWorkgroup / subgroupSize);
  const slices = Math.max(1, Math.min(4, width / Math.max(32, subgroupSize)));
  // Lanes of a row of keys: as many keys can be added up at least.
  const rowLanes = width / 8;
  const needed = (keys: number): number => Math.ceil((window * rowLanes) / (subgroupSize * keys));
  const walking = Math.max(16, rowLanes);
  // Fewer than four subgroups leave a workgroup's latency bare.
  const held = needed(walking) < 4 ? rowLanes : walking;
  // More subgroups pay where many heads make many workgroups, and where their keys leave registers for them.
  const most = Math.min(room, heads >= 32 && held <= 16 ? 20 : 12);
  return [
    ...(needed(held) <= most ? [{ subgroupSize, slices: Math.min(2, slices), subgroups: needed(held), unroll: held }] : []),
    ...(subgroupSize >= 32 && width === 128 && needed(32) <= Math.min(12, room) ? [{ subgroupSize, slices, subgroups: needed(32), unroll: 32 }] : []),
    { subgroupSize, slices, subgroups: Math.min(16, room), unroll: walking },
  ];
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
