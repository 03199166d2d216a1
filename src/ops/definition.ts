import { ArgumentError, GraphError, ShapeError } from '../core/errors.js';
import { formatType, type Shape, type TensorType } from '../core/tensor.js';
import type { OpName, OpParams } from './params.js';

/** A tensor of the f64 reference. Integers are held exactly; packed weights are decoded before they come here. */
export interface HostTensor {
  readonly shape: Shape;
  readonly data: Float64Array;
}

/** What one operation means. The reference is the meaning: it runs in f64, in the plainest order, and never gets clever. */
export interface OpDefinition<K extends OpName> {
  /** Number of inputs, or the range that the parameters decide within. */
  readonly arity: number | readonly [min: number, max: number];
  /** The output's type; throws `ShapeError` where the inputs do not fit. */
  type(inputs: readonly TensorType[], params: OpParams[K]): TensorType;
  /** The output's values; inputs have passed `type`. An updating operation returns the new contents of the state. */
  reference(inputs: readonly HostTensor[], params: OpParams[K], output: TensorType): Float64Array;
  /**
   * State inputs that the operation writes in place. A number: the output is that state's new version. A list: the output is a tensor of its own, and the states' new contents, which
   * `updated` gives in the order of the list, are for the next run.
   */
  readonly updates?: number | readonly number[];
  updated?(inputs: readonly HostTensor[], params: OpParams[K]): readonly Float64Array[];
}

/** A leaf has no inputs; its type is given where it is made. */
export interface LeafDefinition {
  readonly arity: 0;
}

/** An input whose presence the arity check has proven. */
export function need<T>(input: T | undefined): T {
  if (input === undefined) throw new GraphError('an input is missing although the arity was checked');
  return input;
}

export function expectRank(op: string, what: string, type: TensorType, rank: number): void {
  if (type.shape.length !== rank) throw new ShapeError(`${op}: ${what} must have ${rank} axes, got ${formatType(type)}`);
}

export function expectEqual(op: string, what: string, got: number | undefined, wanted: number | undefined): void {
  if (got !== wanted) throw new ShapeError(`${op}: ${what} must be ${wanted}, got ${got}`);
}

export function expectFloat(op: string, what: string, type: TensorType): void {
  if (type.dtype !== 'f32') throw new ShapeError(`${op}: ${what} must be f32, got ${formatType(type)}`);
}

/** A function of a family that the op table has: names come from plain JavaScript too. */
export function expectKnown(op: string, fn: string, functions: object): void {
  if (!Object.hasOwn(functions, fn)) throw new ArgumentError('fn', `${op} knows ${Object.keys(functions).join(', ')}, got ${fn}`);
}

/** A scalar parameter that kernels have as a constant. It comes from plain JavaScript too. */
export function expectScalar(op: string, name: string, value: number, least = Number.NEGATIVE_INFINITY): void {
  if (typeof value === 'number' && Number.isFinite(value) && value >= least) return;
  throw new ArgumentError(name, `${op}: ${name} must be a finite number${Number.isFinite(least) ? ` from ${least}` : ''}, got ${String(value)}`);
}
