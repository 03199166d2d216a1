import { attentionOps } from './attention.js';
import { compareOps } from './compare.js';
import { convOps } from './conv.js';
import { decodeOps } from './decode.js';
import type { LeafDefinition, OpDefinition } from './definition.js';
import { elementwiseOps } from './elementwise.js';
import { linearOps } from './linear.js';
import { matmulOps } from './matmul.js';
import { movementOps } from './movement.js';
import type { ComputeOp, LeafOp, OpName, ViewOp } from './params.js';
import { reduceOps } from './reduce.js';
import { regionOps } from './region.js';
import { samplingOps } from './sampling.js';
import { selectOps } from './select.js';
import { shapeOps } from './shape.js';

/** Every operation's definition: a name without one does not compile. */
export const ops: { readonly [K in Exclude<OpName, LeafOp>]: OpDefinition<K> } = {
  ...elementwiseOps,
  ...shapeOps,
  ...linearOps,
  ...attentionOps,
  ...decodeOps,
  ...samplingOps,
  ...matmulOps,
  ...reduceOps,
  ...regionOps,
  ...compareOps,
  ...movementOps,
  ...selectOps,
  ...convOps,
};

const leaf: LeafDefinition = { arity: 0 };
const leaves: { readonly [K in LeafOp]: LeafDefinition } = { input: leaf, param: leaf, state: leaf, constant: leaf };
const views: { readonly [K in ViewOp]: true } = { reshape: true, narrow: true };

export function isLeaf(op: OpName): op is LeafOp {
  return Object.hasOwn(leaves, op);
}

export function isView(op: OpName): op is ViewOp {
  return Object.hasOwn(views, op);
}

export function isCompute(op: OpName): op is ComputeOp {
  return !isLeaf(op) && !isView(op);
}

/** The input whose storage the output of `op` takes the place of, if it does. */
export function updatedInput(op: OpName): number | undefined {
  const updates = isLeaf(op) ? undefined : ops[op].updates;
  return typeof updates === 'number' ? updates : undefined;
}

/** Every input that `op` writes in place, whether its output is the new version of one or a tensor of its own. */
export function updatedInputs(op: OpName): readonly number[] {
  const updates = isLeaf(op) ? undefined : ops[op].updates;
  return updates === undefined ? [] : typeof updates === 'number' ? [updates] : updates;
}
