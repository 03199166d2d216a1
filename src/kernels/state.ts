/** Kernels of the session state: taking the last live row, and ending a decode step on the device. */

import type { GpuKernel } from '../core/kernel.js';
import { need } from '../ops/definition.js';
import { historyLength, noToken, stateWord } from '../ops/state.js';
import type { LoweringRule } from '../ops/target.js';
import { elementKernel } from './element-kernel.js';
import { arg, declareBindings, defineKernel, oneStep, vectorType, vectorWidth } from './template.js';

function lastRowKernel(rows: number, width: number): GpuKernel {
  const vector = vectorWidth(width);
  const vectors = width / vector;
  return elementKernel({
    family: 'last_row',
    params: { rows, width },
    count: vectors,
    bindings: [
      ['x', vectorType(vector), 'read'],
      ['state', 'u32', 'read'],
      ['y', vectorType(vector), 'read_write'],
    ],
    body: () => `  let row = clamp(state[${stateWord.rows}], 1u, ${rows}u) - 1u;
  y[index] = x[row * ${vectors}u + index];
`,
  });
}

export const lastRowRule: LoweringRule<'lastRow', GpuKernel> = (node) => {
  const [x, state] = [need(node.inputs[0]), need(node.inputs[1])];
  const [rows = 0, width = 0] = x.type.shape;
  return oneStep(node, lastRowKernel(rows, width), [arg(x, 'read'), arg(state, 'read'), arg(node.output, 'write')]);
};

function advanceKernel(): GpuKernel {
  return defineKernel({
    family: 'advance',
    params: {},
    bindings: ['read_write', 'read'],
    workgroups: [1, 1, 1],
    workgroupSize: 1,
    wgsl: () => `${declareBindings([
      ['state', 'u32', 'read_write'],
      ['tokens', 'u32', 'read'],
    ])}@compute @workgroup_size(1)
fn main() {
  let token = tokens[0];
  let steps = state[${stateWord.steps}];
  state[${stateWord.position}] += state[${stateWord.rows}];
  state[${stateWord.rows}] = 1u;
  state[${stateWord.token}] = token;
  state[${stateWord.steps}] = steps + 1u;
  state[${stateWord.history}u + (steps & ${historyLength - 1}u)] = token;
  state[${stateWord.ids}] = select(token, 0u, token == ${noToken}u);
}
`,
  });
}

export const advanceRule: LoweringRule<'advance', GpuKernel> = (node) =>
  oneStep(node, advanceKernel(), [arg(node.output, 'readwrite'), arg(need(node.inputs[1]), 'read')]);
