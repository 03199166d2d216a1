/** Elementwise chains, comparisons, choices and casts, in plain loops over typed arrays. */

import { elementCount, type Shape, sameShape } from '../../core/tensor.js';
import { castValue, compareFunctions } from '../../ops/compare.js';
import { binaryFunctions, broadcastStrides, stridedOffset, unaryFunctions } from '../../ops/elementwise.js';
import type { ComputeOp, RegionOperand, RegionStep } from '../../ops/params.js';
import type { LoweringNode, LoweringRule, TensorRef } from '../../ops/target.js';
import type { CpuContext, CpuKernel } from '../kernel.js';
import { cpuStep, inputOf } from '../step.js';

type Words = Float32Array | Uint32Array | Int32Array;

/** Argument `index` as what its type says. */
function viewOf(context: CpuContext, index: number, ref: TensorRef): Words {
  if (ref.type.dtype === 'f32') return context.f32(index);
  const words = context.u32(index);
  return ref.type.dtype === 'i32' ? new Int32Array(words.buffer, words.byteOffset, words.length) : words;
}

/** Where the elements of an operand that repeats lie, for each element of the output; undefined where it lies as the output does. */
function offsetsOf(shape: Shape, output: Shape): Uint32Array | undefined {
  if (sameShape(shape, output) || elementCount(shape) === elementCount(output)) return undefined;
  const strides = broadcastStrides(shape, output);
  return Uint32Array.from({ length: elementCount(output) }, (_, index) => stridedOffset(index, output, strides));
}

interface Operand {
  readonly data: Words;
  readonly offsets: Uint32Array | undefined;
}

function operandsOf(node: LoweringNode<ComputeOp>, context: CpuContext): readonly Operand[] {
  const { shape } = node.output.type;
  return node.inputs.map((ref, i) => ({ data: viewOf(context, i, ref), offsets: offsetsOf(ref.type.shape, shape) }));
}

function read({ data, offsets }: Operand, index: number): number {
  return data[offsets === undefined ? index : (offsets[index] ?? 0)] ?? Number.NaN;
}

function elementwise(
  node: LoweringNode<ComputeOp>,
  detail: string,
  run: (operands: readonly Operand[], y: Words, count: number) => void,
): ReturnType<LoweringRule<ComputeOp, CpuKernel>> {
  const shapes = node.inputs.map((ref) => `${ref.type.dtype}[${ref.type.shape.join(',')}]`).join(';');
  const count = elementCount(node.output.type.shape);
  const kernel: CpuKernel = {
    key: `${node.op}:${detail};${shapes}`,
    family: node.op,
    programs: [],
    bind(context) {
      const [operands, y] = [operandsOf(node, context), viewOf(context, node.inputs.length, node.output)];
      return () => run(operands, y, count);
    },
  };
  return [cpuStep(node, kernel, ...node.inputs.map((ref) => [ref, 'read'] as const), [node.output, 'write'])];
}

const none: Operand = { data: new Float32Array(1), offsets: undefined };

export const compare: LoweringRule<'compare', CpuKernel> = (node) => {
  const holds = compareFunctions[node.params.fn];
  return elementwise(node, node.params.fn, ([a = none, b = none], y, count) => {
    for (let i = 0; i < count; i++) y[i] = holds(read(a, i), read(b, i)) ? 1 : 0;
  });
};

export const where: LoweringRule<'where', CpuKernel> = (node) =>
  elementwise(node, '', ([condition = none, a = none, b = none], y, count) => {
    for (let i = 0; i < count; i++) y[i] = read(condition, i) === 0 ? read(b, i) : read(a, i);
  });

export const cast: LoweringRule<'cast', CpuKernel> = (node) => {
  const { to } = node.params;
  return elementwise(node, `${inputOf(node, 0).type.dtype} to ${to}`, ([x = none], y, count) => {
    for (let i = 0; i < count; i++) y[i] = castValue(read(x, i), to);
  });
};

/** JSON has no word for infinities, NaN and -0. */
function exactNumbers(_: string, value: unknown): unknown {
  return typeof value === 'number' ? `${Object.is(value, -0) ? '-' : ''}${value}` : value;
}

/** Elements that pass through all steps at a time: the values of 32 steps stay in the second-level cache. */
const block = 1024;

/** Step by step over blocks; values between steps are f32, as they are where each step is an operation of its own. */
export const region: LoweringRule<'region', CpuKernel> = (node) => {
  const { steps } = node.params;
  const values = steps.map(() => new Float32Array(block));
  const inputs = node.inputs.map(() => new Float32Array(block));
  return elementwise(node, JSON.stringify(steps, exactNumbers), (operands, y, count) => {
    for (let start = 0; start < count; start += block) {
      const length = Math.min(block, count - start);
      operands.forEach((operand, i) => {
        const into = inputs[i] ?? new Float32Array(block);
        for (let j = 0; j < length; j++) into[j] = read(operand, start + j);
      });
      steps.forEach((step, i) => {
        runStep(step, inputs, values, values[i] ?? new Float32Array(block), length);
      });
      const last = values.at(-1) ?? new Float32Array(block);
      for (let j = 0; j < length; j++) y[start + j] = last[j] ?? Number.NaN;
    }
  });
};

function runStep(step: RegionStep, inputs: readonly Float32Array[], values: readonly Float32Array[], into: Float32Array, length: number): void {
  const of = (operand: RegionOperand): Float32Array =>
    ('value' in operand ? new Float32Array(block).fill(operand.value) : 'input' in operand ? inputs[operand.input] : values[operand.step]) ??
    new Float32Array(block);
  switch (step.op) {
    case 'unary': {
      const [fn, x, a, b] = [unaryFunctions[step.fn], of(step.x), step.a ?? 0, step.b ?? 0];
      for (let i = 0; i < length; i++) into[i] = fn(x[i] ?? 0, a, b);
      return;
    }
    case 'binary': {
      const [fn, x, y] = [binaryFunctions[step.fn], of(step.x), of(step.y)];
      for (let i = 0; i < length; i++) into[i] = fn(x[i] ?? 0, y[i] ?? 0);
      return;
    }
    case 'compare': {
      const [fn, x, y] = [compareFunctions[step.fn], of(step.x), of(step.y)];
      for (let i = 0; i < length; i++) into[i] = fn(x[i] ?? 0, y[i] ?? 0) ? 1 : 0;
      return;
    }
    case 'where': {
      const [condition, x, y] = [of(step.condition), of(step.x), of(step.y)];
      for (let i = 0; i < length; i++) into[i] = (condition[i] === 0 ? y[i] : x[i]) ?? 0;
    }
  }
}
