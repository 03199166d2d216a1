/** Convolutions (cross-correlations) by their definition: one thread per output element, neighbours side by side in a row, so that reads of the input are shared. */

import type { GpuKernel } from '../core/kernel.js';
import { type ConvGeometry, convGeometry } from '../ops/conv.js';
import { need } from '../ops/definition.js';
import type { LoweringRule } from '../ops/target.js';
import { arg, declareBindings, defineKernel, elementThreads, foldGrid, mainHead, oneStep } from './template.js';
import { tiledReduceConstantKernel } from './tiled-reduce.js';

export function convKernel(g: ConvGeometry): GpuKernel {
  const count = g.batch * g.outChannels * g.outHeight * g.outWidth;
  const groups = Math.ceil(count / elementThreads);
  // Rows and columns are counted without sign: what lies before the input wraps around, beyond its end.
  return defineKernel({
    family: 'conv2d',
    params: { ...g },
    bindings: ['read', 'read', 'read_write'],
    workgroups: foldGrid(groups),
    workgroupSize: elementThreads,
    wgsl: () => `${declareBindings([
      ['x', 'f32', 'read'],
      ['weights', 'f32', 'read'],
      ['y', 'f32', 'read_write'],
    ])}${mainHead(groups, elementThreads)}  let index = group * ${elementThreads}u + local;
  if (index >= ${count}u) { return; }
  let left = index % ${g.outWidth}u * ${g.stride}u - ${g.left}u;
  let top = index / ${g.outWidth}u % ${g.outHeight}u * ${g.stride}u - ${g.top}u;
  let o = index / ${g.outWidth * g.outHeight}u % ${g.outChannels}u;
  let n = index / ${g.outWidth * g.outHeight * g.outChannels}u;
  var sum = 0.0f;
  for (var i = 0u; i < ${g.channels}u; i++) {
    var part = 0.0f;
    for (var u = 0u; u < ${g.kernelHeight}u; u++) {
      let row = top + u;
      if (row >= ${g.height}u) { continue; }
      let place = ((n * ${g.channels}u + i) * ${g.height}u + row) * ${g.width}u;
      let weight = ((o * ${g.channels}u + i) * ${g.kernelHeight}u + u) * ${g.kernelWidth}u;
      for (var v = 0u; v < ${g.kernelWidth}u; v++) {
        let column = left + v;
        if (column < ${g.width}u) { part = fma(x[place + column], weights[weight + v], part); }
      }
    }
    sum += part;
  }
  y[index] = sum;
}
`,
  });
}

export const convRule: LoweringRule<'conv2d', GpuKernel> = (node) => {
  const [x, kernel] = [need(node.inputs[0]), need(node.inputs[1])];
  return oneStep(node, convKernel(convGeometry(x.type.shape, kernel.type.shape, node.params)), [
    arg(x, 'read'),
    arg(kernel, 'read'),
    arg(node.output, 'write'),
  ]);
};

export const tileReduceRule: LoweringRule<'tileReduce', GpuKernel> = (node) => {
  const x = need(node.inputs[0]);
  const [rows = 1, columns = 1] = x.type.shape;
  return oneStep(node, tiledReduceConstantKernel(node.params.fn, rows, columns), [arg(x, 'read'), arg(node.output, 'write')]);
};
