/** Comparisons, choices and casts. */

import { PlanError } from '../core/errors.js';
import type { GpuKernel } from '../core/kernel.js';
import { need } from '../ops/definition.js';
import type { CompareFunction, ComputeOp } from '../ops/params.js';
import type { LoweringNode, LoweringRule, TensorRef } from '../ops/target.js';
import { broadcastKernel } from './broadcast.js';
import { arg, isNanFunction, oneStep } from './template.js';

type Scalar = 'f32' | 'u32' | 'i32';

const operators: { readonly [F in CompareFunction]: string } = { eq: '==', ne: '!=', lt: '<', le: '<=', gt: '>', ge: '>=' };

/** `fn NAME(x, y) -> u32`; of floats the module must hold `isNan`. */
export function compareText(name: string, fn: CompareFunction, type: Scalar): string {
  const nan = type === 'f32' ? `  if (isNan(x) || isNan(y)) { return ${fn === 'ne' ? 1 : 0}u; }\n` : '';
  return `fn ${name}(x: ${type}, y: ${type}) -> u32 {\n${nan}  return select(0u, 1u, x ${operators[fn]} y);\n}\n`;
}

/** The WGSL type of a value's elements, which must be of 4 bytes. */
export function wordType(ref: TensorRef): Scalar {
  const { dtype } = ref.type;
  if (dtype === 'f32' || dtype === 'u32' || dtype === 'i32') return dtype;
  throw new PlanError(`value ${ref.id} is ${dtype}, which no kernel of tensors reads`);
}

const operandOf = (ref: TensorRef): { readonly type: Scalar; readonly shape: readonly number[] } => ({ type: wordType(ref), shape: ref.type.shape });

const steps = (node: LoweringNode<ComputeOp>, kernel: GpuKernel): ReturnType<typeof oneStep> =>
  oneStep(node, kernel, [...node.inputs.map((ref) => arg(ref, 'read')), arg(node.output, 'write')]);

export const compareRule: LoweringRule<'compare', GpuKernel> = (node) => {
  const { fn } = node.params;
  const inputs = node.inputs.map(operandOf);
  const type = need(inputs[0]).type;
  const functions = (): string => `${type === 'f32' ? isNanFunction : ''}${compareText('apply', fn, type)}`;
  return steps(node, broadcastKernel({ family: 'compare', params: { fn }, inputs, output: operandOf(node.output), functions }));
};

/** Bits are chosen, whatever they mean. */
export const whereRule: LoweringRule<'where', GpuKernel> = (node) => {
  const bits = (ref: TensorRef): { readonly type: 'u32'; readonly shape: readonly number[] } => ({ type: 'u32', shape: ref.type.shape });
  const functions = (): string => 'fn apply(c: u32, x: u32, y: u32) -> u32 {\n  return select(y, x, c != 0u);\n}\n';
  return steps(node, broadcastKernel({ family: 'where', params: {}, inputs: node.inputs.map(bits), output: bits(node.output), functions }));
};

/** Towards 0, held at the ends of the range, NaN as 0. */
function castText(from: Scalar, to: Scalar): string {
  const head = `fn apply(x: ${from}) -> ${to} {\n`;
  if (from === to) return `${head}  return x;\n}\n`;
  if (to === 'f32') return `${head}  return f32(x);\n}\n`;
  if (from === 'i32') return `${head}  return u32(max(x, 0i));\n}\n`;
  if (from === 'u32') return `${head}  return i32(min(x, 0x7fffffffu));\n}\n`;
  const [low, high, least, most] =
    to === 'i32' ? ['-2147483648.0f', '2147483648.0f', 'i32(-2147483648)', '2147483647i'] : ['0.0f', '4294967296.0f', '0u', '4294967295u'];
  return `${isNanFunction}${head}  if (isNan(x)) { return ${to === 'i32' ? '0i' : '0u'}; }
  if (x <= ${low}) { return ${least}; }
  if (x >= ${high}) { return ${most}; }
  return ${to}(x);
}
`;
}

export const castRule: LoweringRule<'cast', GpuKernel> = (node) => {
  const [from, to] = [operandOf(need(node.inputs[0])), operandOf(node.output)];
  return steps(node, broadcastKernel({ family: 'cast', params: { to: to.type }, inputs: [from], output: to, functions: () => castText(from.type, to.type) }));
};
