/**
 * C = alpha A B in f32 for large matrices. A workgroup makes a tile of C from tiles of A and B in workgroup memory, both stored by k (row k holds the tile's lines side
 * by side), so that a thread's operands are vec4 reads; each thread keeps 4x4 quadrants of the tile in registers. What made it fast, measured on an H200 at 4096:
 * a depth of 8, two buffers with one barrier per tile, buffer indices that are constants (two tiles a round), products unrolled in the text.
 */

import type { GpuKernel } from '../../core/kernel.js';
import type { ConvGeometry } from '../../ops/conv.js';
import { declareBindings, defineKernel, f32Literal, foldGrid, mainHead, range } from '../template.js';
import { convFetch, convPlaces } from './conv-operand.js';
import { epilogueBindings, epilogueFunctions, finished } from './epilogue.js';
import { type DepthSplit, type GemmShape, shapeParams } from './shape.js';

export interface GemmTile {
  /** Threads along the rows and along the columns of C. */
  readonly threads: readonly [m: number, n: number];
  /** 4x4 quadrants of a thread along both. */
  readonly quadrants: readonly [m: number, n: number];
  /** Depth of a tile; a multiple of 4. */
  readonly depth: number;
  /** `double`: two buffers, one filled while the other is read. `short`: one buffer and a loop, far less text, for rasterisers on the CPU, which take seconds to compile the other. */
  readonly schedule: 'double' | 'short';
  /** One vec4 of padding per stored row, which keeps transposing stores in different memory banks. */
  readonly padded: boolean;
}

/** Rows and columns of C that a tile covers. */
export function gemmTileSize({ threads, quadrants }: GemmTile): readonly [m: number, n: number] {
  return [4 * threads[0] * quadrants[0], 4 * threads[1] * quadrants[1]];
}

/** Bytes of workgroup memory. */
export function gemmTileBytes(tile: GemmTile): number {
  const [m, n] = gemmTileSize(tile);
  return 16 * ((m + n) / 4 + (tile.padded ? 2 : 0)) * tile.depth * (tile.schedule === 'double' ? 2 : 1);
}

/** Tile rows that run next to each other, so that they share columns of B in the L2 cache. */
const groupRows = 8;

/** One operand: `lines` are rows of A or columns of B. */
interface Operand {
  /** Prefix of its variables. */
  readonly name: 'a' | 'b';
  readonly lines: number;
  readonly tileLines: number;
  /** Whether neighbours in memory are neighbours along the depth; along the lines otherwise. */
  readonly depthFast: boolean;
  readonly vectors: boolean;
  /** vec4s of a stored row. */
  readonly stride: number;
  /** vec4s that one thread fetches, and those along the fast direction of the tile. */
  readonly fetches: number;
  readonly perRow: number;
  /** Whether the last fetch leaves threads without work. */
  readonly idle: boolean;
  /** The matrix is not in memory: it is gathered from the input of a convolution. */
  readonly conv: ConvGeometry | undefined;
}

function operand(name: 'a' | 'b', shape: GemmShape, tile: GemmTile, conv?: ConvGeometry): Operand {
  const isA = name === 'a';
  const lines = isA ? shape.m : shape.n;
  const tileLines = gemmTileSize(tile)[isA ? 0 : 1];
  const depthFast = isA ? !shape.transposeA : shape.transposeB;
  const threads = tile.threads[0] * tile.threads[1];
  const units = (tileLines * tile.depth) / 4;
  return {
    name,
    lines,
    tileLines,
    depthFast,
    vectors: conv === undefined && (depthFast ? shape.k : lines) % 4 === 0,
    stride: tileLines / 4 + (tile.padded ? 1 : 0),
    fetches: Math.ceil(units / threads),
    perRow: (depthFast ? tile.depth : tileLines) / 4,
    idle: units % threads !== 0,
    conv,
  };
}

/** Bindings: a, b, y. With several splits y is [splits, M, N], to be added up. */
export function gemmKernel(shape: GemmShape, tile: GemmTile, depth: DepthSplit): GpuKernel {
  return tiledKernel(shape, tile, depth, undefined);
}

/**
 * A convolution as a product: a is its kernel [outChannels, channels h w], b what the kernel meets at every place of the output [channels h w, H' W'], gathered from the input as it is needed.
 * Bindings: kernel, input, y [batch, outChannels, H', W'].
 */
export function convTileKernel(g: ConvGeometry, tile: GemmTile): GpuKernel {
  const k = g.channels * g.kernelHeight * g.kernelWidth;
  const shape = { m: g.outChannels, n: g.outHeight * g.outWidth, k, transposeA: false, transposeB: false, alpha: 1 };
  return tiledKernel(shape, tile, { splits: 1, tiles: Math.ceil(k / tile.depth) }, g);
}

function tiledKernel(shape: GemmShape, tile: GemmTile, depth: DepthSplit, conv: ConvGeometry | undefined): GpuKernel {
  const [tileM, tileN] = gemmTileSize(tile);
  const [tilesM, tilesN] = [Math.ceil(shape.m / tileM), Math.ceil(shape.n / tileN)];
  // Parts of the depth, or images: either has a matrix of the result of its own.
  const parts = conv?.batch ?? depth.splits;
  const count = tilesM * tilesN * parts;
  const threads = tile.threads[0] * tile.threads[1];
  const operands = [operand('a', shape, tile), operand('b', shape, tile, conv)] as const;
  return defineKernel({
    family: conv === undefined ? 'gemm' : 'conv2d_tile',
    params: conv === undefined ? { ...shapeParams(shape), ...tile, ...depth } : { ...conv, ...tile },
    bindings: ['read', 'read', ...epilogueBindings(shape.epilogue).map(([, , kind]) => kind), 'read_write'],
    workgroups: foldGrid(count),
    workgroupSize: threads,
    workgroupBytes: gemmTileBytes(tile),
    wgsl: () => {
      const buffers = tile.schedule === 'double' ? 2 : 1;
      const whole = depth.splits * depth.tiles * tile.depth === shape.k;
      const arrays = operands.map(({ name, stride }) => `var<workgroup> ${name}Tile: array<vec4<f32>, ${stride * tile.depth * buffers}>;\n`).join('');
      return `${declareBindings([
        ['a', operands[0].vectors ? 'vec4<f32>' : 'f32', 'read'],
        ['b', operands[1].vectors ? 'vec4<f32>' : 'f32', 'read'],
        ...epilogueBindings(shape.epilogue),
        ['y', shape.n % 4 === 0 ? 'vec4<f32>' : 'f32', 'read_write'],
      ])}${epilogueFunctions(shape.epilogue)}${arrays}${mainHead(count, threads)}${tilePlace(tilesM, tilesN, tileM, tileN, depth)}${threadPlace(tile)}${operands
        .map((o) => fetchPlaces(o, threads, shape))
        .join('')}${accumulators(tile)}${loop(shape, tile, depth, operands, whole)}${stores(shape, tile, parts)}}
`;
    },
  });
}

function tilePlace(tilesM: number, tilesN: number, tileM: number, tileN: number, { splits, tiles }: DepthSplit): string {
  return `  let part = group / ${tilesM * tilesN}u;
  let place = group % ${tilesM * tilesN}u;
  let band = place / ${groupRows * tilesN}u * ${groupRows}u;
  let bandRows = min(${tilesM}u - band, ${groupRows}u);
  let inBand = place % ${groupRows * tilesN}u;
  let aFirst = (band + inBand % bandRows) * ${tileM}u;
  let bFirst = inBand / bandRows * ${tileN}u;
  let firstTile = ${splits === 1 ? '0u' : `part * ${tiles}u`};
`;
}

/** A thread's place in the tile. With 16x16 threads, 32 neighbours cover 4x8 places: fewer distinct reads than 2x16. */
function threadPlace({ threads: [m, n] }: GemmTile): string {
  if (m === 16 && n === 16) return '  let tn = ((local >> 5u) & 1u) * 8u + (local & 7u);\n  let tm = (local >> 6u) * 4u + ((local >> 3u) & 3u);\n';
  return `  let tn = local % ${n}u;\n  let tm = local / ${n}u;\n`;
}

/** For every fetch: the line (or four lines) and the k (or four) within the tile, and the line in the operand, clamped where the tile hangs over the edge. */
function fetchPlaces(o: Operand, threads: number, { k }: GemmShape): string {
  const { name, perRow, lines, depthFast, vectors } = o;
  return range(o.fetches)
    .map((q) => {
      const unit = q === 0 ? 'local' : `(local + ${q * threads}u)`;
      const quotient = `${unit} / ${perRow}u`;
      const rest = `${unit} % ${perRow}u`;
      const head = `  let ${name}Line${q} = ${depthFast ? quotient : rest};\n  let ${name}Deep${q} = ${depthFast ? rest : quotient};\n  var ${name}Held${q}: vec4<f32>;\n`;
      if (o.conv !== undefined) return `${head}${convPlaces(o.conv, q)}`;
      // The clamps change nothing where tiles are whole: the reads stay in bounds for every size.
      if (depthFast) return `${head}  let ${name}At${q} = min(${name}First + ${name}Line${q}, ${lines - 1}u) * ${vectors ? k / 4 : k}u;\n`;
      if (vectors) return `${head}  let ${name}At${q} = min(${name}First / 4u + ${name}Line${q}, ${lines / 4 - 1}u);\n`;
      return `${head}  let ${name}At${q} = ${name}First + 4u * ${name}Line${q};\n`;
    })
    .join('');
}

function accumulators({ quadrants: [m, n] }: GemmTile): string {
  return range(m)
    .flatMap((i) => range(4).flatMap((r) => range(n).map((j) => `  var c${i}${r}${j} = vec4<f32>(0.0);\n`)))
    .join('');
}

/** Reads tile number `t` (an expression) into registers; beyond the depth there are zeros. */
function fetch(o: Operand, t: string, { k }: GemmShape, depth: number, whole: boolean): string {
  const { name, lines, depthFast, vectors } = o;
  return range(o.fetches)
    .map((q) => {
      const [at, deep, held] = [`${name}At${q}`, `${name}Deep${q}`, `${name}Held${q}`];
      if (o.conv !== undefined) return convFetch(o.conv, q, `${t} * ${depth}u + ${deep}`, whole ? undefined : k);
      if (depthFast && vectors) {
        const quad = `${t} * ${depth / 4}u + ${deep}`;
        if (whole) return `  ${held} = ${name}[${at} + ${quad}];\n`;
        return `  ${held} = select(vec4<f32>(0.0), ${name}[${at} + min(${quad}, ${k / 4 - 1}u)], ${quad} < ${k / 4}u);\n`;
      }
      if (depthFast) {
        const element = (i: number): string => {
          const d = `${t} * ${depth}u + 4u * ${deep} + ${i}u`;
          return whole ? `${name}[${at} + ${d}]` : `select(0.0f, ${name}[${at} + min(${d}, ${k - 1}u)], ${d} < ${k}u)`;
        };
        return `  ${held} = vec4<f32>(${range(4).map(element).join(', ')});\n`;
      }
      const d = `${t} * ${depth}u + ${deep}`;
      const row = whole ? `(${d})` : `min(${d}, ${k - 1}u)`;
      const value = vectors
        ? `${name}[${at} + ${row} * ${lines / 4}u]`
        : `vec4<f32>(${range(4)
            .map((i) => `${name}[min(${at} + ${i}u, ${lines - 1}u) + ${row} * ${lines}u]`)
            .join(', ')})`;
      return whole ? `  ${held} = ${value};\n` : `  ${held} = select(vec4<f32>(0.0), ${value}, ${d} < ${k}u);\n`;
    })
    .join('');
}

/** Writes the registers to buffer `buffer`. */
function put(o: Operand, buffer: number, depth: number): string {
  const { name, stride, depthFast, tileLines } = o;
  const base = buffer * depth * stride;
  return range(o.fetches)
    .map((q) => {
      const [line, deep, held] = [`${name}Line${q}`, `${name}Deep${q}`, `${name}Held${q}`];
      const text = depthFast
        ? range(4)
            .map((i) => `  ${name}Tile[${base}u + (4u * ${deep} + ${i}u) * ${stride}u + (${line} >> 2u)][${line} & 3u] = ${held}.${'xyzw'.charAt(i)};\n`)
            .join('')
        : `  ${name}Tile[${base}u + ${deep} * ${stride}u + ${line}] = ${held};\n`;
      if (!o.idle || q < o.fetches - 1) return text;
      return `  if (${depthFast ? `${line} < ${tileLines}u` : `${deep} < ${depth}u`}) {\n${text}  }\n`;
    })
    .join('');
}

/** Row k of both tiles: every sum of the thread grows by one product. */
function outerProduct(tile: GemmTile, [a, b]: readonly [Operand, Operand], at: (stride: number) => string): string {
  const [quadsM, quadsN] = tile.quadrants;
  const reads = [
    ...range(quadsM).map((i) => `    let a${i} = aTile[${at(a.stride)} + ${i * tile.threads[0]}u + tm];\n`),
    ...range(quadsN).map((j) => `    let b${j} = bTile[${at(b.stride)} + ${j * tile.threads[1]}u + tn];\n`),
  ];
  const sum = (i: number, r: number, j: number): string => `    c${i}${r}${j} = fma(vec4<f32>(a${i}.${'xyzw'.charAt(r)}), b${j}, c${i}${r}${j});\n`;
  return [...reads, ...range(quadsM).flatMap((i) => range(4).flatMap((r) => range(quadsN).map((j) => sum(i, r, j))))].join('');
}

/** Buffers are told apart by constants, hence two tiles a round. The last round fetches the last tile once more where their number is even. */
function loop(shape: GemmShape, tile: GemmTile, { tiles }: DepthSplit, operands: readonly [Operand, Operand], whole: boolean): string {
  const load = (t: string): string => operands.map((o) => fetch(o, t, shape, tile.depth, whole)).join('');
  const store = (buffer: number): string => operands.map((o) => put(o, buffer, tile.depth)).join('');
  const barrier = '  workgroupBarrier();\n';
  if (tile.schedule === 'short') {
    const product = `  for (var k = 0u; k < ${tile.depth}u; k++) {\n${outerProduct(tile, operands, (stride) => `k * ${stride}u`)}  }\n`;
    return `  for (var i = 0u; i < ${tiles}u; i++) {\n  let now = firstTile + i;\n${load('now')}${store(0)}${barrier}${product}${barrier}  }\n`;
  }
  const multiply = (buffer: number): string =>
    range(tile.depth)
      .map((k) => `  {\n${outerProduct(tile, operands, (stride) => `${(buffer * tile.depth + k) * stride}u`)}  }\n`)
      .join('');
  const head = `${load('firstTile')}${store(0)}${barrier}`;
  const round = `  let odd = firstTile + 2u * i + 1u;\n${load('odd')}${multiply(0)}${store(1)}${barrier}  let even = firstTile + min(2u * i + 2u, ${tiles - 1}u);\n${load('even')}${multiply(1)}${store(0)}${barrier}`;
  const pairs = Math.floor(tiles / 2);
  return `${head}${pairs === 0 ? '' : `  for (var i = 0u; i < ${pairs}u; i++) {\n${round}  }\n`}${tiles % 2 === 1 ? multiply(0) : ''}`;
}

function stores(shape: GemmShape, tile: GemmTile, parts: number): string {
  const { m, n, alpha, epilogue } = shape;
  const [tileM, tileN] = gemmTileSize(tile);
  const vectors = n % 4 === 0;
  const part = parts === 1 ? '' : `part * ${vectors ? (m * n) / 4 : m * n}u + `;
  const scaled = (value: string): string => (alpha === 1 ? value : `${value} * ${f32Literal(alpha)}`);
  const column = (sum: string, j: number): string => {
    const first = `bFirst + ${4 * j * tile.threads[1]}u + 4u * tn`;
    const element = (i: number): string => finished(epilogue, scaled(`${sum}.${'xyzw'.charAt(i)}`), 'row', `${first} + ${i}u`);
    const vector = epilogue === undefined ? scaled(sum) : `vec4<f32>(${range(4).map(element).join(', ')})`;
    if (vectors) return `    ${n % tileN === 0 ? '' : `if (${first} < ${n}u) `}{ y[${part}row * ${n / 4}u + (${first}) / 4u] = ${vector}; }\n`;
    return range(4)
      .map((i) => `    if (${first} + ${i}u < ${n}u) { y[${part}row * ${n}u + ${first} + ${i}u] = ${element(i)}; }\n`)
      .join('');
  };
  return range(tile.quadrants[0])
    .flatMap((i) =>
      range(4).map((r) => {
        const body = range(tile.quadrants[1])
          .map((j) => column(`c${i}${r}${j}`, j))
          .join('');
        const row = `    let row = aFirst + ${4 * i * tile.threads[0] + r}u + 4u * tm;\n`;
        return m % tileM === 0 ? `  {\n${row}${body}  }\n` : `  if (aFirst + ${4 * i * tile.threads[0] + r}u + 4u * tm < ${m}u) {\n${row}${body}  }\n`;
      }),
    )
    .join('');
}
