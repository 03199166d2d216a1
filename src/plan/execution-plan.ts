import type { Access, ValueId } from '../core/step.js';
import type { Graph } from '../graph/graph.js';
import type { Target } from '../ops/target.js';
import type { MemoryPlan } from './memory.js';
import type { PlanValue, StorageClass } from './plan-value.js';

/** The bytes of one argument. `owner` is the root value: it names the buffer (with `shard`) unless the storage is the arena's, where `bank` does. */
export interface Location {
  readonly storage: StorageClass;
  readonly owner: ValueId;
  readonly shard: number;
  readonly bank: number;
  readonly offset: number;
  readonly byteLength: number;
}

export interface PlannedArg {
  readonly value: ValueId;
  readonly access: Access;
  readonly location: Location;
}

export interface PlannedStep<Kernel> {
  readonly label: string;
  readonly node: number;
  readonly kernel: Kernel;
  readonly args: readonly PlannedArg[];
  /** The value whose bytes an in-place step turns into its output. */
  readonly consumes?: ValueId;
}

/** A graph made ready for one target: the exact steps that will run and where every value lies. */
export interface ExecutionPlan<Kernel> {
  readonly graph: Graph;
  readonly target: Target<Kernel>;
  readonly steps: readonly PlannedStep<Kernel>[];
  readonly values: ReadonlyMap<ValueId, PlanValue>;
  readonly memory: MemoryPlan;
}
