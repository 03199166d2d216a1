import { ShapeError } from '../core/errors.js';
import { elementCount, formatType, type Shape, type TensorType } from '../core/tensor.js';
import { compareFunctions } from './compare.js';
import type { HostTensor, OpDefinition } from './definition.js';
import { binaryFunctions, broadcastShapes, broadcastStrides, stridedOffset, unaryFunctions } from './elementwise.js';
import type { RegionOperand, RegionStep } from './params.js';

/** Steps of one region at most. */
export const maxRegionSteps = 32;

/** Inputs at most: with the output they fill the bindings that every device has. */
export const maxRegionInputs = 7;

/** The operands of a step, in order. */
function regionOperands(step: RegionStep): readonly RegionOperand[] {
  if (step.op === 'unary') return [step.x];
  return step.op === 'where' ? [step.condition, step.x, step.y] : [step.x, step.y];
}

type ScalarType = 'f32' | 'u32';

/** The type of every step's value: comparisons give u32. */
export function regionTypes(steps: readonly RegionStep[]): readonly ScalarType[] {
  return steps.map((step) => (step.op === 'compare' ? 'u32' : 'f32'));
}

function checkSteps(inputs: readonly TensorType[], steps: readonly RegionStep[]): void {
  if (steps.length === 0 || steps.length > maxRegionSteps) throw new ShapeError(`region: 1 to ${maxRegionSteps} steps are wanted, got ${steps.length}`);
  const types = regionTypes(steps);
  steps.forEach((step, index) => {
    regionOperands(step).forEach((operand, position) => {
      const type = 'value' in operand ? 'f32' : 'input' in operand ? inputs[operand.input]?.dtype : operand.step < index ? types[operand.step] : undefined;
      const wanted: ScalarType = step.op === 'where' && position === 0 ? 'u32' : 'f32';
      if (type !== wanted)
        throw new ShapeError(`region: operand ${position} of step ${index} (${step.op}) must be ${wanted} and come before it, got ${type ?? 'nothing'}`);
    });
  });
}

/** One value of a region, from the values of its inputs at one place. */
function evaluateRegion(steps: readonly RegionStep[], inputs: ArrayLike<number>, values: Float64Array): number {
  const at = (operand: RegionOperand): number =>
    'value' in operand ? operand.value : (('input' in operand ? inputs[operand.input] : values[operand.step]) ?? Number.NaN);
  steps.forEach((step, index) => {
    values[index] = stepValue(step, at);
  });
  return values[steps.length - 1] ?? Number.NaN;
}

function stepValue(step: RegionStep, at: (operand: RegionOperand) => number): number {
  switch (step.op) {
    case 'unary':
      return unaryFunctions[step.fn](at(step.x), step.a ?? 0, step.b ?? 0);
    case 'binary':
      return binaryFunctions[step.fn](at(step.x), at(step.y));
    case 'compare':
      return compareFunctions[step.fn](at(step.x), at(step.y)) ? 1 : 0;
    case 'where':
      return at(step.condition) === 0 ? at(step.y) : at(step.x);
  }
}

/**
 * A chain of elementwise steps as one operation: y = the last step's value. Inputs f32 (u32 where a step takes a condition) of shapes that broadcast together; y has the
 * common shape. Made by the rewriter.
 */
const region: OpDefinition<'region'> = {
  arity: [1, maxRegionInputs],
  type(inputs, { steps }) {
    checkSteps(inputs, steps);
    const shape = inputs.map((input) => input.shape).reduce<Shape>((a, b) => broadcastShapes('region', a, b), []);
    const dtype = regionTypes(steps).at(-1) ?? 'f32';
    if (inputs.some((input) => input.dtype !== 'f32' && input.dtype !== 'u32'))
      throw new ShapeError(`region: inputs must be f32 or u32, got ${inputs.map(formatType).join(' ')}`);
    return { dtype, shape };
  },
  reference(inputs, { steps }, output) {
    const values = new Float64Array(steps.length);
    const strides = inputs.map((input) => broadcastStrides(input.shape, output.shape));
    const read = (input: HostTensor, i: number, index: number): number => input.data[stridedOffset(index, output.shape, strides[i] ?? [])] ?? Number.NaN;
    return Float64Array.from({ length: elementCount(output.shape) }, (_, index) =>
      evaluateRegion(
        steps,
        inputs.map((input, i) => read(input, i, index)),
        values,
      ),
    );
  },
};

export const regionOps = { region };
