import { beforeAll, describe, expect, it } from 'vitest';
import { gemmRule, gemmTiles } from '../../src/kernels/gemm/rule.js';
import { gemmTileSize } from '../../src/kernels/gemm/tile.js';
import { matmulCase, matmulCases } from '../../src/ops/cases/matmul.js';
import { testAdapterName } from '../support/adapter-name.js';
import { caseFailures } from '../support/case-failures.js';
import { failures, openTestDevice, type TestDevice } from '../support/run-steps.js';
import { dealt, everyCase, shareName } from '../support/share.js';

/** Selection gives a rasteriser short tiles only; the others, whose loops are written out, are for SwiftShader to compile. */
const tiles = everyCase || testAdapterName() === 'swiftshader' ? gemmTiles : gemmTiles.filter(({ schedule }) => schedule === 'short');

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

describe('matmul', () => {
  it(`agrees with the reference in ${shareName}`, async () => {
    expect(await caseFailures(test, dealt(matmulCases()))).toEqual([]);
  });

  it.each(tiles.map((tile) => [`${gemmTileSize(tile).join('x')} ${tile.schedule}${tile.padded ? ' padded' : ''}`, tile] as const))(
    'multiplies in tiles of %s',
    async (_name, tile) => {
      const [rows, columns] = gemmTileSize(tile);
      // Beyond one tile along both axes; whole and partial tiles of the depth, an even and an odd number of them, in one part and in two.
      const plans = [
        { k: 4 * tile.depth, splits: 1, m: rows + 4, n: columns + 4, transposeA: false, transposeB: false },
        { k: 5 * tile.depth - 3, splits: 2, m: rows + 3, n: columns + 1, transposeA: true, transposeB: true },
      ];
      for (const { k, splits, m, n, transposeA, transposeB } of plans) {
        const tiles = Math.ceil(Math.ceil(k / tile.depth) / splits);
        const rule = gemmRule(() => ({ kind: 'tile', tile, tiles, splits, reason: '' }));
        expect(await failures(test, () => rule, [matmulCase(m, k, n, transposeA, transposeB, 1, k)])).toEqual([]);
      }
    },
  );
});
