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
  const shape = { subgroupSize: size, subgroups, slices, unroll: Math.max(16, lanes) };
  const fits = valueRows <= 8 && subgroups * size >= problem.width / slices && attendBytes(problem, shape) <= bytes;
  return fits ? shape : undefined;
}

/** Workgroups that keep enough loads in flight for the bandwidth of a large card. */
const wantedGroups = 512;

/** Two dispatches for long windows: the positions that there are, whatever their number, are shared by the same workgroups. */
export function selectSplit(problem: AttendProblem, capabilities: GpuCapabilities): SplitShape {
  const { heads, kvHeads, width, window } = problem;
  const size = capabilities.subgroupMinSize;
  const { maxComputeInvocationsPerWorkgroup: invocations, maxComputeWorkgroupStorageSize: bytes } = capabilities.limits;
  const ratio = heads / kvHeads;
  let groupHeads = largestDivisor(ratio, 4);
  const slots = (): number => 2 ** Math.ceil(Math.log2(groupHeads));
  // 8 loads of keys in flight at most, and as many scores as a row has lanes where that allows it.
  const unroll = (): number => Math.max(4, Math.min(8, width / 8 / slots()));
  let shape: SplitShape = { subgroupSize: size, subgroups: Math.min(4, Math.floor(invocations / size)), unroll: unroll(), groupHeads, splits: 1 };
  while (splitBytes(problem, shape) > bytes && (shape.subgroups > 1 || groupHeads > 1)) {
    if (shape.subgroups > 1) shape = { ...shape, subgroups: Math.floor(shape.subgroups / 2) };
    else {
      groupHeads = largestDivisor(ratio, groupHeads - 1);
      shape = { ...shape, groupHeads, unroll: unroll() };
    }
  }
  const most = Math.ceil(window / splitStep(problem, shape));
  const wanted = 2 ** Math.ceil(Math.log2(wantedGroups / (heads / shape.groupHeads)));
  return { ...shape, splits: Math.max(1, Math.min(wanted, most)) };
}

function largestDivisor(count: number, most: number): number {
  for (let divisor = Math.min(count, most); divisor > 1; divisor--) if (count % divisor === 0) return divisor;
  return 1;
}
