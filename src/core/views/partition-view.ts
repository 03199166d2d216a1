/** A tensor cut into equal tiles, for kernels that take one tile per workgroup. */

import { ArgumentError, ShapeError } from '../errors.js';
import { elementCount, type Shape } from '../tensor.js';
import { assertWhole } from './axis.js';
import type { TensorView } from './tensor-view.js';

/** One tile of a partition. */
export interface TileInfo {
  /** Position in the grid of tiles, per axis. */
  readonly tileIndex: readonly number[];
  /** First coordinate, per axis. */
  readonly start: readonly number[];
  /** Coordinates, per axis: the tile's shape, less at the far edges. */
  readonly size: readonly number[];
  /** Whether it is smaller than the tile's shape along any axis. */
  readonly isEdge: boolean;
}

/** Tiles in row-major order (last axis fastest). `remaining` counts down as they are taken. */
export class TileIterator implements IterableIterator<TileInfo> {
  readonly #tileAt: (position: number) => TileInfo;
  readonly #total: number;
  #position = 0;

  constructor(total: number, tileAt: (position: number) => TileInfo) {
    this.#total = total;
    this.#tileAt = tileAt;
  }

  /** Tiles that are still to come. */
  get remaining(): number {
    return this.#total - this.#position;
  }

  next(): IteratorResult<TileInfo, undefined> {
    if (this.remaining === 0) return { done: true, value: undefined };
    return { done: false, value: this.#tileAt(this.#position++) };
  }

  [Symbol.iterator](): this {
    return this;
  }
}

/** Most threads along one axis of the workgroup recommended for a two-dimensional tile, and in all for another. */
const workgroupEdge = 16;
const workgroupThreads = 256;

/** A tensor cut into tiles of one shape, those at the far edges smaller. */
export class PartitionView<Data = undefined> {
  /** What is cut. */
  readonly tensor: TensorView<Data>;
  /** Coordinates of a whole tile, per axis. */
  readonly tileShape: Shape;
  /** Tiles per axis. */
  readonly tileCount: readonly number[];

  /**
   * @throws ShapeError where `tileShape` has not one size per axis of `tensor`.
   * @throws ArgumentError where a size is not a whole number from 1.
   */
  constructor(tensor: TensorView<Data>, tileShape: Shape) {
    if (tileShape.length !== tensor.ndim) {
      throw new ShapeError(`a tile of a tensor of shape [${tensor.shape.join(', ')}] has ${tensor.ndim} sizes, got [${tileShape.join(', ')}]`);
    }
    for (const [axis, size] of tileShape.entries()) assertWhole('tileShape', size, 1, `the size of a tile along axis ${axis}`);
    this.tensor = tensor;
    this.tileShape = [...tileShape];
    this.tileCount = tensor.shape.map((size, axis) => Math.ceil(size / this.#tileSize(axis)));
  }

  /** Tiles whose sizes are powers of two, given as their logarithms. */
  static powerOfTwo<Data>(tensor: TensorView<Data>, log2: readonly number[]): PartitionView<Data> {
    for (const [axis, exponent] of log2.entries()) {
      if (!Number.isSafeInteger(exponent) || exponent < 0 || exponent > 30) {
        throw new ArgumentError('log2', `the logarithm of a tile's size along axis ${axis} is a whole number from 0 to 30, got ${exponent}`);
      }
    }
    return new PartitionView(
      tensor,
      log2.map((exponent) => 2 ** exponent),
    );
  }

  /** Tiles of `rows` by `columns` over the first two axes, of 1 over those that follow. */
  static new2d<Data>(tensor: TensorView<Data>, rows: number, columns: number): PartitionView<Data> {
    if (tensor.ndim < 2) throw new ShapeError(`tiles of rows and columns need two axes, the tensor has the shape [${tensor.shape.join(', ')}]`);
    return new PartitionView(
      tensor,
      tensor.shape.map((_, axis) => [rows, columns][axis] ?? 1),
    );
  }

  /** Tiles in all. */
  get totalTiles(): number {
    return elementCount(this.tileCount);
  }

  /** Elements of a tile that is not cut by an edge. */
  get elementsPerTile(): number {
    return elementCount(this.tileShape);
  }

  /** Whether the tile's sizes are powers of two. */
  get isPowerOfTwoTiles(): boolean {
    return this.tileShape.every((size) => Number.isInteger(Math.log2(size)));
  }

  /**
   * A tile by its position in the grid, or undefined outside the grid.
   * @throws ArgumentError for a wrong number of coordinates.
   */
  getTile(...tileIndex: readonly number[]): TileInfo | undefined {
    if (tileIndex.length !== this.tensor.ndim) {
      throw new ArgumentError('tileIndex', `the grid of tiles has ${this.tensor.ndim} axes, got ${tileIndex.length} coordinates`);
    }
    if (!tileIndex.every((x, axis) => Number.isSafeInteger(x) && x >= 0 && x < (this.tileCount[axis] ?? 0))) return undefined;
    const start = tileIndex.map((x, axis) => x * this.#tileSize(axis));
    const size = start.map((first, axis) => Math.min(this.#tileSize(axis), this.tensor.dim(axis) - first));
    return { tileIndex: [...tileIndex], start, size, isEdge: size.some((length, axis) => length < this.#tileSize(axis)) };
  }

  /** The elements of a tile as a view of the same storage, or undefined outside the grid. */
  getTileView(...tileIndex: readonly number[]): TensorView<Data> | undefined {
    const tile = this.getTile(...tileIndex);
    return tile?.start.reduce<TensorView<Data>>((view, start, axis) => view.sliceDim(axis, start, start + (tile.size[axis] ?? 0)), this.tensor);
  }

  /** Every tile, last axis fastest; none where the tensor is empty. */
  iterTiles(): TileIterator {
    return new TileIterator(this.totalTiles, (position) => this.#tileAt(position));
  }

  /** The tiles, the last axis fastest. */
  [Symbol.iterator](): TileIterator {
    return this.iterTiles();
  }

  /**
   * Threads for one tile: up to 16 x 16, x along axis 1 and y along axis 0, where a tile has several coordinates in both; else up to 256 along x. Never more
   * than WebGPU's guaranteed 256.
   */
  recommendedWorkgroupSize(): readonly [x: number, y: number, z: number] {
    const [rows = 1, columns = 1] = this.tileShape;
    if (rows > 1 && columns > 1) return [Math.min(columns, workgroupEdge), Math.min(rows, workgroupEdge), 1];
    return [Math.min(this.elementsPerTile, workgroupThreads), 1, 1];
  }

  #tileSize(axis: number): number {
    return this.tileShape[axis] ?? 1;
  }

  #tileAt(position: number): TileInfo {
    const tileIndex: number[] = [];
    let rest = position;
    for (const count of this.tileCount.toReversed()) {
      tileIndex.unshift(rest % count);
      rest = Math.floor(rest / count);
    }
    return this.getTile(...tileIndex) as TileInfo;
  }
}
