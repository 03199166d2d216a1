import { ArgumentError, shown } from '../core/errors.js';
import { TensorView } from '../core/views/tensor-view.js';

/** f32 numbers, or a view of some. */
export type HostArray = Float32Array | TensorView<Float32Array>;

/**
 * The numbers of an argument: its own array, or the elements of a view in their order.
 * @throws ArgumentError for anything else: calls come from plain JavaScript too.
 */
export function hostValues(argument: string, x: HostArray): Float32Array {
  if (x instanceof Float32Array) return x;
  if (x instanceof TensorView) return x.toArray();
  throw new ArgumentError(argument, `${argument} must be a Float32Array or a view of one, got ${shown(x)}: convert numbers by Float32Array.from()`);
}
