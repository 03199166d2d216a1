/** Lowering of the decode step's fused operations: 8-bit kernels where they fit, else the plain operations. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import type { GpuKernel } from '../../core/kernel.js';
import type { Step, StepArg } from '../../core/step.js';
import { elementCount, type TensorType } from '../../core/tensor.js';
import type { Tuning } from '../../core/tuning.js';
import { tokenLinearInputs } from '../../ops/decode.js';
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
import { type ActivationChoice, refuseProduct, workgroupThreads } from './select.js';
import { chooseProduct, type ProductChoice } from './tuned.js';

export interface DecodeTarget {
  readonly rules: { readonly [K in ComposedOp | 'chooseNext' | 'gatherRows']: LoweringRule<K, GpuKernel> };
  readonly takesForm: NonNullable<Target<GpuKernel>['takesForm']>;
  readonly refuses: NonNullable<Target<GpuKernel>['refuses']>;
}

/** The weights that a product multiplies with, and the width of its result where it is rounded to 8 bits itself. */
function productWeights({
  op,
  params,
  inputs,
}: NodeTypes): { readonly weights: readonly TensorType[]; readonly results?: number; readonly gain?: number } | undefined {
  if (op === 'qkv') return { weights: inputs.slice(2, 5), gain: 1 };
  if (op === 'gatedProduct') return { weights: inputs.slice(2, 4), gain: 1, results: inputs[2]?.shape[0] ?? 0 };
  if (op !== 'tokenLinear') return undefined;
  const { eps, bias, residual } = params as OpParams['tokenLinear'];
  const weight = need(inputs[eps === undefined ? 1 : 2]);
  return {
    weights: [weight],
    ...(eps === undefined ? {} : { gain: 1 }),
    ...(residual ? { results: weight.shape[0] ?? 0 } : {}),
    ...(bias && residual ? { results: 1 } : {}),
  };
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
  const refusesProduct = (node: NodeTypes): string | undefined => {
    const found = productWeights(node);
    return found && refuseProduct(found.weights, found.results, choice, store, capabilities);
  };
  const composed = composeDecode<GpuKernel>({ rules: plain, copy: copyStep });
  const fused = <K extends ComposedOp>(rule: LoweringRule<K, GpuKernel>): LoweringRule<K, GpuKernel> => {
    return (node, context) => {
      return refusesProduct(typesOf(node)) === undefined ? rule(node, context) : composed[node.op](node as never, context);
    };
  };
  const make = new ProductSteps(capabilities, options);
  return {
    rules: {
      tokenLinear: fused((node, context) => make.tokenLinear(node, context)),
      qkv: (node, context) => (refusesProduct(typesOf(node)) === undefined ? make.qkv(node, context) : floatQkv(node, context, plain)),
      gatedProduct: fused((node, context) => make.gated(node, context)),
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
      const found = productWeights(node);
      if (found === undefined || refusesProduct(node) !== undefined) return undefined;
      return { input: 0, kind: activationForm, ...(found.gain === undefined ? {} : { gain: found.gain }) };
    },
    refuses(node) {
      if (node.op === 'attendToken') return refuseAttend(node.inputs, node.params as OpParams['attendToken'], capabilities);
      const refused = refusesProduct(node);
      // With f32 activations it is no fewer products, but the attention that it comes with is fewer steps.
      return node.op === 'qkv' && refused !== undefined && !(choice === 'auto' && capabilities.software) ? undefined : refused;
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

interface ProductPart {
  readonly weight: TensorRef;
  readonly bias?: TensorRef | undefined;
}

interface ProductNode {
  readonly node: LoweringNode<ComputeOp>;
  readonly context: LoweringContext;
  readonly x: TensorRef;
  readonly gain?: TensorRef | undefined;
  readonly eps?: number | undefined;
  readonly parts: readonly ProductPart[];
  readonly residual?: TensorRef | undefined;
  readonly end: ProductProblem['end'];
}

class ProductSteps {
  readonly #capabilities: GpuCapabilities;
  readonly #options: DecodeTargetOptions;

  constructor(capabilities: GpuCapabilities, options: DecodeTargetOptions) {
    this.#capabilities = capabilities;
    this.#options = options;
  }

  tokenLinear(node: LoweringNode<'tokenLinear'>, context: LoweringContext): readonly Step<GpuKernel>[] {
    const { x, gain, w, bias, residual } = tokenLinearInputs(node.inputs, node.params);
    return this.#steps({
      node,
      context,
      x,
      gain,
      eps: node.params.eps,
      parts: [{ weight: w, bias }],
      residual,
      end: residual === undefined ? 'none' : 'residual',
    });
  }

  qkv(node: LoweringNode<'qkv'>, context: LoweringContext): readonly Step<GpuKernel>[] {
    const [x, gain, ...rest] = node.inputs;
    const parts = [0, 1, 2].map((i) => ({ weight: need(rest[i]), bias: node.params.biases ? need(rest[3 + i]) : undefined }));
    return this.#steps({ node, context, x: need(x), gain, eps: node.params.eps, parts, end: 'none' });
  }

  gated(node: LoweringNode<'gatedProduct'>, context: LoweringContext): readonly Step<GpuKernel>[] {
    const [x, gain, gate, up] = node.inputs;
    return this.#steps({ node, context, x: need(x), gain, eps: node.params.eps, parts: [{ weight: need(gate) }, { weight: need(up) }], end: 'gated' });
  }

  #steps(product: ProductNode): readonly Step<GpuKernel>[] {
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
    const choice = chooseProduct(problem, this.#capabilities, this.#options.tuning);
    this.#options.onProduct?.(problem, choice);
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
