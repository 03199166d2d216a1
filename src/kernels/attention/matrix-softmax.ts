/** From scores to P, in attention on subgroup matrices: text for the threads of a row, each of which has chunks of 8 keys. */

import { repeat } from '../template.js';
import type { MatrixAttentionLayout, MatrixAttentionShape } from './matrix-layout.js';
import { laneSteps } from './matrix-layout.js';
import { type AttentionProblem, cappedText, firstSeenText, maskedScore, scoreScale } from './text.js';

/** A row's P may reach 2^15 in f16; its sum over a tile tells. */
export const largestSum = 2 ** 15;
/**
 * Exponents count from the maximum plus this, so that P starts at 2^-6 and the maximum may grow by about 2^21 before anything is scaled. f16 then resolves a weight to 2^-18 of the
 * largest, which is as good as its 11 bits.
 */
const headroom = 6;
/** Below every reference that a row takes from its scores: that of a row that has seen no key yet. */
const noReference = '-1e30';

/**
 * Declares the thread's scores, capped where they are to be: near_c and far_c, the two quads of each of its chunks of 8 keys (in the other order where `swap` is 1); what the row does
 * not see is masked.
 */
export function readScores(problem: AttentionProblem, { tileKeys }: MatrixAttentionShape, { chunks, lanes }: MatrixAttentionLayout): string {
  const { window } = problem;
  const seen = (count: string): string => (window === undefined ? `${count} <= last` : `(${count} <= last) & (${count} > last - ${window})`);
  const edge = window === undefined ? '' : ` || tile * ${tileKeys}u < lastFrom`;
  return `${repeat(chunks, (c) => `    var near${c} = bitcast<vec4<f32>>(memory[scoreFrom + ${c * lanes * 2}u + swap]);\n    var far${c} = bitcast<vec4<f32>>(memory[scoreFrom + ${c * lanes * 2}u + 1u - swap]);`)}
${
  problem.softcap === undefined
    ? ''
    : `${quads(chunks)
        .map((name) => `    ${name} = ${cappedText(problem, `${name} * ${scoreScale(problem)}`)};`)
        .join('\n')}\n`
}    if ((tile + 1u) * ${tileKeys}u > firstSeen + 1u${edge}) {
      let last = vec4<i32>(i32(lastSeen) - i32(tile * ${tileKeys}u + part * 8u + swap * 4u));
      let count = vec4<i32>(0, 1, 2, 3);
      let other = 4 - 8 * i32(swap);
${repeat(
  chunks,
  (c) => `      near${c} = select(vec4<f32>(${maskedScore}), near${c}, ${seen(`count + ${c * lanes * 8}`)});
      far${c} = select(vec4<f32>(${maskedScore}), far${c}, ${seen(`count + ${c * lanes * 8} + other`)});`,
)}
    }`;
}

const quads = (chunks: number): string[] => Array.from({ length: chunks }, (_, c) => [`near${c}`, `far${c}`]).flat();
/** A score in the exponents' units: capped ones are in them. */
const inUnits = (problem: AttentionProblem, name: string): string => (problem.softcap === undefined ? `${name} * ${scoreScale(problem)}` : name);

/** Each row takes its reference from the first tile in which it sees a key: the first of all without a window, else one up to the tile in which the last row's window begins. */
export function firstReference(problem: AttentionProblem, { tileKeys }: MatrixAttentionShape, layout: MatrixAttentionLayout): string {
  if (problem.window === undefined) return `    if (tile == 0u) {\n${rowMaximum(problem, layout)}\n      reference = top;\n    }`;
  return `    if (tile <= lastFrom / ${tileKeys}u) {
${rowMaximum(problem, layout)}
      if (reference <= ${noReference}f) { reference = max(top, ${noReference}f); }
    }`;
}

/** The first position that the tile's first row sees, and that its last one does. */
export function windowText(problem: AttentionProblem): string {
  if (problem.window === undefined) return '';
  return `  let firstFrom = ${firstSeenText(problem, 'min(firstSeen + 1u, length)')};\n  let lastFrom = ${firstSeenText(problem, 'length')};\n`;
}

/** Declares `top`, the row's largest score of this tile in the exponents' units, and the headroom above it. */
export function rowMaximum(problem: AttentionProblem, { chunks, lanes }: MatrixAttentionLayout): string {
  return `      let widest = ${quads(chunks).reduce((a, b) => `max(${a}, ${b})`)};
      var top = max(max(widest.x, widest.y), max(widest.z, widest.w));
${laneSteps(lanes)
  .map((step) => `      top = max(top, subgroupShuffleXor(top, ${step}u));`)
  .join('\n')}
      top = ${inUnits(problem, 'top')} + ${headroom}.0;`;
}

export function exponentials(problem: AttentionProblem, { chunks }: MatrixAttentionLayout): string {
  return quads(chunks)
    .map((name) => `    ${name} = exp2(${inUnits(problem, name)} - reference);`)
    .join('\n');
}

/** `here`: the sum of the thread's P of this tile. */
export function tileSum({ chunks }: MatrixAttentionLayout): string {
  return `    {
      let total = ${quads(chunks).join(' + ')};
      here = (total.x + total.y) + (total.z + total.w);
    }`;
}

export function writeWeights({ chunks, lanes }: MatrixAttentionLayout): string {
  return repeat(chunks, (c) => `    memory[weightTo + ${c * lanes}u] = select(pack8(near${c}, far${c}), pack8(far${c}, near${c}), swap == 1u);`);
}
