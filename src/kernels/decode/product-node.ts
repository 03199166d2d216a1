/** The products among the operations of a decode step, by their parts. */

import { tokenLinearInputs } from '../../ops/decode.js';
import { need } from '../../ops/definition.js';
import type { ComputeOp, OpParams } from '../../ops/params.js';
import type { LoweringContext, LoweringNode, NodeTypes, TensorRef } from '../../ops/target.js';
import type { ProductEnd } from './product.js';
import type { ProductTypes } from './product-float-select.js';

export interface ProductPart {
  readonly weight: TensorRef;
  readonly bias?: TensorRef | undefined;
}

export interface ProductNode {
  readonly node: LoweringNode<ComputeOp>;
  readonly context: LoweringContext;
  readonly x: TensorRef;
  readonly gain?: TensorRef | undefined;
  readonly eps?: number | undefined;
  readonly parts: readonly ProductPart[];
  readonly residual?: TensorRef | undefined;
  readonly end: ProductEnd;
}

export function tokenLinearProduct(node: LoweringNode<'tokenLinear'>, context: LoweringContext): ProductNode {
  const { x, gain, w, bias, residual } = tokenLinearInputs(node.inputs, node.params);
  return { node, context, x, gain, eps: node.params.eps, parts: [{ weight: w, bias }], residual, end: residual === undefined ? 'none' : 'residual' };
}

export function qkvProduct(node: LoweringNode<'qkv'>, context: LoweringContext): ProductNode {
  const [x, gain, ...rest] = node.inputs;
  const parts = [0, 1, 2].map((i) => ({ weight: need(rest[i]), bias: node.params.biases ? need(rest[3 + i]) : undefined }));
  return { node, context, x: need(x), gain, eps: node.params.eps, parts, end: 'none' };
}

export function gatedProduct(node: LoweringNode<'gatedProduct'>, context: LoweringContext): ProductNode {
  const [x, gain, gate, up] = node.inputs;
  return { node, context, x: need(x), gain, eps: node.params.eps, parts: [{ weight: need(gate) }, { weight: need(up) }], end: 'gated' };
}

/** The types of a product before it is lowered, and which input is the norm's gain; undefined for other operations. */
export function productTypes({ op, params, inputs }: NodeTypes): (ProductTypes & { readonly gain?: number }) | undefined {
  if (op === 'qkv') return { weights: inputs.slice(2, 5), end: 'none', gain: 1, vectors: 3 + inputs.length - 5 };
  if (op === 'gatedProduct') return { weights: inputs.slice(2, 4), end: 'gated', gain: 1, results: inputs[2]?.shape[0] ?? 0, vectors: 3 };
  if (op !== 'tokenLinear') return undefined;
  const { eps, bias, residual } = params as OpParams['tokenLinear'];
  const weight = need(inputs[eps === undefined ? 1 : 2]);
  const results = bias && residual ? 1 : residual ? (weight.shape[0] ?? 0) : undefined;
  return {
    ...{ weights: [weight], end: residual ? 'residual' : 'none' },
    ...(eps === undefined ? {} : { gain: 1 }),
    ...(results === undefined ? {} : { results }),
    // Beside the inputs the result, or the best of it too.
    vectors: inputs.length - 1 + 2,
  };
}
