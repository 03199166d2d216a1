/** The second half of decode attention: the weighted sum of the values, by threads, then over the workgroup. */

import { repeat, vectorType } from '../template.js';
import type { DecodeLayout } from './decode-layout.js';
import { sinkText } from './text.js';

/** Rows of values that a thread has in registers at a time, and how often. */
function valueBatches({ shape, valueRows }: DecodeLayout): { readonly batch: number; readonly batches: number } {
  const rows = Math.ceil(shape.split / valueRows);
  const batch = Math.min(8, rows);
  return { batch, batches: Math.ceil(rows / batch) };
}

const valueLoad = ({ valueChunks, valueRow, valueRows }: DecodeLayout, target: string, first: string, i: number): string =>
  `${target}${i} = ${valueChunks.load(`(base + min(${first} + ${i * valueRows}u + valueSlot, count - 1u)) * ${valueRow}u + column`)};\n`;

/** The first values do not depend on the scores: they are on their way while those are made. */
export function firstValues(layout: DecodeLayout): string {
  const { sliceRow } = layout;
  return `  let valueSlot = local / ${sliceRow}u;
  let column = slice * ${sliceRow}u + local % ${sliceRow}u;
${repeat(valueBatches(layout).batch, (i) => `  var ${valueLoad(layout, 'v', '0u', i)}`, '')}`;
}

/** `o` of each head: the weighted sum of the rows that this thread takes. Rows beyond the count repeat the last one with weight 0. */
export function valuesText(layout: DecodeLayout): string {
  const { shape, valueChunks, vector, valueRows } = layout;
  const { split, groupHeads } = shape;
  const { batch, batches } = valueBatches(layout);
  const type = vectorType(vector);
  const parts = valueChunks.parts.length;
  const accumulate = repeat(
    batch,
    (i) => `    {
      let at = first + ${i * valueRows}u + valueSlot;
      let live = at < count;
      let place = min(at, count - 1u);
${valueChunks.parts.map((unpack, p) => `      let x${p} = ${unpack(`v${i}`)};\n`).join('')}${repeat(
  groupHeads,
  (h) => `      let w${h} = select(0.0, scores[${h * split}u + place], live);
${repeat(parts, (p) => `      o${h}_${p} += w${h} * x${p};\n`, '')}`,
  '',
)}    }
`,
    '',
  );
  const next = repeat(batch, (i) => `    let ${valueLoad(layout, 'n', `first + ${batch * valueRows}u`, i)}`, '');
  const declare = repeat(groupHeads, (h) => repeat(parts, (p) => `  var o${h}_${p} = ${type}(0.0);\n`, ''), '');
  if (batches === 1) return `${declare}  {\n    let first = 0u;\n${accumulate}  }\n`;
  return `${declare}  for (var round = 0u; round < ${batches}u; round++) {
    let first = round * ${batch * valueRows}u;
    if (first >= count) { break; }
${next}${accumulate}${repeat(batch, (i) => `    v${i} = n${i};\n`, '')}  }
`;
}

/** Rows of sums are added over the workgroup and written. */
export function sumsText(layout: DecodeLayout): string {
  const { problem, shape, valueChunks, sliceRow, sliceVectors, headVectors, valueRows, sumRows, folded, team, roundHeads } = layout;
  const { groupHeads, threads, subgroupSize, direct } = shape;
  const parts = valueChunks.parts.length;
  const folds = folded ? Array.from({ length: Math.log2(subgroupSize / sliceRow) }, (_, i) => sliceRow * 2 ** i) : [];
  const fold = folds
    .map((step) => repeat(groupHeads, (h) => repeat(parts, (p) => `  o${h}_${p} += subgroupShuffleXor(o${h}_${p}, ${step}u);\n`, ''), ''))
    .join('');
  const row = folded ? `local / ${subgroupSize}u` : 'valueSlot';
  const writer = folded ? `local % ${subgroupSize}u < ${sliceRow}u` : `valueSlot < ${valueRows}u`;
  const headTop = `    var top = tops[head * ${team}u];
    for (var i = 1u; i < ${team}u; i++) { top = max(top, tops[head * ${team}u + i]); }
`;
  const sink = direct && problem.sinks === true;
  const headSum = `${sink ? `${headTop}    var total = exp2(${sinkText('firstHead + head')} - top);` : '    var total = 0.0;'}
    for (var i = 0u; i < ${team}u; i++) { total += sums[head * ${team}u + i]; }
`;
  const round = (first: number): string => {
    const heads = Math.min(roundHeads, groupHeads - first);
    const items = heads * sliceVectors;
    return `  if (${writer}) {
    let place = (${row}) * ${sliceVectors}u + (local % ${sliceRow}u) * ${parts}u;
${repeat(heads, (h) => repeat(parts, (p) => `    pool[${h * sumRows * sliceVectors}u + place + ${p}u] = o${first + h}_${p};\n`, ''), '')}  }
  workgroupBarrier();
  for (var item = local; item < ${items}u; item += ${threads}u) {
    let head = ${first}u + item / ${sliceVectors}u;
    let place = item % ${sliceVectors}u;
    let origin = (item / ${sliceVectors}u) * ${sumRows * sliceVectors}u + place;
    var sum = pool[origin];
    for (var i = 1u; i < ${sumRows}u; i++) { sum += pool[origin + i * ${sliceVectors}u]; }
${
  direct
    ? `${headSum}    y[(firstHead + head) * ${headVectors}u + slice * ${sliceVectors}u + place] = sum / total;\n`
    : `    partials[(split * ${problem.heads}u + firstHead + head) * ${headVectors}u + place] = sum;\n`
}  }
`;
  };
  const rounds: string[] = [];
  for (let first = 0; first < groupHeads; first += roundHeads) rounds.push(round(first));
  const stats = direct
    ? ''
    : `  if (local < ${groupHeads}u) {
    let head = local;
${headTop}${headSum}    stats[split * ${problem.heads}u + firstHead + head] = vec2<f32>(top, total);
  }
`;
  return `${fold}${rounds.join('  workgroupBarrier();\n')}${stats}`;
}
