/** The tree of tiled reductions: rows of a 16 x 16 tile from 16 lanes to 1, lane x taking lane x + half; then column 0 alike. Rounding is that of the arrays given. */

const tileSize = 16;

export interface TileFold {
  readonly identity: number;
  readonly combine: (a: number, b: number) => number;
}

const numberOr = (value: number, identity: number): number => (Number.isNaN(value) ? identity : value);
const { NEGATIVE_INFINITY: least, POSITIVE_INFINITY: most } = Number;

/** Maxima and minima pass over NaN. */
export const tileFolds: { readonly [F in 'sum' | 'max' | 'min']: TileFold } = {
  sum: { identity: 0, combine: (a, b) => a + b },
  max: { identity: least, combine: (a, b) => Math.max(numberOr(a, least), numberOr(b, least)) },
  min: { identity: most, combine: (a, b) => Math.min(numberOr(a, most), numberOr(b, most)) },
};

/** Tiles down and across. */
export function tileCounts(rows: number, columns: number): readonly [number, number] {
  return [Math.ceil(rows / tileSize), Math.ceil(columns / tileSize)];
}

/** One partial per tile of a row-major matrix, row-major by tile, into `partials`; `tile` holds 256 numbers of the arithmetic's precision. */
export function partialsOf<T extends Float32Array | Float64Array>(
  fold: TileFold,
  data: ArrayLike<number>,
  rows: number,
  columns: number,
  partials: T,
  tile: T,
): T {
  const [, across] = tileCounts(rows, columns);
  for (let index = 0; index < partials.length; index++) {
    const [top, left] = [Math.floor(index / across) * tileSize, (index % across) * tileSize];
    tile.fill(fold.identity);
    for (let y = 0; y < Math.min(tileSize, rows - top); y++) {
      for (let x = 0; x < Math.min(tileSize, columns - left); x++) tile[y * tileSize + x] = data[(top + y) * columns + left + x] ?? Number.NaN;
    }
    for (let y = 0; y < tileSize; y++) foldLanes(fold, tile, y * tileSize, 1);
    foldLanes(fold, tile, 0, tileSize);
    partials[index] = tile[0] ?? Number.NaN;
  }
  return partials;
}

function foldLanes({ identity, combine }: TileFold, tile: Float32Array | Float64Array, first: number, stride: number): void {
  for (let half = tileSize / 2; half >= 1; half /= 2) {
    for (let lane = 0; lane < half; lane++) {
      const at = first + lane * stride;
      tile[at] = combine(tile[at] ?? identity, tile[at + half * stride] ?? identity);
    }
  }
}
