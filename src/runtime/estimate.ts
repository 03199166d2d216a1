/** What graphs would need on a device, told from their plans alone: nothing is allocated and no device is asked. */

import type { GpuCapabilities } from '../core/capabilities.js';
import { byteLengthOfType, roundUp } from '../core/tensor.js';
import { cpuTarget } from '../cpu/target.js';
import type { Graph } from '../graph/graph.js';
import { gpuTarget } from '../kernels/target.js';
import type { Target } from '../ops/target.js';
import type { ExecutionPlan } from '../plan/execution-plan.js';
import { planGraph, shardBytes } from '../plan/plan.js';

/** Bytes as a backend's ledger would count them. */
export interface MemoryEstimate {
  /** Of the arena that all graphs share. */
  readonly arena: number;
  /** Of each weight, as the target packs it, by name. */
  readonly params: ReadonlyMap<string, number>;
  /** Of each cache and state, by name. */
  readonly states: ReadonlyMap<string, number>;
}

/** WebGPU's buffers are whole words. */
const gpuUnit = 4;

/** For graphs that share leaves of one name and run one at a time. */
export function estimateMemory(graphs: readonly Graph[], device: 'cpu' | GpuCapabilities): MemoryEstimate {
  if (device !== 'cpu') return estimateOn(graphs, gpuTarget(device), gpuUnit);
  const target = cpuTarget();
  return estimateOn(graphs, target, target.memory.alignment);
}

function estimateOn<Kernel>(graphs: readonly Graph[], target: Target<Kernel>, unit: number): MemoryEstimate {
  const params = new Map<string, number>();
  const states = new Map<string, number>();
  const banks: number[] = [];
  for (const graph of graphs) {
    const plan = planGraph(graph, target);
    for (const [index, bytes] of plan.memory.banks.entries()) banks[index] = Math.max(banks[index] ?? 0, bytes);
    addLeaves(plan, unit, params, states);
  }
  return { arena: banks.reduce((sum, bytes) => sum + roundUp(Math.max(bytes, 4), unit), 0), params, states };
}

function addLeaves<Kernel>(plan: ExecutionPlan<Kernel>, unit: number, params: Map<string, number>, states: Map<string, number>): void {
  for (const value of plan.values.values()) {
    if (value.root !== value.id) continue;
    if (value.storage === 'state') states.set(value.name, roundUp(Math.max(byteLengthOfType(value.type), 4), unit));
    if (value.storage !== 'param') continue;
    const shards = value.shards.map((_, shard) => roundUp(Math.max(shardBytes(value, shard, plan.target), 4), unit));
    params.set(
      value.name,
      shards.reduce((sum, bytes) => sum + bytes, 0),
    );
  }
}
