import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PartitionView } from '../../src/core/views/partition-view.js';
import { TensorView } from '../../src/core/views/tensor-view.js';

const argumentError = expect.objectContaining({ name: 'ArgumentError', code: 'E_ARGUMENT' });
const shapeError = expect.objectContaining({ name: 'ShapeError', code: 'E_SHAPE_MISMATCH' });

describe('PartitionView', () => {
  const edged = PartitionView.new2d(TensorView.create([17, 33, 1, 1]), 4, 8);

  it('counts tiles per axis, cut ones included', () => {
    expect(edged.tileCount).toEqual([5, 5, 1, 1]);
    expect(edged.totalTiles).toBe(25);
    expect(edged.tileShape).toEqual([4, 8, 1, 1]);
    expect(edged.elementsPerTile).toBe(32);
  });

  it('divides evenly where it can', () => {
    const view = new PartitionView(TensorView.create([16, 16]), [4, 4]);
    expect(view.tileCount).toEqual([4, 4]);
    expect([...view].some(({ isEdge }) => isEdge)).toBe(false);
  });

  it('keeps the tensor', () => {
    const tensor = TensorView.create([8, 8]);
    expect(new PartitionView(tensor, [2, 2]).tensor).toBe(tensor);
  });

  it('describes a tile inside', () => {
    expect(edged.getTile(1, 2, 0, 0)).toEqual({ tileIndex: [1, 2, 0, 0], start: [4, 16, 0, 0], size: [4, 8, 1, 1], isEdge: false });
  });

  it('cuts tiles at the edges', () => {
    expect(new PartitionView(TensorView.create([10, 10]), [4, 4]).getTile(2, 2)).toEqual({ tileIndex: [2, 2], start: [8, 8], size: [2, 2], isEdge: true });
    expect(edged.getTile(4, 0, 0, 0)).toMatchObject({ size: [1, 8, 1, 1], isEdge: true });
  });

  it('has no tile outside the grid', () => {
    for (const index of [
      [5, 0, 0, 0],
      [0, 5, 0, 0],
      [-1, 0, 0, 0],
      [0.5, 0, 0, 0],
    ]) {
      expect(edged.getTile(...index)).toBeUndefined();
      expect(edged.getTileView(...index)).toBeUndefined();
    }
    expect(() => edged.getTile(0, 0)).toThrow(argumentError);
  });

  it('gives a tile as a view of the same storage', () => {
    const view = new PartitionView(TensorView.create([17, 33]), [4, 4]).getTileView(1, 1);
    expect(view).toMatchObject({ offset: 136, shape: [4, 4], strides: [33, 1] });
    expect(new PartitionView(TensorView.create([32, 32]), [4, 8]).getTileView(1, 1)).toMatchObject({ offset: 136, shape: [4, 8] });
    expect(edged.getTileView(4, 4, 0, 0)?.shape).toEqual([1, 1, 1, 1]);
  });

  it('gives tiles in row-major order', () => {
    const order = [...new PartitionView(TensorView.create([4, 6]), [2, 2])].map(({ tileIndex }) => tileIndex);
    expect(order).toEqual([
      [0, 0],
      [0, 1],
      [0, 2],
      [1, 0],
      [1, 1],
      [1, 2],
    ]);
  });

  it('defect: the iterator counts what remains, not always the total', () => {
    const tiles = new PartitionView(TensorView.create([4, 6]), [2, 2]).iterTiles();
    const seen = [tiles.remaining];
    for (const _ of tiles) seen.push(tiles.remaining);
    expect(seen).toEqual([6, 5, 4, 3, 2, 1, 0]);
    expect(tiles.next()).toEqual({ done: true, value: undefined });
    expect(tiles.remaining).toBe(0);
  });

  it('covers every element once', () => {
    const covered = new Uint8Array(15 * 17);
    const view = new PartitionView(TensorView.over(covered, [15, 17]), [4, 4]);
    for (const { tileIndex } of view) for (const linear of view.getTileView(...tileIndex)?.linearIndices() ?? []) covered[linear] = (covered[linear] ?? 0) + 1;
    expect(covered.every((count) => count === 1)).toBe(true);
  });

  it('takes a tile larger than the tensor as one edge tile', () => {
    const view = new PartitionView(TensorView.create([3, 5]), [8, 8]);
    expect(view.totalTiles).toBe(1);
    expect(view.getTile(0, 0)).toEqual({ tileIndex: [0, 0], start: [0, 0], size: [3, 5], isEdge: true });
  });

  it('refuses tiles of no size, and tiles of another rank', () => {
    for (const tile of [
      [0, 4],
      [4, -1],
      [1.5, 1],
    ])
      expect(() => new PartitionView(TensorView.create([8, 8]), tile)).toThrow(argumentError);
    expect(() => new PartitionView(TensorView.create([8, 8]), [4])).toThrow(shapeError);
    expect(() => PartitionView.new2d(TensorView.create([8]), 2, 2)).toThrow(shapeError);
  });

  it('takes powers of two by their logarithms', () => {
    const view = PartitionView.powerOfTwo(TensorView.create([64, 64]), [4, 3]);
    expect(view.tileShape).toEqual([16, 8]);
    expect(view.isPowerOfTwoTiles).toBe(true);
    expect(new PartitionView(TensorView.create([64, 64]), [16, 12]).isPowerOfTwoTiles).toBe(false);
    expect(() => PartitionView.powerOfTwo(TensorView.create([64, 64]), [-1, 3])).toThrow(argumentError);
  });

  it('iterates nothing over an empty tensor', () => {
    const view = new PartitionView(TensorView.create([0, 5]), [2, 2]);
    expect(view.totalTiles).toBe(0);
    expect([...view]).toEqual([]);
    expect(view.getTile(0, 0)).toBeUndefined();
  });

  it('recommends up to 16 x 16 threads for matrices', () => {
    expect(PartitionView.new2d(TensorView.create([64, 64]), 32, 64).recommendedWorkgroupSize()).toEqual([16, 16, 1]);
    expect(PartitionView.new2d(TensorView.create([64, 64]), 8, 4).recommendedWorkgroupSize()).toEqual([4, 8, 1]);
  });

  it('recommends up to 256 threads in a row for all else', () => {
    expect(new PartitionView(TensorView.create([4096]), [1024]).recommendedWorkgroupSize()).toEqual([256, 1, 1]);
    expect(PartitionView.new2d(TensorView.create([64, 64]), 1, 32).recommendedWorkgroupSize()).toEqual([32, 1, 1]);
    expect(new PartitionView(TensorView.create([]), []).recommendedWorkgroupSize()).toEqual([1, 1, 1]);
  });

  it('cuts tensors of any rank, and slices of them', () => {
    const view = new PartitionView(TensorView.create([2, 3, 4, 5, 6]).slice(1), [1, 2, 2, 2, 2]);
    expect(view.tileCount).toEqual([1, 2, 2, 3, 3]);
    expect(view.getTileView(0, 1, 1, 2, 2)).toMatchObject({ shape: [1, 1, 2, 1, 2], offset: 360 + 240 + 60 + 24 + 4 });
  });

  it('partitions every tensor without gaps or overlaps', () => {
    const axis = fc.record({ size: fc.integer({ min: 0, max: 9 }), tile: fc.integer({ min: 1, max: 11 }) });
    fc.assert(
      fc.property(fc.array(axis, { maxLength: 3 }), (axes) => {
        const tensor = TensorView.create(axes.map(({ size }) => size));
        const view = new PartitionView(
          tensor,
          axes.map(({ tile }) => tile),
        );
        const seen = [...view].flatMap(({ tileIndex }) => [...(view.getTileView(...tileIndex)?.linearIndices() ?? [])]);
        expect(seen.sort((a, b) => a - b)).toEqual([...tensor.linearIndices()]);
      }),
    );
  });
});
