/** A chain of elementwise steps as one kernel: the steps' own functions, called one after another on values that never leave the registers. */

import type { GpuKernel } from '../core/kernel.js';
import type { RegionOperand, RegionStep } from '../ops/params.js';
import { regionTypes } from '../ops/region.js';
import type { LoweringRule } from '../ops/target.js';
import { broadcastKernel } from './broadcast.js';
import { compareText, wordType } from './compare.js';
import { type NamedFunction, namedFunctions } from './elementwise-functions.js';
import { arg, f32Literal, oneStep } from './template.js';

/** Module text with `fn apply` over the inputs: each different function once, then one line per step. */
export function regionText(steps: readonly RegionStep[], inputs: readonly string[]): string {
  const scalars = new Map<string, NamedFunction>();
  const comparisons = new Map<string, string>();
  const types = regionTypes(steps);
  const operand = (of: RegionOperand): string => ('value' in of ? f32Literal(of.value) : 'input' in of ? `x${of.input}` : `s${of.step}`);
  const scalar = (fn: NamedFunction['fn'], a?: number, b?: number): string => {
    const key = `${fn} ${a} ${b}`;
    const known = scalars.get(key) ?? { name: `f${scalars.size}`, fn, ...(a === undefined ? {} : { a }), ...(b === undefined ? {} : { b }) };
    scalars.set(key, known);
    return known.name;
  };
  const expression = (step: RegionStep): string => {
    switch (step.op) {
      case 'unary':
        return `${scalar(step.fn, step.a, step.b)}(${operand(step.x)})`;
      case 'binary':
        return `${scalar(step.fn)}(${operand(step.x)}, ${operand(step.y)})`;
      case 'compare': {
        const name = `${step.fn}Of`;
        comparisons.set(name, compareText(name, step.fn, 'f32'));
        return `${name}(${operand(step.x)}, ${operand(step.y)})`;
      }
      case 'where':
        return `select(${operand(step.y)}, ${operand(step.x)}, ${operand(step.condition)} != 0u)`;
    }
  };
  const lines = steps.map((step, i) => `  let s${i} = ${expression(step)};\n`).join('');
  const parameters = inputs.map((type, i) => `x${i}: ${type}`).join(', ');
  return `${namedFunctions([...scalars.values()])}${[...comparisons.values()].join('')}fn apply(${parameters}) -> ${types.at(-1) ?? 'f32'} {
${lines}  return s${steps.length - 1};
}
`;
}

export const regionRule: LoweringRule<'region', GpuKernel> = (node) => {
  const { steps } = node.params;
  const inputs = node.inputs.map((ref) => ({ type: wordType(ref), shape: ref.type.shape }));
  const output = { type: wordType(node.output), shape: node.output.type.shape };
  const text = regionText(
    steps,
    inputs.map((input) => input.type),
  );
  const kernel = broadcastKernel({ family: 'region', params: { text }, inputs, output, functions: () => text });
  return oneStep(node, kernel, [...node.inputs.map((ref) => arg(ref, 'read')), arg(node.output, 'write')]);
};
