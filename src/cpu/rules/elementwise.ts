import { elementCount, type Shape, sameShape } from '../../core/tensor.js';
import { binaryFunctions, broadcastStrides, stridedOffset, unaryFunctions } from '../../ops/elementwise.js';
import type { BinaryFunction, OpParams } from '../../ops/params.js';
import type { LoweringRule } from '../../ops/target.js';
import type { CpuContext, CpuKernel } from '../kernel.js';
import { type Gate, gateProgram, gateVectors } from '../kernels/gates.js';
import { cpuStep, inputOf } from '../step.js';

export const unary: LoweringRule<'unary', CpuKernel> = (node) => {
  const x = inputOf(node, 0);
  const size = elementCount(x.type.shape);
  const { fn } = node.params;
  const kernel = fn === 'silu' || fn === 'sigmoid' ? gateKernel(fn, size) : unaryKernel(node.params, size);
  return [cpuStep(node, kernel, [x, 'read'], [node.output, 'write'])];
};

export const swiglu: LoweringRule<'swiglu', CpuKernel> = (node) => {
  const [gate, up] = [inputOf(node, 0), inputOf(node, 1)];
  return [cpuStep(node, gateKernel('swiglu', elementCount(gate.type.shape)), [gate, 'read'], [up, 'read'], [node.output, 'write'])];
};

/** The last vector may cover fewer than 4 elements: what lies behind a value in its slot of 64 bytes is nobody's. */
function gateKernel(gate: Gate, size: number): CpuKernel {
  const program = gateProgram(gate);
  return {
    key: `gate:${gate},${size}`,
    family: gate,
    programs: [program],
    bind(context) {
      const compiled = context.compiled(program);
      const [x, second, vectors] = [context.address(0), context.address(1), gateVectors(size)];
      const y = gate === 'swiglu' ? context.address(2) : second;
      return () => compiled(x, second, y, vectors);
    },
  };
}

/** Every other function by the reference's f64 arithmetic, rounded once. */
function unaryKernel(params: OpParams['unary'], size: number): CpuKernel {
  const { fn, a = 0, b = 0 } = params;
  const apply = unaryFunctions[fn];
  return {
    key: `unary:${fn},${a},${b},${size}`,
    family: fn,
    programs: [],
    bind(context) {
      const [x, y] = [context.f32(0), context.f32(1)];
      return () => {
        for (let i = 0; i < size; i++) y[i] = apply(x[i] ?? Number.NaN, a, b);
      };
    },
  };
}

export const binary: LoweringRule<'binary', CpuKernel> = (node) => {
  const [a, b] = [inputOf(node, 0), inputOf(node, 1)];
  const kernel = binaryKernel(node.params.fn, a.type.shape, b.type.shape, node.output.type.shape);
  return [cpuStep(node, kernel, [a, 'read'], [b, 'read'], [node.output, 'write'])];
};

function binaryKernel(fn: BinaryFunction, a: Shape, b: Shape, output: Shape): CpuKernel {
  return {
    key: `binary:${fn},[${a.join(',')}],[${b.join(',')}]`,
    family: fn,
    programs: [],
    bind: (context) => (sameShape(a, b) ? equalShapes(fn, elementCount(output), context) : broadcast(fn, a, b, output, context)),
  };
}

function equalShapes(fn: BinaryFunction, size: number, context: CpuContext): () => void {
  const [x, y, z] = [context.f32(0), context.f32(1), context.f32(2)];
  // Additions and products are in every layer: no call per element.
  if (fn === 'add') return () => void addAll(x, y, z, size);
  if (fn === 'mul') return () => void multiplyAll(x, y, z, size);
  const apply = binaryFunctions[fn];
  return () => {
    for (let i = 0; i < size; i++) z[i] = apply(x[i] ?? Number.NaN, y[i] ?? Number.NaN);
  };
}

function addAll(x: Float32Array, y: Float32Array, z: Float32Array, size: number): void {
  for (let i = 0; i < size; i++) z[i] = (x[i] ?? 0) + (y[i] ?? 0);
}

function multiplyAll(x: Float32Array, y: Float32Array, z: Float32Array, size: number): void {
  for (let i = 0; i < size; i++) z[i] = (x[i] ?? 0) * (y[i] ?? 0);
}

/** Offsets are found once, when the step is bound. */
function broadcast(fn: BinaryFunction, a: Shape, b: Shape, output: Shape, context: CpuContext): () => void {
  const [x, y, z] = [context.f32(0), context.f32(1), context.f32(2)];
  const apply = binaryFunctions[fn];
  const [offsetsA, offsetsB] = [offsets(a, output), offsets(b, output)];
  return () => {
    for (let i = 0; i < offsetsA.length; i++) z[i] = apply(x[offsetsA[i] ?? 0] ?? Number.NaN, y[offsetsB[i] ?? 0] ?? Number.NaN);
  };
}

function offsets(shape: Shape, output: Shape): Uint32Array {
  const strides = broadcastStrides(shape, output);
  return Uint32Array.from({ length: elementCount(output) }, (_, index) => stridedOffset(index, output, strides));
}
