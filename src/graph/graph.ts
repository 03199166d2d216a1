import type { TensorType } from '../core/tensor.js';
import type { OpName, OpParams } from '../ops/params.js';

/** Index of a node in its graph: inputs have lower ids than what reads them. */
export type NodeId = number;

/** One operation applied to earlier nodes. */
export type GraphNode = {
  [K in OpName]: {
    readonly id: NodeId;
    readonly op: K;
    readonly params: OpParams[K];
    readonly inputs: readonly NodeId[];
    readonly type: TensorType;
    /** What reports, profiles and errors call it. */
    readonly name: string;
  };
}[OpName];

export interface GraphOutput {
  readonly name: string;
  readonly node: NodeId;
}

/** What to compute: nodes in an order in which they can run, and the values that the caller wants. */
export interface Graph {
  readonly nodes: readonly GraphNode[];
  readonly outputs: readonly GraphOutput[];
}
