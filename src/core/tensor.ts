import { byteLengthOf, type DType } from './dtype.js';

/** Sizes of a tensor, slowest axis first: a [rows, columns] matrix is stored row after row. */
export type Shape = readonly number[];

/** Element type and sizes of a tensor. */
export interface TensorType {
  readonly dtype: DType;
  readonly shape: Shape;
}

export function elementCount(shape: Shape): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** True bytes, without padding. */
export function byteLengthOfType(type: TensorType): number {
  return byteLengthOf(type.dtype, elementCount(type.shape));
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}

/** "f32[2, 64]", as error messages and reports print it. */
export function formatType(type: TensorType): string {
  return `${type.dtype}[${type.shape.join(', ')}]`;
}

export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
