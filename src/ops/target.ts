import type { Step, ValueId } from '../core/step.js';
import type { TensorType } from '../core/tensor.js';
import type { ComputeOp, OpParams } from './params.js';

/** Rows [start, start + rows) of a weight: what one binding holds. */
export interface RowShard {
  readonly start: number;
  readonly rows: number;
}

/** A value as a lowering rule sees it. Everything but a weight has one shard. */
export interface TensorRef {
  readonly id: ValueId;
  readonly type: TensorType;
  readonly shards: readonly RowShard[];
}

export interface LoweringNode<K extends ComputeOp> {
  readonly op: K;
  readonly params: OpParams[K];
  readonly inputs: readonly TensorRef[];
  readonly output: TensorRef;
  readonly label: string;
  readonly id: number;
}

export interface LoweringContext {
  /** A value that lives between steps of one node. */
  scratch(type: TensorType): TensorRef;
}

export type LoweringRule<K extends ComputeOp, Kernel> = (node: LoweringNode<K>, context: LoweringContext) => readonly Step<Kernel>[];

/** What the memory plan must respect. */
export interface MemoryRules {
  /** Slots start at multiples of this many bytes. */
  readonly alignment: number;
  /** Largest range that one argument may cover, in bytes. */
  readonly maxBindingBytes: number;
  /** Largest bank of the arena, in bytes. */
  readonly maxBankBytes: number;
  readonly maxBindings: number;
  readonly maxGrid: number;
  /** WebGPU: within one step a buffer is all read or all written, and writable ranges do not overlap. */
  readonly exclusiveBuffers: boolean;
}

/** How one kind of device runs every operation: a missing rule does not compile. */
export interface Target<Kernel> {
  readonly name: string;
  readonly memory: MemoryRules;
  readonly rules: { readonly [K in ComputeOp]: LoweringRule<K, Kernel> };
  /** How the rows of a weight are laid over bindings. */
  shards(type: TensorType): readonly RowShard[];
}
