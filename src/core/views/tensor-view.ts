/** A tensor as a window on a storage: shape, layout and offset, with or without a link to the elements themselves. */

import type { DType } from '../dtype.js';
import { ArgumentError, ShapeError } from '../errors.js';
import { elementCount, type Shape, sameShape } from '../tensor.js';
import { type Axis, assertWhole, axisExtent, axisOffset, axisOffsets, sameAxis, sliceAxis } from './axis.js';
import { assertShape, formatLayout, layoutAxes, type MemoryLayout, stridedAxes } from './layout.js';
import { reshapedAxes } from './reshape.js';

/** Where and how a view's elements lie in their storage. */
export interface ViewOptions {
  /** How the storage is laid out. Default 'row-major'. */
  readonly layout?: MemoryLayout;
  /** Index in the storage of the element [0, 0, ...], in elements. Default 0. */
  readonly offset?: number;
  /** Type of the elements. Default 'f32'. */
  readonly dtype?: DType;
}

/** Elements that a view may be linked to and read through. */
export type HostData = ArrayLike<number>;

interface ViewParts<Data> {
  readonly axes: readonly Axis[];
  readonly offset: number;
  readonly layout: MemoryLayout;
  readonly dtype: DType;
  readonly data: Data;
}

/**
 * An immutable view of any rank. Operations make other views of the same storage and never move an element; where that is impossible they throw.
 *
 * `Data` is what the view is linked to: nothing (`undefined`), an array of numbers, or a handle of the caller's (a device buffer). Arrays are checked to be long
 * enough for every element in reach; of a handle only its owner knows the length (`extent` says what the view needs).
 */
export class TensorView<Data = undefined> {
  /** Elements per axis; [] is a single one. */
  readonly shape: Shape;
  /** Index in the storage of the element [0, 0, ...], in elements. */
  readonly offset: number;
  /** The layout of the storage, as given when the first view of it was made. Views of views keep it; `strides` tells how a view itself walks. */
  readonly layout: MemoryLayout;
  /** Type of the elements. */
  readonly dtype: DType;
  /** What the view is linked to: undefined, an array, or the caller's handle. */
  readonly data: Data;
  readonly #axes: readonly Axis[];

  private constructor({ axes, offset, layout, dtype, data }: ViewParts<Data>) {
    this.#axes = axes;
    this.shape = axes.map(({ size }) => size);
    this.offset = offset;
    this.layout = layout;
    this.dtype = dtype;
    this.data = data;
    assertWhole('offset', offset, 0, 'the offset of a view');
    this.#assertInside();
  }

  /** A view of a whole tensor, packed in the given layout. The shape may have any number of axes, none for a scalar, and sizes of 0. */
  static create(shape: Shape, options: ViewOptions = {}): TensorView {
    return TensorView.over(undefined, shape, options);
  }

  /**
   * As `create`, linked to `data`.
   * @throws ShapeError where `data` is an array too short for the view.
   */
  static over<Data>(data: Data, shape: Shape, options: ViewOptions = {}): TensorView<Data> {
    assertShape(shape);
    const { layout = 'row-major', offset = 0, dtype = 'f32' } = options;
    return new TensorView({ axes: layoutAxes(shape, layout), offset, layout, dtype, data });
  }

  /** A vector of `length` elements. */
  static new1d(length: number, options?: ViewOptions): TensorView {
    return TensorView.create([length], options);
  }

  /** As `create`, of shape [rows, columns]. */
  static new2d(rows: number, columns: number, options?: ViewOptions): TensorView {
    return TensorView.create([rows, columns], options);
  }

  /** As `create`, of shape [d0, d1, d2]. */
  static new3d(d0: number, d1: number, d2: number, options?: ViewOptions): TensorView {
    return TensorView.create([d0, d1, d2], options);
  }

  /** As `create`, of shape [d0, d1, d2, d3]. */
  static new4d(d0: number, d1: number, d2: number, d3: number, options?: ViewOptions): TensorView {
    return TensorView.create([d0, d1, d2, d3], options);
  }

  /** A view with the strides given, in elements; they may be 0 or negative. The layout is row-major by name, the strides decide. */
  static withStrides(shape: Shape, strides: readonly number[], options?: Omit<ViewOptions, 'layout'>): TensorView;
  static withStrides<Data>(shape: Shape, strides: readonly number[], options: Omit<ViewOptions, 'layout'>, data: Data): TensorView<Data>;
  static withStrides<Data>(
    shape: Shape,
    strides: readonly number[],
    { offset = 0, dtype = 'f32' }: Omit<ViewOptions, 'layout'> = {},
    data?: Data,
  ): TensorView<Data | undefined> {
    assertShape(shape);
    if (strides.length !== shape.length) {
      throw new ShapeError(`a view has one stride per axis: got ${strides.length} strides for the shape [${shape.join(', ')}]`);
    }
    for (const stride of strides) {
      if (!Number.isSafeInteger(stride)) throw new ArgumentError('strides', `a stride is a whole number of elements, got ${stride}`);
    }
    return new TensorView({ axes: stridedAxes(shape, strides), offset, layout: 'row-major', dtype, data });
  }

  /** Number of axes. */
  get ndim(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  get numel(): number {
    return elementCount(this.shape);
  }

  /** Whether it has no element: an axis of size 0. */
  get isEmpty(): boolean {
    return this.numel === 0;
  }

  /** Size of an axis. */
  dim(axis: number): number {
    return this.#axis(axis).size;
  }

  /**
   * Elements from one coordinate of an axis to the next.
   * @throws ShapeError for an axis of a tiled storage, which has no single stride: use `linearIndex` or `axisOffsets`.
   */
  stride(axis: number): number {
    const found = this.#axis(axis);
    if (found.tile === undefined) return found.stride;
    throw new ShapeError(`axis ${axis} lies in tiles (${formatLayout(this.layout)}) and has no single stride: use linearIndex() or axisOffsets()`);
  }

  /** One stride per axis, in elements; throws as `stride` does. */
  get strides(): readonly number[] {
    return this.shape.map((_, axis) => this.stride(axis));
  }

  /** Whether every axis has a single stride. */
  get isStrided(): boolean {
    return this.#axes.every(({ tile }) => tile === undefined);
  }

  /** Whether the elements lie one after the other, last axis fastest, wherever they start. Strides of axes of one coordinate do not count; an empty view is. */
  get isContiguous(): boolean {
    if (this.isEmpty) return true;
    let expected = 1;
    for (const axis of this.#axes.toReversed()) {
      if (axis.size === 1) continue;
      if (axis.tile !== undefined || axis.stride !== expected) return false;
      expected *= axis.size;
    }
    return true;
  }

  /** Lowest and highest index of the storage in reach, or undefined for an empty view. */
  get extent(): { readonly min: number; readonly max: number } | undefined {
    if (this.isEmpty) return undefined;
    let min = this.offset;
    let max = this.offset;
    for (const axis of this.#axes) {
      const [least, most] = axisExtent(axis);
      min += least;
      max += most;
    }
    return { min, max };
  }

  /** What each coordinate of an axis adds to the storage index, in elements: with `offset`, all that a loop over the view needs, in every layout. */
  axisOffsets(axis: number): Float64Array<ArrayBuffer> {
    return axisOffsets(this.#axis(axis));
  }

  /**
   * The storage index of an element.
   * @throws ArgumentError for a wrong number of coordinates, or one outside its axis.
   */
  linearIndex(...index: readonly number[]): number {
    if (index.length !== this.ndim) throw new ArgumentError('index', `the view has ${this.ndim} axes, got ${index.length} coordinates`);
    let linear = this.offset;
    for (const [axis, x] of index.entries()) {
      const found = this.#axis(axis);
      if (!Number.isSafeInteger(x) || x < 0 || x >= found.size) {
        throw new ArgumentError('index', `coordinate ${x} is outside axis ${axis} of the shape [${this.shape.join(', ')}]`);
      }
      linear += axisOffset(found, x);
    }
    return linear;
  }

  /** The element itself, of a view that is linked to an array. Bounds are checked as in `linearIndex`. */
  index(this: TensorView<HostData>, ...index: readonly number[]): number {
    return this.data[this.linearIndex(...index)] as number;
  }

  /** Every storage index, elements enumerated with the last axis fastest. */
  *linearIndices(): Generator<number, void, undefined> {
    yield* walk(this.#axes.map(axisOffsets), this.offset, 0);
  }

  /**
   * The elements of a view that is linked to an array, last axis fastest, in memory of their own.
   * @throws ArgumentError for a view of anything else.
   */
  toArray(this: TensorView<HostData>): Float32Array<ArrayBuffer> {
    if (lengthOf(this.data) === undefined)
      throw new ArgumentError(
        'view',
        'the view is not linked to an array of numbers, so that it has no elements to read: make it by TensorView.over(array, shape)',
      );
    const result = new Float32Array(this.numel);
    let next = 0;
    for (const linear of this.linearIndices()) result[next++] = this.data[linear] as number;
    return result;
  }

  /** The same window on other data, a device buffer with a copy of it for instance. */
  withData<Other>(data: Other): TensorView<Other> {
    return new TensorView({ ...this.#parts(), data });
  }

  /**
   * The same shape, offset and data read as if the storage were packed in `layout`: what a kernel that writes that layout needs.
   * @throws ShapeError where the view is not the whole of its storage's layout (a slice or a transpose): its elements would be others.
   */
  withLayout(layout: MemoryLayout): TensorView<Data> {
    const whole = layoutAxes(this.shape, this.layout);
    if (!whole.every((axis, index) => axis.size === 1 || sameAxis(axis, this.#axis(index)))) {
      throw new ShapeError(`only a whole ${formatLayout(this.layout)} tensor can be read in another layout, not a slice or a permutation of one`);
    }
    return new TensorView({ ...this.#parts(), axes: layoutAxes(this.shape, layout), layout });
  }

  /** Coordinates `start` to `end` (exclusive) of axis 0. */
  slice(start: number, end?: number, step?: number): TensorView<Data> {
    return this.sliceDim(0, start, end, step);
  }

  /**
   * Coordinates `start` to `end` (exclusive; default all that follow) of one axis, every `step`-th of them.
   * @throws ArgumentError where the range is reversed or leaves the axis.
   */
  sliceDim(dim: number, start: number, end: number = this.dim(dim), step = 1): TensorView<Data> {
    const axis = this.#axis(dim);
    assertWhole('start', start, 0, 'the start of a slice');
    assertWhole('end', end, 0, 'the end of a slice');
    assertWhole('step', step, 1, 'the step of a slice (use flip to reverse an axis)');
    if (start > end || end > axis.size) {
      throw new ArgumentError(
        start > end ? 'start' : 'end',
        `a slice of axis ${dim} lies within 0..${axis.size} and does not end before it starts, got ${start}..${end}`,
      );
    }
    const size = Math.ceil((end - start) / step);
    const cut = sliceAxis(axis, start, size, step);
    return this.#derive(this.#axes.with(dim, cut.axis), this.offset + cut.shift);
  }

  /** The axis read backwards. */
  flip(dim: number): TensorView<Data> {
    const axis = this.#axis(dim);
    if (axis.size === 0) return this;
    const turned = sliceAxis(axis, axis.size - 1, axis.size, -1);
    return this.#derive(this.#axes.with(dim, turned.axis), this.offset + turned.shift);
  }

  /** Two axes exchanged. A vector has one axis only: `unsqueeze` it first. */
  transpose(dim0: number, dim1: number): TensorView<Data> {
    const [first, second] = [this.#axis(dim0), this.#axis(dim1)];
    return this.#derive(this.#axes.with(dim0, second).with(dim1, first), this.offset);
  }

  /** The axes in another order: axis i of the result is axis `order[i]` of this view. */
  permute(...order: readonly number[]): TensorView<Data> {
    if (order.length !== this.ndim || new Set(order).size !== this.ndim) {
      throw new ArgumentError('order', `an order of ${this.ndim} axes names each of them once, got [${order.join(', ')}]`);
    }
    return this.#derive(
      order.map((axis) => this.#axis(axis)),
      this.offset,
    );
  }

  /**
   * The same elements, enumerated with the last axis fastest, in another shape. Offset and layout stay.
   * @throws ShapeError where the element counts differ, or where no strides give that shape without moving elements (copy them first, with `toArray`).
   */
  reshape(shape: Shape): TensorView<Data> {
    assertShape(shape);
    if (elementCount(shape) !== this.numel) {
      throw new ShapeError(`cannot reshape [${this.shape.join(', ')}] (${this.numel} elements) to [${shape.join(', ')}] (${elementCount(shape)} elements)`);
    }
    if (sameShape(shape, this.shape)) return this;
    const axes = reshapedAxes(this.#axes, shape);
    if (axes !== undefined)
      return this.#derive(
        axes,
        this.#squeezedOffset(() => true),
      );
    throw new ShapeError(`[${this.shape.join(', ')}] cannot become [${shape.join(', ')}] without moving elements: this view is not contiguous; copy it first`);
  }

  /** Without its axes of size 1, or without the one named, which must be of size 1. */
  squeeze(dim?: number): TensorView<Data> {
    if (dim === undefined) {
      return this.#derive(
        this.#axes.filter(({ size }) => size !== 1),
        this.#squeezedOffset((axis) => axis.size === 1),
      );
    }
    const axis = this.#axis(dim);
    if (axis.size !== 1) throw new ShapeError(`axis ${dim} of [${this.shape.join(', ')}] has the size ${axis.size}: only axes of size 1 can be squeezed`);
    return this.#derive(
      this.#axes.toSpliced(dim, 1),
      this.#squeezedOffset((other) => other === axis),
    );
  }

  /** With an axis of size 1 before axis `dim` (0 to ndim). */
  unsqueeze(dim: number): TensorView<Data> {
    if (!Number.isSafeInteger(dim) || dim < 0 || dim > this.ndim) {
      throw new ArgumentError('dim', `a new axis goes to one of the places 0 to ${this.ndim}, got ${dim}`);
    }
    const next = this.#axes[dim];
    const stride = next === undefined ? 1 : next.tile === undefined ? next.size * next.stride : 0;
    return this.#derive(this.#axes.toSpliced(dim, 0, { size: 1, stride }), this.offset);
  }

  /**
   * The view repeated to a larger shape: axes are matched from the last; those of size 1 and those that are missing repeat with stride 0.
   * @throws ShapeError where an axis fits neither.
   */
  broadcastTo(shape: Shape): TensorView<Data> {
    assertShape(shape);
    const added = shape.length - this.ndim;
    const axes = shape.map((size, index): Axis | undefined => {
      const axis = index < added ? { size: 1, stride: 0 } : this.#axis(index - added);
      if (axis.size === size) return axis;
      return axis.size === 1 ? { size, stride: 0 } : undefined;
    });
    const fitting = axes.filter((axis) => axis !== undefined);
    if (added < 0 || fitting.length < axes.length) {
      throw new ShapeError(`[${this.shape.join(', ')}] does not broadcast to [${shape.join(', ')}]: from the last axis on, sizes must be equal or 1`);
    }
    const shift = this.#squeezedOffset((axis) => !fitting.includes(axis));
    return this.#derive(fitting, shift);
  }

  /** "f32[3, 4] row-major at 12". */
  toString(): string {
    return `${this.dtype}[${this.shape.join(', ')}] ${formatLayout(this.layout)} at ${this.offset}`;
  }

  /** The offset once the axes chosen, all of one coordinate, are gone: what their coordinate 0 adds in a tiled storage stays. */
  #squeezedOffset(gone: (axis: Axis) => boolean): number {
    return this.#axes.filter((axis) => gone(axis) && axis.size === 1).reduce((sum, axis) => sum + axisOffset(axis, 0), this.offset);
  }

  #parts(): ViewParts<Data> {
    return { axes: this.#axes, offset: this.offset, layout: this.layout, dtype: this.dtype, data: this.data };
  }

  #derive(axes: readonly Axis[], offset: number): TensorView<Data> {
    return new TensorView({ ...this.#parts(), axes, offset });
  }

  #axis(dim: number): Axis {
    const axis = Number.isSafeInteger(dim) && dim >= 0 ? this.#axes[dim] : undefined;
    if (axis === undefined) throw new ArgumentError('dim', `the view has axes 0 to ${this.ndim - 1}, got ${dim}`);
    return axis;
  }

  #assertInside(): void {
    const { extent } = this;
    if (extent === undefined) return;
    if (extent.min < 0) throw new ShapeError(`the view [${this.shape.join(', ')}] at ${this.offset} reaches index ${extent.min}, before its storage`);
    const length = lengthOf(this.data);
    if (length !== undefined && extent.max >= length) {
      throw new ShapeError(`the view [${this.shape.join(', ')}] at ${this.offset} reaches index ${extent.max}, past the ${length} elements of its data`);
    }
  }
}

function lengthOf(data: unknown): number | undefined {
  return Array.isArray(data) || (ArrayBuffer.isView(data) && !(data instanceof DataView)) ? (data as unknown as ArrayLike<unknown>).length : undefined;
}

function* walk(tables: readonly Float64Array[], base: number, axis: number): Generator<number, void, undefined> {
  const table = tables[axis];
  if (table === undefined) {
    yield base;
    return;
  }
  const last = axis === tables.length - 1;
  for (const offset of table) {
    if (last) yield base + offset;
    else yield* walk(tables, base + offset, axis + 1);
  }
}
