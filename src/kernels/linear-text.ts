/** What the kernel families of `linear` share: the problem, its bindings, and the end of every sum. */

import type { BindingKind } from '../core/kernel.js';
import { type WeightReader, weightReader } from './blocks.js';
import { declareBindings, type KernelParam } from './template.js';
import type { WeightLayout } from './weights-layout.js';

/** y[t, start + n] = sum_k x[t, k] w[n, k] + bias[start + n] + residual[t, start + n] for the rows n of one shard of the weight. */
export interface LinearProblem {
  readonly layout: WeightLayout;
  /** First column of y that the shard's rows make. */
  readonly start: number;
  /** First element of the bias that the shard's rows take. Default: `start`. */
  readonly biasStart?: number;
  /** Columns of y. */
  readonly outputs: number;
  /** Rows of x and y. */
  readonly rows: number;
  readonly bias: boolean;
  /** 'inPlace': y holds the residual already. */
  readonly residual: 'none' | 'read' | 'inPlace';
}

export interface LinearText {
  readonly reader: WeightReader;
  readonly bindings: readonly BindingKind[];
  readonly declarations: string;
  /** vec4<f32> of x[t, 4 quad .. 4 quad + 3], zeros beyond the row's end. */
  x(t: string, quad: string): string;
  /** Statement that writes the sum for row `t` and shard row `n`; with vectors, for the shard rows n to n + 3. */
  store(sum: string, t: string, n: string): string;
}

/** Whether y may be written four columns at a time. */
export function storesVectors(problem: LinearProblem): boolean {
  return problem.outputs % 4 === 0 && problem.start % 4 === 0 && problem.layout.rows % 4 === 0;
}

/** The end of every sum: what it is added to, and where it goes. */
export interface OutputText {
  /** Bias and residual where the problem has them, then y. */
  readonly bindings: readonly (readonly [name: string, element: string, kind: BindingKind])[];
  /** As in `LinearText`. */
  store(sum: string, t: string, n: string): string;
}

export function outputText(problem: LinearProblem, vectors: boolean): OutputText {
  const { outputs, rows, start } = problem;
  const out = vectors ? 'vec4<f32>' : 'f32';
  const unit = vectors ? 4 : 1;
  const per = (n: string): string => (vectors ? `(${n}) / 4u` : n);
  const shifted = (n: string, by: number): string => (by === 0 ? per(n) : `${by / unit}u + ${per(n)}`);
  const column = (n: string): string => shifted(n, start);
  return {
    bindings: [
      ...(problem.bias ? [['bias', out, 'read'] as const] : []),
      ...(problem.residual === 'read' ? [['residual', out, 'read'] as const] : []),
      ['y', out, 'read_write'],
    ],
    store(sum, t, n) {
      const at = rows === 1 ? column(n) : `(${t}) * ${outputs / unit}u + ${column(n)}`;
      const residual = { none: '', read: ` + residual[${at}]`, inPlace: ` + y[${at}]` }[problem.residual];
      return `y[${at}] = ${sum}${problem.bias ? ` + bias[${shifted(n, problem.biasStart ?? start)}]` : ''}${residual};`;
    },
  };
}

export function linearText(problem: LinearProblem, vectors: boolean): LinearText {
  const { layout, rows } = problem;
  const reader = weightReader(layout);
  const output = outputText(problem, vectors);
  const bindings: OutputText['bindings'] = [['x', reader.aligned ? 'vec4<f32>' : 'f32', 'read'], ['w', reader.element, 'read'], ...output.bindings];
  return {
    reader,
    bindings: bindings.map(([, , kind]) => kind),
    declarations: declareBindings(bindings) + (reader.aligned ? '' : guardedX(layout.columns, rows)) + reader.functions,
    x: (t, quad) => (reader.aligned ? `x[${rows === 1 ? '' : `(${t}) * ${layout.columns / 4}u + `}${quad}]` : `x4(${t}, ${quad})`),
    store: output.store,
  };
}

function guardedX(columns: number, rows: number): string {
  return `fn x1(t: u32, k: u32) -> f32 { return select(0.0, x[min(t, ${rows - 1}u) * ${columns}u + min(k, ${columns - 1}u)], k < ${columns}u); }
fn x4(t: u32, quad: u32) -> vec4<f32> {
  let k = quad * 4u;
  return vec4<f32>(x1(t, k), x1(t, k + 1u), x1(t, k + 2u), x1(t, k + 3u));
}
`;
}

/** Everything of a problem that kernel text depends on. */
export function problemParams({ layout, start, biasStart, outputs, rows, bias, residual }: LinearProblem): { readonly [name: string]: KernelParam } {
  return { type: layout.dtype, k: layout.columns, n: layout.rows, start, biasStart: biasStart ?? start, of: outputs, t: rows, bias, residual };
}
