/** The operations of decode.ts lowered to the plain ones that they are made of: for targets, shapes and types without kernels of their own for them. */

import type { Step } from '../core/step.js';
import { elementCount } from '../core/tensor.js';
import { attendTokenShape, tokenLinearInputs } from './decode.js';
import { need } from './definition.js';
import type { ComputeOp, OpParams } from './params.js';
import type { LoweringContext, LoweringNode, LoweringRule, TensorRef } from './target.js';

/** Operations that are made of others; `chooseNext` is none of them, as it looks for NaN too. */
export type ComposedOp = 'tokenLinear' | 'qkv' | 'gatedProduct' | 'attendToken';
type PlainOp = 'linear' | 'rmsNorm' | 'swiglu' | 'rope' | 'cacheWrite' | 'attention';

/** What the composition is made of. */
export interface PlainRules<Kernel> {
  readonly rules: { readonly [K in PlainOp]: LoweringRule<K, Kernel> };
  /** Copies `count` f32 from element `start` of `from` to element `to` of `target`. */
  copy(node: LoweringNode<ComputeOp>, from: TensorRef, start: number, target: TensorRef, to: number, count: number): Step<Kernel>;
}

type Composed<Kernel> = { readonly [K in ComposedOp]: LoweringRule<K, Kernel> };

/** Steps of one fused node, collected as its parts are lowered. */
class Composition<Kernel> {
  readonly steps: Step<Kernel>[] = [];
  readonly #plain: PlainRules<Kernel>;
  readonly #node: LoweringNode<ComputeOp>;
  readonly #context: LoweringContext;

  constructor(plain: PlainRules<Kernel>, node: LoweringNode<ComputeOp>, context: LoweringContext) {
    this.#plain = plain;
    this.#node = node;
    // The forms are the fused node's: its parts make and take none.
    this.#context = { scratch: (type) => context.scratch(type), derived: (source, form, type) => context.derived(source, form, type) };
  }

  floats(...shape: readonly number[]): TensorRef {
    return this.#context.scratch({ dtype: 'f32', shape });
  }

  apply<K extends PlainOp>(op: K, params: OpParams[K], inputs: readonly TensorRef[], output: TensorRef): TensorRef {
    const { label, id } = this.#node;
    this.steps.push(...this.#plain.rules[op]({ op, params, inputs, output, label: `${label} ${op}`, id }, this.#context));
    return output;
  }

  copy(from: TensorRef, start: number, target: TensorRef, to: number, count: number): TensorRef {
    this.steps.push(this.#plain.copy(this.#node, from, start, target, to, count));
    return target;
  }

  norm(x: TensorRef, gain: TensorRef | undefined, eps: number | undefined): TensorRef {
    return gain === undefined ? x : this.apply('rmsNorm', { eps: eps ?? 0 }, [x, gain], this.floats(...x.type.shape));
  }

  product(x: TensorRef, w: TensorRef, bias: TensorRef | undefined): TensorRef {
    const params = { bias: bias !== undefined, residual: false };
    return this.apply('linear', params, bias === undefined ? [x, w] : [x, w, bias], this.floats(1, w.type.shape[0] ?? 0));
  }
}

export function composeDecode<Kernel>(plain: PlainRules<Kernel>): Composed<Kernel> {
  return {
    tokenLinear(node, context) {
      const { x, gain, w, bias, residual } = tokenLinearInputs(node.inputs, node.params);
      const parts = new Composition(plain, node, context);
      const extra = [bias, residual].filter((input) => input !== undefined);
      const { bias: hasBias, residual: hasResidual, eps } = node.params;
      parts.apply('linear', { bias: hasBias, residual: hasResidual }, [parts.norm(x, gain, eps), w, ...extra], node.output);
      return parts.steps;
    },
    qkv(node, context) {
      const [x, gain, ...rest] = node.inputs;
      const parts = new Composition(plain, node, context);
      const normed = parts.norm(need(x), need(gain), node.params.eps);
      let at = 0;
      for (const index of [0, 1, 2]) {
        const part = parts.product(normed, need(rest[index]), node.params.biases ? need(rest[3 + index]) : undefined);
        const count = elementCount(part.type.shape);
        parts.copy(part, 0, node.output, at, count);
        at += count;
      }
      return parts.steps;
    },
    gatedProduct(node, context) {
      const [x, gain, gate, up] = node.inputs;
      const parts = new Composition(plain, node, context);
      const normed = parts.norm(need(x), need(gain), node.params.eps);
      parts.apply('swiglu', {}, [parts.product(normed, need(gate), undefined), parts.product(normed, need(up), undefined)], node.output);
      return parts.steps;
    },
    attendToken(node, context) {
      const parts = new Composition(plain, node, context);
      const { q, inputs } = placeToken(parts, node);
      const [keys, values, , , state] = inputs;
      parts.apply('attention', { scale: node.params.scale }, [q, need(keys), need(values), need(state)], node.output);
      return parts.steps;
    },
  };
}

/** Q normed and turned; K and V in the caches. */
function placeToken<Kernel>(parts: Composition<Kernel>, { inputs, params }: LoweringNode<'attendToken'>): { q: TensorRef; inputs: readonly TensorRef[] } {
  const [keys, values, raw, table, state, qGain, kGain] = inputs;
  const { heads, kvHeads, width } = attendTokenShape(inputs.map((input) => input.type));
  const part = (first: number, count: number): TensorRef => parts.copy(need(raw), first * width, parts.floats(1, count, width), 0, count * width);
  const turned = (x: TensorRef, gain: TensorRef | undefined): TensorRef =>
    parts.apply('rope', { pairing: params.pairing }, [parts.norm(x, gain, params.eps), need(table), need(state)], parts.floats(...x.type.shape));
  const q = turned(part(0, heads), qGain);
  parts.apply('cacheWrite', {}, [need(keys), turned(part(heads, kvHeads), kGain), need(state)], need(keys));
  parts.apply('cacheWrite', {}, [need(values), part(heads + kvHeads, kvHeads), need(state)], need(values));
  return { q, inputs };
}
