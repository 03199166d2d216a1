import type { BindingKind, Grid } from '../core/kernel.js';
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
  /**
   * A value made from `source` alone, which all nodes that ask for the same `form` of it share: the first to ask (`fresh`) adds the steps that write it. Not for states, which change.
   */
  derived(source: TensorRef, form: string, type: TensorType): { readonly ref: TensorRef; readonly fresh: boolean };
  /** The forms of values that this target passes between its own kernels; absent where a node is lowered alone. */
  readonly forms?: FormContext;
}

/** Another form of a value that a consumer reads in the plain one's stead: 8-bit activations, for instance. `gain` is a vector that the values are multiplied with before. */
export interface FormDemand {
  readonly kind: string;
  readonly gain?: TensorRef;
}

export interface FormContext {
  /** What the readers of this node's output want: the plain values, another form, or both. */
  readonly wanted: { readonly plain: boolean; readonly form?: FormDemand };
  /** Says that `ref` holds the wanted form of this node's output. */
  provide(ref: TensorRef): void;
  /** The form of an input that its producer has made, if it has. */
  made(input: TensorRef): TensorRef | undefined;
}

/** A node before it is lowered. */
export interface NodeTypes<K extends ComputeOp = ComputeOp> {
  readonly op: K;
  readonly params: OpParams[K];
  readonly inputs: readonly TensorType[];
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

/** Bytes to write into a weight's storage. */
export interface PackedWrite {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/**
 * How a target stores weights. Packed types keep their size: blocks may be split into aligned planes or interleaved by rows, never expanded. f32 vectors are stored as they are,
 * and one layout serves every operation that reads the weight (a tied table is both gathered and multiplied).
 */
export interface WeightStore {
  /** Rows are packed in groups of this many; a stream of rows is cut at multiples of it. */
  readonly rowGroup: number;
  /** How the rows of a weight are laid over bindings; sharding is by multiples of `rowGroup`. */
  shards(type: TensorType): readonly RowShard[];
  /** Bytes of storage for a weight or one shard of it (`type` with that many rows). */
  byteLength(type: TensorType): number;
  /** Where whole rows in ggml's layout, the first being `firstRow` of the shard, go in the shard's storage. `rows` may be kept by reference until the writes are done. */
  pack(type: TensorType, firstRow: number, rows: Uint8Array): readonly PackedWrite[];
}

/** How one kind of device runs every operation: a missing rule does not compile. */
export interface Target<Kernel> {
  readonly name: string;
  readonly memory: MemoryRules;
  readonly weights: WeightStore;
  readonly rules: { readonly [K in ComputeOp]: LoweringRule<K, Kernel> };
  /** The input that the rule of a node reads in a form of the target's own where the producer has made it, with the input that is its gain. */
  takesForm?(node: NodeTypes): { readonly input: number; readonly kind: string; readonly gain?: number } | undefined;
  /** Operations of `ops/decode.ts` that graphs for this target may be rewritten to: a reason against one of them, or undefined where it is wanted. None without it. */
  refuses?(node: NodeTypes): string | undefined;
  /** What the validator has to know of a dispatch; absent where steps are calls. */
  dispatch?(kernel: Kernel): { readonly grid: Grid; readonly bindings: readonly BindingKind[] };
}
