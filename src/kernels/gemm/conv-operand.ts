/**
 * The input of a convolution as a matrix [channels h w, H' W'] that a tiled product reads: column p is what the kernel meets at place p of the output. Four neighbouring columns are fetched together.
 * Rows and columns of the input are counted without sign: what lies before the input wraps around, beyond its end.
 */

import type { ConvGeometry } from '../../ops/conv.js';
import { range } from '../template.js';

/** Whether four neighbouring places are in one row of the output. */
const inOneRow = ({ outWidth }: ConvGeometry): boolean => outWidth % 4 === 0;

/** For fetch q: where the kernel's first row and column lie in the input at each of the four places (`bTop`, `bLeft`); places beyond the output repeat the last. */
export function convPlaces(g: ConvGeometry, q: number): string {
  const last = g.outHeight * g.outWidth - 1;
  const place = (j: number): string => `min(bFirst + 4u * bLine${q}${j === 0 ? '' : ` + ${j}u`}, ${last}u)`;
  return (inOneRow(g) ? [0] : range(4))
    .map(
      (j) => `  let bPlace${q}${j} = ${place(j)};
  let bTop${q}${j} = bPlace${q}${j} / ${g.outWidth}u * ${g.stride}u - ${g.top}u;
  let bLeft${q}${j} = bPlace${q}${j} % ${g.outWidth}u * ${g.stride}u - ${g.left}u;
`,
    )
    .join('');
}

/** Fetch q of row `d` (an expression) of the matrix into `bHeld`: zeros beside the input, and from row `end` on where there is one. */
export function convFetch(g: ConvGeometry, q: number, d: string, end: number | undefined): string {
  const plane = g.height * g.width;
  const size = g.batch * g.channels * plane;
  const area = g.kernelHeight * g.kernelWidth;
  const same = inOneRow(g);
  const value = (j: number): string => {
    const [row, column] = [`bTop${q}${same ? 0 : j} + u`, `bLeft${q}${same ? 0 : j} + ${same ? j * g.stride : 0}u + v`];
    const inside = `${row} < ${g.height}u && ${column} < ${g.width}u${end === undefined ? '' : ` && d < ${end}u`}`;
    return `select(0.0f, b[min(base + (${row}) * ${g.width}u + ${column}, ${size - 1}u)], ${inside})`;
  };
  return `  {
    let d = ${d};
    let u = d / ${g.kernelWidth}u % ${g.kernelHeight}u;
    let v = d % ${g.kernelWidth}u;
    let base = (${g.batch === 1 ? '' : `part * ${g.channels}u + `}d / ${area}u) * ${plane}u;
    bHeld${q} = vec4<f32>(${range(4).map(value).join(', ')});
  }
`;
}
