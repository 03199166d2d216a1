/** Small graphs that between them run every kernel family, and kernels that run beside graphs: where `shaders` finds its texts. Nothing here is ever run. */

import type { DType } from '../core/dtype.js';
import type { GpuKernel } from '../core/kernel.js';
import { GraphBuilder } from '../graph/builder.js';
import type { Graph, NodeId } from '../graph/graph.js';
import { multiplyKernel, readKernel, readUnit } from '../kernels/ceilings.js';
import { jacobiCheckKernel, jacobiRoundKernel } from '../kernels/jacobi.js';
import { jacobiProductKernel } from '../kernels/jacobi-product.js';
import { noiseKernel } from '../kernels/noise.js';
import { tiledReduceKernel } from '../kernels/tiled-reduce.js';
import { rearrangeKernel } from '../kernels/weights-rearrange.js';
import type { OpCase } from '../ops/case.js';
import { argmaxCases } from '../ops/cases/argmax.js';
import { cacheWriteCases } from '../ops/cases/cache.js';
import { chooseNextCases, tokenLinearCases } from '../ops/cases/decode.js';
import { binaryCases, swigluCases, unaryCases } from '../ops/cases/elementwise.js';
import { gatherCases } from '../ops/cases/gather.js';
import { linearCases } from '../ops/cases/linear.js';
import { matmulCases } from '../ops/cases/matmul.js';
import { rmsNormCases } from '../ops/cases/norm.js';
import { layerNormCases, reduceCases, softmaxCases } from '../ops/cases/reduce.js';
import { ropeCases } from '../ops/cases/rope.js';
import { redrawCases } from '../ops/cases/sampling.js';
import { advanceCases, lastRowCases } from '../ops/cases/state.js';
import { tensorCases } from '../ops/cases/tensor.js';
import { stateWords } from '../ops/state.js';

/** Kernels that no graph runs: of the eigendecomposition, of uploads, and of measurements. */
export function sampleKernels(): readonly GpuKernel[] {
  const matrix = 64;
  return [
    jacobiRoundKernel(matrix),
    jacobiCheckKernel(matrix),
    jacobiProductKernel(matrix),
    tiledReduceKernel('sum', { rows: matrix, columns: matrix }),
    rearrangeKernel('q8_0'),
    noiseKernel(1024),
    readKernel(readUnit),
    multiplyKernel(1),
  ];
}

/** Graphs, the quickest to make first. */
export function* sampleGraphs(): Generator<Graph> {
  yield longRows();
  yield roundedProducts();
  yield oneToken();
  yield attention(1);
  yield attention(128);
  yield attentionOfToken();
  graphsOfCases ??= cases().map(caseGraph);
  yield* graphsOfCases;
}

let graphsOfCases: readonly Graph[] | undefined;

/** What the graphs above leave out; cases of attention would take seconds to make. */
function cases(): OpCase[] {
  return [
    ...[...unaryCases(), ...binaryCases(), ...swigluCases(), ...gatherCases(), ...rmsNormCases(), ...ropeCases(), ...cacheWriteCases()],
    ...[...matmulCases(), ...reduceCases(), ...softmaxCases(), ...layerNormCases(), ...tensorCases(), ...lastRowCases(), ...advanceCases()],
    ...[...tokenLinearCases(), ...chooseNextCases(), ...redrawCases(), ...argmaxCases(), ...linearCases()],
  ];
}

const f32 = (...shape: number[]) => ({ dtype: 'f32', shape }) as const;

/** Rows that one workgroup does not take. */
function longRows(): Graph {
  const g = new GraphBuilder();
  const x = g.input('x', f32(1, 2 ** 23));
  g.output('softmax', g.add('softmax', { axis: 1 }, [x]));
  g.output('sums', g.add('cumsum', { axis: 1, exclusive: false }, [x]));
  return g.build();
}

/** Products whose operands may be rounded: on matrices of f16, or in 8-bit integers. */
function roundedProducts(): Graph {
  const g = new GraphBuilder();
  const x = g.input('x', f32(128, 256));
  for (const dtype of ['q8_0', 'f16'] as const) g.output(dtype, g.linear(x, g.param(`${dtype} weight`, { dtype, shape: [128, 256] }), { rounded: true }));
  g.output('product', g.matmul(x, x, { transposeA: true, rounded: true }));
  return g.build();
}

/** Products of a decode step, each of which takes its input from the one before in another form. */
function oneToken(): Graph {
  const width = 1024;
  const g = new GraphBuilder();
  const weight = (name: string, dtype: DType = 'q8_0'): NodeId => g.param(name, { dtype, shape: [width, width] });
  const gain = g.param('gain', f32(width));
  const token = g.input('token', { dtype: 'u32', shape: [1] });
  const x = g.gatherRows(weight('embedding'), token);
  const parts = g.add('qkv', { eps: 1e-6, biases: false }, [x, gain, weight('q'), weight('k'), weight('v')]);
  g.output('parts', parts);
  const hidden = g.add('gatedProduct', { eps: 1e-6 }, [g.input('h', f32(1, width)), gain, weight('gate'), weight('up')]);
  g.output('y', g.add('tokenLinear', { bias: false, residual: false }, [hidden, weight('down')]));
  return g.build();
}

/** Attention with one query row or many, over a cache that takes several workgroups a head. */
function attention(rows: number): Graph {
  const [heads, kvHeads, width] = [4, 2, 64];
  const g = new GraphBuilder();
  const cache = { dtype: 'f16', shape: [kvHeads, 4096, width] } as const;
  const state = g.state('session', { dtype: 'u32', shape: [stateWords(rows)] });
  g.output('y', g.attention(g.input('q', f32(rows, heads, width)), g.state('keys', cache), g.state('values', cache), state, { scale: 0.125 }));
  return g.build();
}

/** Attention of a decode step, over one window that a workgroup takes and one that several share. */
function attentionOfToken(): Graph {
  const [heads, kvHeads, width, capacity] = [4, 2, 64, 4096];
  const g = new GraphBuilder();
  const raw = g.input('raw', f32(1, (heads + 2 * kvHeads) * width));
  const table = g.param('angles', f32(capacity, width / 2, 2));
  const state = g.state('session', { dtype: 'u32', shape: [stateWords(1)] });
  for (const window of [512, capacity]) {
    const [keys, values] = ['keys', 'values'].map((name) => g.state(`${name} ${window}`, { dtype: 'f16', shape: [kvHeads, capacity, width] }));
    g.output(`y ${window}`, g.add('attendToken', { scale: 0.125, pairing: 'halves', window }, [keys ?? -1, values ?? -1, raw, table, state]));
  }
  return g.build();
}

function caseGraph(opCase: OpCase): Graph {
  const g = new GraphBuilder();
  const inputs = opCase.inputs.map(({ role, type }, index) =>
    role === 'param' ? g.param(`x${index}`, type) : role === 'state' ? g.state(`x${index}`, type) : g.input(`x${index}`, type),
  );
  g.add(opCase.op, opCase.params, inputs, 'y');
  return g.build();
}
