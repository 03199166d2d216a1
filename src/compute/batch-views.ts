import { elementCount, type Shape } from '../core/tensor.js';
import type { TensorView } from '../core/views/tensor-view.js';

/** Where operations find the elements of a view of a buffer. */
export type ViewReading =
  /** The whole buffer as it is. */
  | { readonly kind: 'whole' }
  /** The whole buffer, repeated along axes: `shape` has 1 there, and operations that broadcast read it in place. */
  | { readonly kind: 'repeated'; readonly shape: Shape }
  /** The whole buffer as a matrix [columns, rows], read column by column: products read it in place. */
  | { readonly kind: 'turned' }
  /** By one stride an axis: one kernel copies it. */
  | { readonly kind: 'strided'; readonly strides: readonly number[] }
  /** In tiles: copied by a list of its elements. */
  | { readonly kind: 'listed' };

/** What a batch made of a view that an operation was given. */
export interface BatchViewReport {
  readonly operation: string;
  /** Shape of the view, and the buffer that it is of. */
  readonly shape: Shape;
  readonly buffer: number;
  readonly reading: 'in place' | 'copied';
  readonly reason: string;
}

/** How a view of a buffer of `size` elements can be read. Pure. */
export function readingOf(view: TensorView<unknown>, size: number): ViewReading {
  if (!view.isStrided) return { kind: 'listed' };
  const { shape, strides, offset } = view;
  if (offset === 0 && view.numel === size && view.isContiguous) return { kind: 'whole' };
  const once = shape.map((extent, axis) => (strides[axis] === 0 ? 1 : extent));
  if (offset === 0 && elementCount(once) === size && packed(once, strides)) return { kind: 'repeated', shape: once };
  const [rows = 0, columns = 0] = shape;
  if (shape.length === 2 && offset === 0 && rows * columns === size && strides[0] === 1 && strides[1] === rows) return { kind: 'turned' };
  return { kind: 'strided', strides };
}

/** Whether axes of more than one coordinate lie one in the other without gaps, the last fastest. */
function packed(shape: Shape, strides: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis] ?? 1;
    if (size !== 1 && strides[axis] !== expected) return false;
    expected *= size;
  }
  return true;
}
