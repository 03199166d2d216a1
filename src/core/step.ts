/** A value of a plan: node ids first, then the scratch values that lowering adds. */
export type ValueId = number;

export type Access = 'read' | 'write' | 'readwrite';

/** One argument of a step. `shard` counts the row shards of a weight that one binding cannot hold (0 for every other value). */
export interface StepArg {
  readonly value: ValueId;
  readonly shard: number;
  readonly access: Access;
}

/**
 * One dispatch (WebGPU) or one call (CPU): a kernel with its arguments, in the order of the kernel's bindings. A 'readwrite' argument is an in-place update of a
 * state leaf.
 */
export interface Step<Kernel> {
  /** "blk.0.attn_q linear q8_0": what profiles and error messages call it. */
  readonly label: string;
  /** The graph node that it belongs to. */
  readonly node: number;
  readonly kernel: Kernel;
  readonly args: readonly StepArg[];
  /** Offered where the output may take the place of an input that dies here. */
  readonly inPlace?: InPlace<Kernel>;
}

/** The variant in which `args[output]` lives in the storage of `args[input]`: its kernel has one binding fewer, the input's, and its output is 'readwrite'. */
export interface InPlace<Kernel> {
  readonly input: number;
  readonly output: number;
  readonly kernel: Kernel;
}
