/** The first half of decode attention: the query in workgroup memory, its scores with the keys, and their weights. */

import { repeat } from '../template.js';
import type { DecodeLayout } from './decode-layout.js';
import { cappedText, dotText, maskedScore, scoreScale, sinkText } from './text.js';

/** The query, so that its product with a key is a score in units where e^x is exp2, or what is to be capped. */
export function stageQuery({ problem, shape, headVectors }: DecodeLayout): string {
  const vectors = shape.groupHeads * headVectors;
  const scale = scoreScale(problem);
  return repeat(
    Math.ceil(vectors / shape.threads),
    (i) => {
      const at = `local + ${i * shape.threads}u`;
      const guard = (i + 1) * shape.threads > vectors ? `if (${at} < ${vectors}u) ` : '';
      return `  ${guard}{ pool[${at}] = query[firstHead * ${headVectors}u + ${at}] * ${scale}; }\n`;
    },
    '',
  );
}

/** Largest divisor of `count` that is at most `most`. */
function divisorUpTo(count: number, most: number): number {
  for (let divisor = Math.min(count, most); divisor > 1; divisor--) if (count % divisor === 0) return divisor;
  return 1;
}

/** Scores of all heads: `lanes` neighbours share the columns of a position, each thread takes several positions at once so that many loads are in flight. */
export function scoresText({ problem, shape, keyChunks, vector, headVectors, keyRow }: DecodeLayout): string {
  const { lanes, threads, split, groupHeads } = shape;
  const perPass = threads / lanes;
  const perLane = keyRow / lanes;
  const positions = Math.max(1, Math.min(4, Math.ceil(split / perPass), Math.floor(8 / perLane)));
  const batch = divisorUpTo(perLane, Math.max(1, Math.floor(8 / positions)));
  const batches = perLane / batch;
  const each = (make: (u: number, h: number) => string): string => repeat(positions, (u) => repeat(groupHeads, (h) => make(u, h), ''), '');
  const loads = repeat(
    positions,
    (u) => repeat(batch, (j) => `    let k${u}_${j} = ${keyChunks.load(`row${u} + (chunk + ${j}u) * ${lanes}u + sub`)};\n`, ''),
    '',
  );
  const products = repeat(
    batch,
    (j) =>
      repeat(
        keyChunks.parts.length,
        (part) => {
          const unpack = keyChunks.parts[part];
          return `    {
${repeat(positions, (u) => `      let k${u} = ${unpack?.(`k${u}_${j}`) ?? ''};\n`, '')}      let column = ((chunk + ${j}u) * ${lanes}u + sub) * ${keyChunks.parts.length}u + ${part}u;
${repeat(groupHeads, (h) => `      let q${h} = pool[${h * headVectors}u + column];\n${repeat(positions, (u) => `      s${u}_${h} += ${dotText(vector, `q${h}`, `k${u}`)};\n`, '')}`, '')}    }
`;
        },
        '',
      ),
    '',
  );
  const inner =
    batches === 1
      ? `    let chunk = 0u;\n${loads}${products}`
      : `    for (var step = 0u; step < ${batches}u; step++) {\n    let chunk = step * ${batch}u;\n${loads}${products}    }\n`;
  const steps = Array.from({ length: Math.log2(lanes) }, (_, i) => 2 ** i);
  return `  let sub = local % ${lanes}u;
  let slot = local / ${lanes}u;
  for (var round = 0u; round < ${Math.ceil(split / (perPass * positions))}u; round++) {
    let first = round * ${perPass * positions}u;
    if (first >= count) { break; }
${repeat(positions, (u) => `    let at${u} = first + ${u * perPass}u + slot;\n    let row${u} = (base + min(at${u}, count - 1u)) * ${keyRow}u;\n`, '')}${each((u, h) => `    var s${u}_${h} = 0.0;\n`)}${inner}${steps
  .map((step) => each((u, h) => `    s${u}_${h} += subgroupShuffleXor(s${u}_${h}, ${step}u);\n`))
  .join('')}${repeat(
  positions,
  (u) => `    if (at${u} < count) {
${repeat(groupHeads, (h) => `      ${lanes > 1 ? `if (sub == ${h % lanes}u) ` : ''}{ scores[${h * split}u + at${u}] = ${cappedText(problem, `s${u}_${h}`)}; }\n`, '')}    }
`,
  '',
)}  }
`;
}

/** Scores become weights e^(score - maximum); each head has a team of threads. \`tops\` and \`sums\` keep the parts of its maximum and sum. */
export function weightsText({ problem, shape, team }: DecodeLayout): string {
  const { split, groupHeads, threads, direct } = shape;
  const sink = direct && problem.sinks === true;
  const walk = (body: string): string => `    for (var i = 0u; i < ${Math.ceil(split / team)}u; i++) {
      let at = i * ${team}u + local % ${team}u;
      if (at < count) { ${body} }
    }
`;
  const guard = groupHeads * team < threads ? `if (local < ${groupHeads * team}u) ` : '';
  return `  let member = (local / ${team}u) * ${split}u;
  ${guard}{
    var top = ${sink ? sinkText(`firstHead + local / ${team}u`) : maskedScore};
${walk('top = max(top, scores[member + at]);')}    tops[local] = top;
  }
  workgroupBarrier();
  ${guard}{
    let own = local / ${team}u * ${team}u;
    var top = tops[own];
    for (var i = 1u; i < ${team}u; i++) { top = max(top, tops[own + i]); }
    var sum = 0.0;
${walk('let weight = exp2(scores[member + at] - top); scores[member + at] = weight; sum += weight;')}    sums[local] = sum;
  }
  workgroupBarrier();
`;
}
