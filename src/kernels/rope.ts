/** Rotary position embedding: one thread per rotated pair (and, out of place, per element that passes). */

import type { GpuKernel } from '../core/kernel.js';
import { need } from '../ops/definition.js';
import type { RopePairing } from '../ops/params.js';
import { stateWord } from '../ops/state.js';
import type { LoweringRule } from '../ops/target.js';
import { elementKernel } from './element-kernel.js';
import { arg, oneStep } from './template.js';

export interface RopeProblem {
  readonly rows: number;
  readonly heads: number;
  /** Elements of a head. */
  readonly width: number;
  /** Rotated pairs of a head. */
  readonly half: number;
  /** Rows of the angle table. */
  readonly positions: number;
  readonly pairing: RopePairing;
}

export function ropeKernel(problem: RopeProblem, inPlace: boolean): GpuKernel {
  const { rows, heads, width, half, positions, pairing } = problem;
  const perHead = inPlace ? half : width - half;
  const count = rows * heads * perHead;
  const source = inPlace ? 'y' : 'x';
  const pass = `  if (item >= ${half}u) {
    y[start + ${half}u + item] = x[start + ${half}u + item];
    return;
  }
`;
  const padding = inPlace
    ? `  if (row >= state[${stateWord.rows}]) { return; }\n`
    : `  if (row >= state[${stateWord.rows}]) {
    y[first] = x[first];
    y[second] = x[second];
    return;
  }
`;
  return elementKernel({
    family: 'rope',
    params: { ...problem, inPlace },
    count,
    bindings: [...(inPlace ? [] : [['x', 'f32', 'read'] as const]), ['angles', 'vec2<f32>', 'read'], ['state', 'u32', 'read'], ['y', 'f32', 'read_write']],
    body: () => `  let item = index % ${perHead}u;
  let head = index / ${perHead}u;
  let row = head / ${heads}u;
  let start = head * ${width}u;
${inPlace || perHead === half ? '' : pass}  let first = start + ${pairing === 'adjacent' ? '2u * item' : 'item'};
  let second = first + ${pairing === 'adjacent' ? 1 : half}u;
${padding}  // A table of one row is that of every position; else its last row stands in for positions beyond it, which no caller asks for.
  let turn = angles[min(state[${stateWord.position}] + row, ${positions - 1}u) * ${half}u + item];
  let a = ${source}[first];
  let b = ${source}[second];
  y[first] = a * turn.x - b * turn.y;
  y[second] = a * turn.y + b * turn.x;
`,
  });
}

export const ropeRule: LoweringRule<'rope', GpuKernel> = (node) => {
  const [x, table, state] = [need(node.inputs[0]), need(node.inputs[1]), need(node.inputs[2])];
  const [rows = 0, heads = 0, width = 0] = x.type.shape;
  const [positions = 0, half = 0] = table.type.shape;
  const problem = { rows, heads, width, half, positions, pairing: node.params.pairing };
  const args = [arg(x, 'read'), arg(table, 'read'), arg(state, 'read'), arg(node.output, 'write')];
  return oneStep(node, ropeKernel(problem, false), args, { input: 0, output: 3, kernel: ropeKernel(problem, true) });
};
