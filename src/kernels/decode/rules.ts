/** Lowering of the decode step's fused operations: kernels with 8-bit activations where they are fast, else with f32 ones, else the plain operations. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import type { Step, StepArg } from '../../core/step.js';
import { elementCount } from '../../core/tensor.js';
import type { Tuning } from '../../core/tuning.js';
import { type ComposedOp, composeDecode, type PlainRules } from '../../ops/decode-compose.js';
import { need } from '../../ops/definition.js';
import type { ComputeOp, OpParams } from '../../ops/params.js';
import type { LoweringContext, LoweringNode, LoweringRule, NodeTypes, Target, TensorRef, WeightStore } from '../../ops/target.js';
import { arg, subgroupRange } from '../template.js';
import { weightLayout } from '../weights-layout.js';
import { activationForm, activationType, packKernel } from './activations.js';
import { attendSteps, refuseAttend } from './attend-rule.js';
import { bestForm, chooseKernel, surveyKernel, surveyParts } from './choose.js';
import { copyStep } from './copy.js';
import { embedKernel } from './embed.js';
import { type ProductMatrix, type ProductProblem, productGroups, productKernel } from './product.js';
import { floatSteps } from './product-float-rule.js';
import { type ProductPath, selectProductPath } from './product-float-select.js';
import { gatedProduct, type ProductNode, productTypes, qkvProduct, tokenLinearProduct } from './product-node.js';
import { type ActivationChoice, workgroupThreads } from './select.js';
import { chooseProduct, type ProductChoice } from './tuned.js';

export interface DecodeTarget {
  readonly rules: { readonly [K in ComposedOp | 'chooseNext' | 'gatherRows']: LoweringRule<K, GpuKernel> };
  readonly takesForm: NonNullable<Target<GpuKernel>['takesForm']>;
  readonly refuses: NonNullable<Target<GpuKernel>['refuses']>;
}

/** The operations that fused ones are made of, and those that a decode step does in a way of its own. */
export type PlainDecodeRules = PlainRules<GpuKernel>['rules'] & {
  readonly gatherRows: LoweringRule<'gatherRows', GpuKernel>;
  /** A product of one row that writes from element `start` of its output on. */
  linearPart(node: LoweringNode<'linear'>, start: number): readonly Step<GpuKernel>[];
};

export interface DecodeTargetOptions {
  readonly activations?: ActivationChoice;
  /** Shapes of products that were measured on this adapter. Default: the shipped ones. */
  readonly tuning?: Tuning;
  /** Told of every fused product that is lowered, with the shape that it gets and why. */
  readonly onProduct?: (problem: ProductProblem, choice: ProductChoice) => void;
}

export function decodeTarget(capabilities: GpuCapabilities, store: WeightStore, plain: PlainDecodeRules, options: DecodeTargetOptions): DecodeTarget {
  const choice = options.activations ?? 'auto';
  const pathOf = (node: NodeTypes): ProductPath | undefined => {
    const product = productTypes(node);
    return product && selectProductPath(product, choice, store, capabilities);
  };
  const composed = composeDecode<GpuKernel>({ rules: plain, copy: copyStep });
  /** A rule that makes one fused product, or else the plain steps. */
  const product = <K extends ComposedOp>(
    partsOf: (node: LoweringNode<K>, context: LoweringContext) => ProductNode,
    steps: LoweringRule<K, GpuKernel>,
  ): LoweringRule<K, GpuKernel> => {
    return (node, context) => {
      const path = pathOf(typesOf(node))?.path ?? 'steps';
      if (path === 'steps') return steps(node, context);
      return path === 'int8' ? packedSteps(partsOf(node, context), capabilities, options) : floatSteps(partsOf(node, context), capabilities);
    };
  };
  return {
    rules: {
      tokenLinear: product(tokenLinearProduct, composed.tokenLinear),
      qkv: product(qkvProduct, (node, context) => floatQkv(node, context, plain)),
      gatedProduct: product(gatedProduct, composed.gatedProduct),
      attendToken: (node, context) => attendSteps(node, context, capabilities) ?? composed.attendToken(node, context),
      gatherRows: (node, context) => embedSteps(node, context) ?? plain.gatherRows(node, context),
      chooseNext(node, context) {
        const subgroups = subgroupRange(capabilities);
        const logits = need(node.inputs[1]);
        const made = context.forms?.made(logits);
        const pairs = made ?? context.scratch({ dtype: 'u32', shape: [surveyParts(elementCount(logits.type.shape)), 2] });
        const choose = chooseKernel(elementCount(pairs.type.shape) / 2, subgroups, workgroupThreads(capabilities));
        const step = { label: node.label, node: node.id, kernel: choose, args: [arg(node.output, 'readwrite'), arg(pairs, 'read')] };
        if (made !== undefined) return [step];
        const survey = surveyKernel(elementCount(logits.type.shape), subgroups);
        return [{ label: `${node.label} survey`, node: node.id, kernel: survey, args: [arg(logits, 'read'), arg(pairs, 'write')] }, step];
      },
    },
    takesForm(node) {
      if (node.op === 'chooseNext') return { input: 1, kind: bestForm };
      if (pathOf(node)?.path !== 'int8') return undefined;
      const gain = productTypes(node)?.gain;
      return { input: 0, kind: activationForm, ...(gain === undefined ? {} : { gain }) };
    },
    refuses(node) {
      if (node.op === 'attendToken') return refuseAttend(node.inputs, node.params as OpParams['attendToken'], capabilities);
      const found = pathOf(node);
      if (found?.path !== 'steps') return undefined;
      // Its plain steps are no fewer products, but the attention that they come with is fewer steps.
      return node.op === 'qkv' && !(choice === 'auto' && capabilities.software) ? undefined : found.reason;
    },
  };
}

function typesOf(node: LoweringNode<ComputeOp>): NodeTypes {
  return { op: node.op, params: node.params, inputs: node.inputs.map((input) => input.type) } as unknown as NodeTypes;
}

/** Queries, keys and values from f32 activations: the norm, then products that write their parts of the output. */
function floatQkv(node: LoweringNode<'qkv'>, context: LoweringContext, plain: PlainDecodeRules): readonly Step<GpuKernel>[] {
  const [x, gain, ...rest] = node.inputs;
  const { label, id, params } = node;
  const normed = context.scratch(need(x).type);
  // The forms are the whole node's: its parts make and take none.
  const parts: LoweringContext = { scratch: (type) => context.scratch(type), derived: (source, form, type) => context.derived(source, form, type) };
  const norm = { op: 'rmsNorm' as const, params: { eps: params.eps }, inputs: [need(x), need(gain)], output: normed, label: `${label} norm`, id };
  const steps = [...plain.rmsNorm(norm, parts)];
  let start = 0;
  for (const i of [0, 1, 2]) {
    const weight = need(rest[i]);
    const bias = params.biases ? [need(rest[3 + i])] : [];
    steps.push(...plain.linearPart({ ...node, op: 'linear', params: { bias: params.biases, residual: false }, inputs: [normed, weight, ...bias] }, start));
    start += weight.type.shape[0] ?? 0;
  }
  return steps;
}

/** A product of 8-bit activations: one step, and one before it where nobody has left them. */
function packedSteps(product: ProductNode, capabilities: GpuCapabilities, options: DecodeTargetOptions): readonly Step<GpuKernel>[] {
  const { node, context, x, gain, eps, parts, residual, end } = product;
  const depth = x.type.shape[1] ?? 0;
  const activations = packed(node, context, x, gain);
  const wanted = context.forms?.wanted ?? { plain: true };
  const form = wanted.form;
  const packs = form?.kind === activationForm && end !== 'none' ? form : undefined;
  const best = form?.kind === bestForm && parts.length === 1 && parts[0]?.bias === undefined && end === 'none';
  let start = 0;
  const matrices = parts.map(({ weight, bias }): ProductMatrix => {
    const matrix = { layout: weightLayout(weight.type), start, bias: bias !== undefined };
    start += weight.type.shape[0] ?? 0;
    return matrix;
  });
  const problem: ProductProblem = {
    ...{ depth, matrices, eps, end, best },
    plain: wanted.plain || (packs === undefined && !best),
    packed: packs === undefined ? 'none' : packs.gain === undefined ? 'plain' : 'gain',
  };
  const results = end === 'gated' ? start / 2 : start;
  const choice = chooseProduct(problem, capabilities, options.tuning);
  options.onProduct?.(problem, choice);
  const { shape } = choice;
  const groups = productGroups(problem, shape).reduce((sum, count) => sum + count, 0);
  const made = packs !== undefined ? context.scratch(activationType(results)) : best ? context.scratch({ dtype: 'u32', shape: [groups, 2] }) : undefined;
  if (made !== undefined) context.forms?.provide(made);
  const biases = parts.flatMap(({ bias }) => (bias === undefined ? [] : [arg(bias, 'read')]));
  const args: readonly StepArg[] = [
    arg(activations.ref, 'read'),
    ...parts.map(({ weight }) => arg(weight, 'read')),
    ...biases,
    ...(residual === undefined ? [] : [arg(residual, 'read')]),
    ...(packs?.gain === undefined ? [] : [arg(packs.gain, 'read')]),
    ...(problem.plain ? [arg(node.output, 'write')] : []),
    ...(made === undefined ? [] : [arg(made, 'write')]),
  ];
  return [...activations.steps, { label: node.label, node: node.id, kernel: productKernel(problem, shape), args }];
}

/** The embedding of one token with the 8-bit form that its readers want; undefined where they want none or the table has several bindings. */
function embedSteps(node: LoweringNode<'gatherRows'>, context: LoweringContext): readonly Step<GpuKernel>[] | undefined {
  const [table, ids] = [need(node.inputs[0]), need(node.inputs[1])];
  const form = context.forms?.wanted.form;
  const width = node.output.type.shape[1] ?? 0;
  const single = ids.type.shape[0] === 1 && table.shards.length === 1;
  if (form?.kind !== activationForm || form.gain === undefined || !single || width % 32 !== 0) return undefined;
  const made = context.scratch(activationType(width));
  context.forms?.provide(made);
  const args = [arg(table, 'read'), arg(ids, 'read'), arg(form.gain, 'read'), arg(node.output, 'write'), arg(made, 'write')];
  return [{ label: node.label, node: node.id, kernel: embedKernel(weightLayout(table.type)), args }];
}

/** The 8-bit form of `x`: its producer's, or made here. */
function packed(
  node: LoweringNode<ComputeOp>,
  context: LoweringContext,
  x: TensorRef,
  gain: TensorRef | undefined,
): { readonly ref: TensorRef; readonly steps: readonly Step<GpuKernel>[] } {
  const made = context.forms?.made(x);
  if (made !== undefined) return { ref: made, steps: [] };
  const width = x.type.shape[1] ?? 0;
  const ref = context.scratch(activationType(width));
  const args = [arg(x, 'read'), ...(gain === undefined ? [] : [arg(gain, 'read')]), arg(ref, 'write')];
  return { ref, steps: [{ label: `${node.label} input`, node: node.id, kernel: packKernel(width, gain !== undefined), args }] };
}
