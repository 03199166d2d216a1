import { describe, expect, it } from 'vitest';
import { baseCapabilities } from '../../src/core/capabilities.js';
import { selectConv } from '../../src/kernels/conv.js';
import { selectGemm, turnsFirst } from '../../src/kernels/gemm/rule.js';
import type { GemmShape } from '../../src/kernels/gemm/shape.js';
import { selectSkinny } from '../../src/kernels/gemm/skinny.js';
import { gemmTileBytes, gemmTileSize } from '../../src/kernels/gemm/tile.js';
import { expectedSeconds } from '../../src/kernels/occupancy.js';
import { selectReducePass } from '../../src/kernels/reduce.js';
import { selectSoftmax } from '../../src/kernels/softmax.js';
import { mergeAxes, permutedAxes } from '../../src/kernels/strided-copy.js';
import { planTopK } from '../../src/kernels/top-k.js';
import { convGeometry } from '../../src/ops/conv.js';

const shape = (m: number, k: number, n: number): GemmShape => ({ m, n, k, transposeA: false, transposeB: false, alpha: 1 });
const roomy = { ...baseCapabilities, limits: { ...baseCapabilities.limits, maxComputeWorkgroupStorageSize: 32_768 } };

describe('the tile of a product', () => {
  it.each([
    [4096, 4096, 4096, [128, 128], 1],
    [2048, 2048, 2048, [128, 128], 1],
    // Too few tiles for a large GPU: the depth makes up for them.
    [1024, 1024, 1024, [128, 128], 4],
    [1024, 4096, 1024, [128, 128], 4],
    [64, 4096, 4096, [64, 64], 8],
    [256, 4096, 256, [128, 128], 32],
    // A depth that is not worth splitting.
    [512, 256, 512, [32, 32], 1],
  ])('of %i x %i x %i keeps a GPU busy', (m, k, n, tile, splits) => {
    const choice = selectGemm(shape(m, k, n), roomy);
    expect(choice.kind === 'tile' && [gemmTileSize(choice.tile), choice.splits]).toEqual([tile, splits]);
    expect(choice.reason).toContain(splits === 1 ? 'tiles of' : `in ${splits} parts`);
  });

  it('fits the guaranteed workgroup memory without its padding', () => {
    const choice = selectGemm(shape(4096, 4096, 4096), baseCapabilities);
    expect(choice.kind === 'tile' && [choice.tile.padded, gemmTileSize(choice.tile), gemmTileBytes(choice.tile)]).toEqual([false, [128, 128], 16_384]);
  });

  it('is short where the CPU compiles it', () => {
    const choice = selectGemm(shape(4096, 4096, 4096), { ...roomy, software: true });
    expect(choice.kind === 'tile' && choice.tile.schedule).toBe('short');
  });

  it('shares a long depth out where the tiles are few', () => {
    const choice = selectGemm(shape(64, 100_000, 64), roomy);
    expect(choice.splits).toBeGreaterThan(32);
    expect(choice.kind === 'tile' && choice.splits * choice.tiles * choice.tile.depth).toBeGreaterThanOrEqual(100_000);
  });

  it('is none for a few lines', () => {
    expect(selectGemm(shape(4, 4096, 4096), roomy).kind).toBe('skinny');
    expect(selectGemm(shape(4096, 4096, 1), roomy).kind).toBe('skinny');
  });

  it('reads a large turned b from a copy', () => {
    expect(turnsFirst({ ...shape(4096, 4096, 4096), transposeB: true }, roomy)).toBe(true);
    expect(turnsFirst({ ...shape(64, 4096, 4096), transposeB: true }, roomy)).toBe(false);
    expect(turnsFirst(shape(4096, 4096, 4096), roomy)).toBe(false);
  });
});

describe('a product of a few lines', () => {
  const turned = (m: number, k: number, n: number): GemmShape => ({ ...shape(m, k, n), transposeB: true });

  it('gives each line a workgroup where its depth is contiguous, and adds up no parts', () => {
    expect(selectSkinny(shape(4096, 4096, 1), 256)).toEqual({ threads: 256, lanes: 256, unroll: 4, splits: 1 });
    expect(selectSkinny(turned(1, 4096, 4096), 256)).toMatchObject({ lanes: 256, splits: 1 });
  });

  it('takes narrow and deep workgroups where lines are contiguous', () => {
    expect(selectSkinny(shape(1, 4096, 4096), 1024)).toEqual({ threads: 512, lanes: 4, unroll: 8, splits: 1 });
    expect(selectSkinny(shape(1, 4096, 4096), 256)).toMatchObject({ threads: 256, lanes: 4, splits: 1 });
    expect(selectSkinny(shape(1, 4096, 4096), 384)).toMatchObject({ threads: 256, lanes: 4 });
    expect(selectSkinny(shape(1, 4096, 65_536), 1024)).toMatchObject({ lanes: 32, splits: 1 });
  });

  it('splits the depth where the lines are too few', () => {
    expect(selectSkinny(shape(1, 1_000_000, 16), 1024).splits).toBe(64);
    expect(selectSkinny(turned(1, 1_000_000, 16), 1024).splits).toBe(16);
    expect(selectSkinny(shape(1, 300, 16), 1024).splits).toBe(1);
  });
});

describe('what a product is expected to take', () => {
  const rated = { rate: 1e12, shares: [0.5, 0.9] };
  const work = { flop: 132e9, results: 0 };

  it('falls with the workgroups, and rises where a processor has one more than the others', () => {
    const seconds = (tiles: number): number => expectedSeconds({ ...work, tiles, splits: 1 }, rated);
    expect(seconds(132)).toBeCloseTo(0.264, 6);
    expect(seconds(264)).toBeCloseTo(0.132 / 0.9, 6);
    expect(seconds(133)).toBeGreaterThan(seconds(132));
    expect(seconds(396)).toBeCloseTo(0.132, 6);
  });

  it('counts what it costs to add up parts', () => {
    const split = (results: number): number => expectedSeconds({ ...work, results, tiles: 66, splits: 4 }, rated);
    expect(split(0) - expectedSeconds({ ...work, tiles: 264, splits: 1 }, rated)).toBeCloseTo(2e-6, 9);
    expect(split(6e12 / 36) - split(0)).toBeCloseTo(1, 6);
  });
});

describe('passes of a reduction', () => {
  it.each([1, 4, 5, 255, 257, 4097, 100_000, 20_000_000, 300_000_000])('add at most sixteen elements in a row: %i', (count) => {
    let passes = 0;
    for (let left = count; left > 1 || passes === 0; passes++) {
      const { team, chunks } = selectReducePass({ outer: 1, count: left, inner: 1 });
      expect(Math.ceil(left / chunks / team) / 4).toBeLessThanOrEqual(17);
      left = chunks;
    }
    expect(passes).toBeLessThanOrEqual(3);
  });

  it('cut columns into parts that fill a GPU', () => {
    const { chunks, team } = selectReducePass({ outer: 1, count: 4096, inner: 64 });
    expect([team, chunks]).toEqual([1, 256]);
  });
});

describe('softmax', () => {
  it.each([
    [{ outer: 1, count: 1_000_000, inner: 1 }, 'chunks'],
    [{ outer: 4096, count: 8192, inner: 1 }, 'rows'],
    [{ outer: 4096, count: 8193, inner: 1 }, 'chunks'],
    [{ outer: 3, count: 500, inner: 1 }, 'rows'],
    [{ outer: 3, count: 16, inner: 1 }, 'columns'],
    [{ outer: 3, count: 100, inner: 7 }, 'columns'],
    [{ outer: 1, count: 1000, inner: 4 }, 'transposed'],
  ] as const)('of %o goes by %s', (lines, kind) => {
    expect(selectSoftmax(lines).kind).toBe(kind);
  });
});

it('merges the axes of a copy that are walked as one', () => {
  expect(mergeAxes(permutedAxes([2, 3, 4, 5], [0, 1, 2, 3]))).toEqual([{ size: 120, stride: 1 }]);
  expect(mergeAxes(permutedAxes([2, 3, 4, 5], [2, 3, 0, 1]))).toEqual([
    { size: 20, stride: 1 },
    { size: 6, stride: 20 },
  ]);
});

describe('a convolution', () => {
  const choose = (x: readonly number[], kernel: readonly number[], stride = 1) => selectConv(convGeometry(x, kernel, { stride, padding: 'same' }), roomy);

  it.each([
    [
      [64, 224, 224],
      [64, 64, 3, 3],
      [64, 64],
    ],
    [
      [8, 256, 56, 56],
      [256, 256, 3, 3],
      [64, 64],
    ],
    [
      [3, 224, 224],
      [20, 3, 7, 7],
      [32, 32],
    ],
  ])('of %j by %j is a product in tiles of %j', (x, kernel, size) => {
    const choice = choose(x, kernel);
    expect(choice.kind === 'tile' && gemmTileSize(choice.tile)).toEqual(size);
    expect(choice.reason).toContain(size.join('x'));
  });

  it('of few channels is made element by element, four at a time where their inputs overlap', () => {
    expect(choose([1, 64, 64], [1, 1, 5, 5])).toMatchObject({ kind: 'direct', columns: 4 });
    expect(choose([1, 64, 64], [1, 1, 5, 5], 2)).toMatchObject({ kind: 'direct', columns: 1 });
    expect(choose([1, 64, 64], [1, 1, 5, 1])).toMatchObject({ kind: 'direct', columns: 1 });
  });
});

describe('the k largest', () => {
  it.each([
    [1000, 40, []],
    [150_000, 40, [147, 10]],
    [5000, 300, [5, 3, 2]],
    [2048, 512, [2]],
  ])('of %i: the %i largest from lists merged down from %j', (width, k, lists) => {
    const plan = planTopK({ width, k });
    expect(plan.kind === 'merge' && plan.merges.map((merge) => merge.lists)).toEqual(lists);
    expect(plan.kind === 'merge' && plan.merges.every(({ fan, length }) => fan * length <= 1024 && length >= k)).toBe(true);
  });

  it('are ranked where two lists do not fit into workgroup memory', () => {
    expect(planTopK({ width: 5000, k: 600 }).kind).toBe('rank');
    expect(planTopK({ width: 600, k: 600 }).kind).toBe('merge');
  });
});
