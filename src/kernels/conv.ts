/**
 * Convolutions (cross-correlations). With enough output channels, as a product of matrices in tiles (gemm/tile.ts); else each thread makes neighbouring elements of a row of the output, so that what
 * the kernel's columns share is read once.
 */

import type { GpuCapabilities } from '../core/capabilities.js';
import type { GpuKernel } from '../core/kernel.js';
import { type ConvGeometry, convGeometry } from '../ops/conv.js';
import { need } from '../ops/definition.js';
import type { LoweringRule } from '../ops/target.js';
import { elementKernel } from './element-kernel.js';
import { selectTile } from './gemm/rule.js';
import { convTileKernel, type GemmTile, gemmTileSize } from './gemm/tile.js';
import { arg, oneStep, repeat } from './template.js';
import { tiledReduceConstantKernel } from './tiled-reduce.js';

export type ConvChoice = { readonly reason: string } & (
  | { readonly kind: 'tile'; readonly tile: GemmTile }
  | { readonly kind: 'direct'; readonly columns: 1 | 4 }
);

/** Fewer output channels leave most of a tile of 32 rows empty. */
const leastTileChannels = 16;
/** A shorter depth does not pay for the tiles' barriers. */
const leastTileDepth = 16;
/** Columns of a kernel whose products are written out. */
const mostUnrolled = 16;

/** Pure: equal arguments give equal kernels. */
export function selectConv(g: ConvGeometry, capabilities: Pick<GpuCapabilities, 'limits' | 'software'>): ConvChoice {
  const depth = g.channels * g.kernelHeight * g.kernelWidth;
  const places = g.outHeight * g.outWidth;
  if (g.outChannels >= leastTileChannels && depth >= leastTileDepth && places >= 32) {
    const shape = { m: g.outChannels, n: places, k: depth, transposeA: false, transposeB: false, alpha: 1 };
    const tile = selectTile(shape, g.batch, capabilities);
    return { kind: 'tile', tile, reason: `${g.outChannels} channels out: a product in tiles of ${gemmTileSize(tile).join('x')}` };
  }
  const columns = g.stride === 1 && g.kernelWidth > 1 && g.kernelWidth <= mostUnrolled && g.outWidth >= 4 ? 4 : 1;
  return {
    kind: 'direct',
    columns,
    reason: `${g.outChannels} channels out of a depth of ${depth}: ${columns} ${columns === 1 ? 'element' : 'elements'} a thread`,
  };
}

/** A thread makes `columns` neighbouring elements. Bindings: input, kernel, y. */
function convKernel(g: ConvGeometry, columns: 1 | 4): GpuKernel {
  const across = Math.ceil(g.outWidth / columns);
  const count = g.batch * g.outChannels * g.outHeight * across;
  // Rows and columns are counted without sign: what lies before the input wraps around, beyond its end.
  return elementKernel({
    family: 'conv2d',
    params: { ...g, columns },
    count,
    bindings: [
      ['x', 'f32', 'read'],
      ['weights', 'f32', 'read'],
      ['y', 'f32', 'read_write'],
    ],
    body: () => `  let first = index % ${across}u * ${columns}u;
  let left = first * ${g.stride}u - ${g.left}u;
  let top = index / ${across}u % ${g.outHeight}u * ${g.stride}u - ${g.top}u;
  let o = index / ${across * g.outHeight}u % ${g.outChannels}u;
  let n = index / ${across * g.outHeight * g.outChannels}u;
${repeat(columns, (j) => `  var sum${j} = 0.0f;`)}
  for (var i = 0u; i < ${g.channels}u; i++) {
${repeat(columns, (j) => `    var part${j} = 0.0f;`)}
    for (var u = 0u; u < ${g.kernelHeight}u; u++) {
      let row = top + u;
      if (row >= ${g.height}u) { continue; }
      let place = ((n * ${g.channels}u + i) * ${g.height}u + row) * ${g.width}u;
      let weight = ((o * ${g.channels}u + i) * ${g.kernelHeight}u + u) * ${g.kernelWidth}u;
${columns === 1 ? oneColumn(g) : fourColumns(g)}    }
${repeat(columns, (j) => `    sum${j} += part${j};`)}
  }
  let at = ((n * ${g.outChannels}u + o) * ${g.outHeight}u + index / ${across}u % ${g.outHeight}u) * ${g.outWidth}u + first;
${repeat(columns, (j) => `  ${g.outWidth % columns === 0 ? '' : `if (first + ${j}u < ${g.outWidth}u) `}{ y[at + ${j}u] = sum${j}; }`)}
`,
  });
}

function oneColumn(g: ConvGeometry): string {
  return `      for (var v = 0u; v < ${g.kernelWidth}u; v++) {
        let column = left + v;
        if (column < ${g.width}u) { part0 = fma(x[place + column], weights[weight + v], part0); }
      }
`;
}

/** Neighbours are a column apart (stride 1): each value read meets up to four weights. */
function fourColumns(g: ConvGeometry): string {
  const value = (c: number): string => `      let x${c} = select(0.0f, x[place + min(left + ${c}u, ${g.width - 1}u)], left + ${c}u < ${g.width}u);`;
  const product = (v: number): string => `      let w${v} = weights[weight + ${v}u];\n${repeat(4, (j) => `      part${j} = fma(x${v + j}, w${v}, part${j});`)}`;
  return `${repeat(g.kernelWidth + 3, value)}\n${repeat(g.kernelWidth, product)}\n`;
}

export function convRule(capabilities: GpuCapabilities): LoweringRule<'conv2d', GpuKernel> {
  return (node) => {
    const [x, kernel] = [need(node.inputs[0]), need(node.inputs[1])];
    const g = convGeometry(x.type.shape, kernel.type.shape, node.params);
    const choice = selectConv(g, capabilities);
    if (choice.kind === 'tile') return oneStep(node, convTileKernel(g, choice.tile), [arg(kernel, 'read'), arg(x, 'read'), arg(node.output, 'write')]);
    return oneStep(node, convKernel(g, choice.columns), [arg(x, 'read'), arg(kernel, 'read'), arg(node.output, 'write')]);
  };
}

export const tileReduceRule: LoweringRule<'tileReduce', GpuKernel> = (node) => {
  const x = need(node.inputs[0]);
  const [rows = 1, columns = 1] = x.type.shape;
  return oneStep(node, tiledReduceConstantKernel(node.params.fn, rows, columns), [arg(x, 'read'), arg(node.output, 'write')]);
};
