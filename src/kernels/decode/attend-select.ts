/** Which fused attention of one token a problem gets, and why not: pure functions of shapes and capabilities. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { TensorType } from '../../core/tensor.js';
import { attendTokenShape } from '../../ops/decode.js';
import type { OpParams } from '../../ops/params.js';
import { packsActivations } from './activations.js';
import { type AttendShape, attendBytes } from './attend.js';
import { type SplitShape, splitBytes, splitStep } from './attend-split.js';
import { type AttendProblem, fitsLanes } from './attend-text.js';

/** The attention of a node, or a reason why the device has no fused one. */
export function attendProblem(types: readonly TensorType[], params: OpParams['attendToken'], capabilities: GpuCapabilities): AttendProblem | string {
  const [keys, values, , angles] = types;
  const unable = packsActivations(capabilities);
  if (unable !== undefined) return unable;
  const { heads, kvHeads, width, capacity } = attendTokenShape(types);
  if (keys?.dtype !== 'f16' || values?.dtype !== 'f16') return 'the caches are not f16';
  if (!fitsLanes(width, capabilities.subgroupMinSize)) return `heads of ${width} do not fit lanes of 8 elements`;
  const [positions = 0, half = 0] = angles?.shape ?? [];
  if (half * 2 !== width) return 'only a part of each head turns';
  const { window, pairing, eps, scale } = params;
  return { heads, kvHeads, width, capacity, window, positions, pairing, eps, scale };
}

/** Windows up to here are one dispatch: all scores of a head fit one workgroup. */
export const shortWindow = 512;

/** One dispatch for short windows: undefined where the window is long or the scores do not fit. */
export function selectAttend(problem: AttendProblem, capabilities: GpuCapabilities): AttendShape | undefined {
  if (problem.window > shortWindow) return undefined;
  const size = capabilities.subgroupMinSize;
  const { maxComputeInvocationsPerWorkgroup: invocations, maxComputeWorkgroupStorageSize: bytes } = capabilities.limits;
  // Columns of a slice: at least 32 (a lane's 8 sums are shared by at most 8 rows), and whole blocks of 16.
  const slices = problem.width >= 128 && problem.heads <= 64 ? 2 : 1;
  const subgroups = Math.min(slices === 2 ? 16 : 8, Math.floor(invocations / size));
  const lanes = problem.width / 8;
  const valueRows = size / (problem.width / slices / 8);
  const shape = { subgroupSize: size, subgroups, slices, unroll: Math.max(16, lanes), values: 'last' as const };
  const fits = valueRows <= 8 && subgroups * size >= problem.width / slices && attendBytes(problem, shape) <= bytes;
  return fits ? shape : undefined;
}

/** Workgroups that share a long cache: two for each processor of a large card. */
const wantedGroups = 256;

/** Windows from which a workgroup's keys should serve as many query heads as its registers hold: below, more and smaller workgroups are faster. */
const streamWindow = 8192;

/** Two dispatches for long windows: the positions that there are, whatever their number, are shared by the same workgroups. Measured on an H200 (bench/attention). */
export function selectSplit(problem: AttendProblem, capabilities: GpuCapabilities): SplitShape {
  const { heads, kvHeads, window } = problem;
  const size = capabilities.subgroupMinSize;
  const { maxComputeInvocationsPerWorkgroup: invocations, maxComputeWorkgroupStorageSize: bytes } = capabilities.limits;
  const streams = window > streamWindow;
  let groupHeads = largestDivisor(heads / kvHeads, streams ? 4 : 3);
  let subgroups = Math.min(streams ? 4 : 8, Math.floor(invocations / size));
  const shape = (): SplitShape => ({ subgroupSize: size, subgroups, unroll: streams ? 8 : 4, groupHeads, splits: 1, ahead: false });
  while (splitBytes(problem, shape()) > bytes && subgroups * groupHeads > 1) {
    if (subgroups > 1) subgroups = Math.floor(subgroups / 2);
    else groupHeads = largestDivisor(heads / kvHeads, groupHeads - 1);
  }
  const most = 2 ** Math.floor(Math.log2(Math.max(1, window / splitStep(problem, shape()))));
  const wanted = 2 ** Math.ceil(Math.log2((wantedGroups * groupHeads) / heads));
  return { ...shape(), splits: Math.max(1, Math.min(wanted, most)) };
}

function largestDivisor(count: number, most: number): number {
  for (let divisor = Math.min(count, most); divisor > 1; divisor--) if (count % divisor === 0) return divisor;
  return 1;
}
