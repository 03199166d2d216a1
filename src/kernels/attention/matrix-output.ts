/** The output of attention on subgroup matrices passes through workgroup memory: to be scaled, and to be written. */

import { matrixSize } from '../matrix/gemm.js';
import { grid, laneSteps, type MatrixAttentionLayout, type MatrixAttentionShape } from './matrix-layout.js';
import { type AttentionProblem, sinkText } from './text.js';

interface Round {
  readonly first: number;
  /** Matrices that each subgroup passes in a round. */
  readonly wide: number;
  /** Quads of a row, and its stride, over all subgroups of a row. */
  readonly quads: number;
  readonly stride: number;
}

/** The output passes through `room` pieces of workgroup memory in rounds of some matrix columns of every subgroup. */
function roundsOf({ tileRows, output }: MatrixAttentionShape, { oj }: MatrixAttentionLayout, room: number): readonly Round[] {
  const fits = (wide: number): boolean => oj % wide === 0 && tileRows * (output[1] * wide * 4 + 2) <= room;
  const wide = [16, 8, 6, 5, 4, 3, 2].find(fits) ?? 1;
  return Array.from({ length: oj / wide }, (_, i) => ({ first: i * wide, wide, quads: output[1] * wide * 4, stride: output[1] * wide * 4 + 2 }));
}

function eachMatrix(
  shape: MatrixAttentionShape,
  { oi }: MatrixAttentionLayout,
  at: number,
  { first, wide, stride }: Round,
  line: (name: string, place: string, stride: number) => string,
): string {
  const ownRows = shape.tileRows / shape.output[0];
  return grid(oi, wide, (i, p) =>
    line(`out${i}_${first + p}`, `${at}u + (outRow * ${ownRows}u + ${i * matrixSize}u) * ${stride}u + outColumn * ${wide * 4}u + ${p * 4}u`, stride),
  );
}

const storeLine = (name: string, place: string, stride: number): string => `      subgroupMatrixStore<row_major>(&memory, ${place}, ${name}, ${stride}u);`;

/** out *= rowScale, in the memory of the scores, which are no longer needed. */
export function rescaleText(shape: MatrixAttentionShape, layout: MatrixAttentionLayout): string {
  const room = shape.tileRows * layout.scoreStride;
  return roundsOf(shape, layout, room)
    .map((round) => {
      const load = (name: string, place: string, stride: number): string =>
        `      ${name} = subgroupMatrixLoad<Sum, row_major>(&memory, ${place}, ${stride}u);`;
      return `${eachMatrix(shape, layout, layout.scoresAt, round, storeLine)}
      workgroupBarrier();
      for (var i = 0u; i < ${(shape.tileRows * round.quads) / layout.threads}u; i++) {
        let item = i * ${layout.threads}u + local;
        let at = ${layout.scoresAt}u + item / ${round.quads}u * ${round.stride}u + item % ${round.quads}u;
        memory[at] = bitcast<vec4<u32>>(bitcast<vec4<f32>>(memory[at]) * rowScale[item / ${round.quads}u]);
      }
      workgroupBarrier();
${eachMatrix(shape, layout, layout.scoresAt, round, load)}
      workgroupBarrier();`;
    })
    .join('\n');
}

/** y = `result`, of value = out / sum, the sum with that of the sink, which would make it infinite where it exceeds every score by far. */
export function finishText(
  { width, rows, heads, kvHeads, sinks }: AttentionProblem,
  shape: MatrixAttentionShape,
  layout: MatrixAttentionLayout,
  result: string,
): string {
  const ratio = heads / kvHeads;
  const { lanes, threads, size } = layout;
  const own = width / shape.output[1] / 4;
  const store = (round: Round): string => `${eachMatrix(shape, layout, 0, round, storeLine)}
  workgroupBarrier();
  for (var i = 0u; i < ${(shape.tileRows * round.quads) / threads}u; i++) {
    let item = i * ${threads}u + local;
    let itemRow = item / ${round.quads}u;
    let quad = item % ${round.quads}u;
    let place = first + itemRow;
    if (place / ${ratio}u < ${rows}u) {
      let value = bitcast<vec4<f32>>(memory[itemRow * ${round.stride}u + quad]) * rowScale[itemRow];
      let to = ((place / ${ratio}u) * ${heads}u + kvHead * ${ratio}u + place % ${ratio}u) * ${width / 4}u;
      y[to + quad / ${round.wide * 4}u * ${own}u + ${round.first * 4}u + quad % ${round.wide * 4}u] = ${result};
    }
  }
  workgroupBarrier();`;
  const sink = `  if (part == 0u) { sum += exp2(min(${sinkText(`kvHead * ${ratio}u + (first + row) % ${ratio}u`)} - reference, 120.0)); }\n`;
  return `${sinks === true ? sink : ''}${laneSteps(lanes)
    .map((step) => `  sum += subgroupShuffleXor(sum, ${step}u);`)
    .join('\n')}
  workgroupBarrier();
  if (part == 0u) { rowScale[row] = 1.0 / sum; }
${roundsOf(shape, layout, size).map(store).join('\n')}
`;
}
