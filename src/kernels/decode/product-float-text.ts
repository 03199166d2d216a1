/** WGSL of chunks of weights times the f32 activations `x0`, `x1`, ... of four values each. */

import type { WeightGroup } from '../blocks.js';

/**
 * An expression for each row's chunk, from its groups. Scales multiply sums of products; minimums multiply sums of activations, which rows share: `totals` are the statements that declare those.
 */
export function chunkSum(rows: readonly (readonly WeightGroup[])[]): { readonly totals: string; readonly sums: readonly string[] } {
  const totals = new Map<string, string>();
  const totalOf = (first: number, count: number): string => {
    const name = `total${first}_${count}`;
    const all = Array.from({ length: count }, (_, j) => `x${first + j}`).join(' + ');
    totals.set(name, `      let ${name} = dot(${all}, vec4<f32>(1.0));\n`);
    return name;
  };
  const sums = rows.map((groups) => {
    let next = 0;
    const parts = groups.map(({ quads, scale, minimum }) => {
      const first = next;
      next += quads.length;
      const sum = quads.map((quad, j) => `dot(${quad}, x${first + j})`).join(' + ');
      const scaled = scale === undefined ? sum : `${scale} * (${sum})`;
      return minimum === undefined ? scaled : `${scaled} - ${minimum} * ${totalOf(first, quads.length)}`;
    });
    return parts.join(' + ');
  });
  return { totals: [...totals.values()].join(''), sums };
}
