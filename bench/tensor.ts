/**
 * Tensor operations on a device, by timestamps of their steps: products of f32 matrices, elementwise sums, reductions, softmax, selection. Device-resident: nothing is read back.
 * Arguments: `checked` leaves robustness checks on; `cases` first holds every case of every operation to its reference.
 */

import { GraphBuilder } from '../src/graph/builder.js';
import type { NodeId } from '../src/graph/graph.js';
import { allCases } from '../src/ops/cases/index.js';
import type { Backend } from '../src/runtime/backend.js';
import { checkCase } from '../src/runtime/check.js';
import { CompiledGraph } from '../src/runtime/compiled-graph.js';
import { openBackend } from '../src/runtime/select.js';

export const summary = 'tensor operations on a device, by timestamps: matmul, elementwise, reductions, softmax, topK';

interface Plan {
  readonly name: string;
  readonly shapes: readonly (readonly number[])[];
  readonly build: (g: GraphBuilder, inputs: readonly NodeId[]) => NodeId;
  /** What one run does, in the unit of the figure. */
  readonly work: number;
  readonly unit: 'TFLOP/s' | 'GB/s';
}

const product = (m: number, k: number, n: number, transposeA = false, transposeB = false): Plan => ({
  name: `matmul ${m}x${k}x${n}${transposeA ? ' a turned' : ''}${transposeB ? ' b turned' : ''}`,
  shapes: [transposeA ? [k, m] : [m, k], transposeB ? [n, k] : [k, n]],
  build: (g, [a = 0, b = 0]) => g.matmul(a, b, { transposeA, transposeB }),
  work: (2 * m * k * n) / 1e12,
  unit: 'TFLOP/s',
});

const stream = (name: string, shapes: Plan['shapes'], bytes: number, build: Plan['build']): Plan => ({ name, shapes, build, work: bytes / 1e9, unit: 'GB/s' });

const million = 1_000_000;

const plans: readonly Plan[] = [
  product(4096, 4096, 4096),
  product(4096, 4096, 4096, true, false),
  product(4096, 4096, 4096, false, true),
  product(4097, 4095, 4099),
  product(2048, 2048, 2048),
  product(1024, 1024, 1024),
  product(256, 4096, 256),
  product(1, 4096, 4096),
  product(1, 4096, 4096, false, true),
  product(4096, 4096, 1),
  stream('add of 40 million', [[40 * million], [40 * million]], 480e6, (g, [a = 0, b = 0]) => g.binary('add', a, b)),
  stream('sum of 20 million', [[20 * million]], 80e6, (g, [x = 0]) => g.reduce('sum', x)),
  stream('dot of 20 million', [[20 * million], [20 * million]], 160e6, (g, [a = 0, b = 0]) => g.dot(a, b)),
  stream('columns of 4096x4096', [[4096, 4096]], 67e6, (g, [x = 0]) => g.reduce('sum', x, { axes: [0] })),
  stream('softmax of 1 million', [[million]], 8e6, (g, [x = 0]) => g.softmax(x)),
  stream('softmax of 4096 rows of 4096', [[4096, 4096]], 134e6, (g, [x = 0]) => g.softmax(x)),
  stream('layerNorm of 4096 rows of 4096', [[4096, 4096], [4096]], 134e6, (g, [x = 0, gain = 0]) => g.layerNorm(x, gain, undefined, 1e-5)),
  stream('transpose of 4096x4096', [[4096, 4096]], 134e6, (g, [x = 0]) => g.permute(x, [1, 0])),
  stream('cumsum of 1 million', [[million]], 8e6, (g, [x = 0]) => g.cumsum(x)),
  stream('top 40 of 150 thousand', [[150_000]], 0.6e6, (g, [x = 0]) => g.topK(x, 40)),
];

async function checkAll(backend: Backend): Promise<void> {
  let failed = 0;
  const cases = allCases();
  for (const opCase of cases) {
    const { ok, worst, where } = await checkCase(backend, opCase);
    if (ok) continue;
    failed += 1;
    console.log(`  ${opCase.name}: ${worst.toFixed(2)} of the accepted error at ${where}`);
  }
  console.log(`${cases.length - failed} of ${cases.length} cases agree with the reference`);
}

const rounds = 12;
const warmUpMs = 500;

async function measure(backend: Backend, { name, shapes, build, work, unit }: Plan): Promise<void> {
  const g = new GraphBuilder();
  const inputs = shapes.map((shape, i) => g.param(`x${i}`, { dtype: 'f32', shape }));
  g.output('y', build(g, inputs));
  const start = performance.now();
  const graph = await CompiledGraph.compile(g.build(), backend);
  const compile = performance.now() - start;
  try {
    for (const [i, shape] of shapes.entries()) {
      const size = shape.reduce((product, length) => product * length, 1);
      const data = Float32Array.from({ length: size }, (_, j) => ((j * 7919) % 1024) / 1024 - 0.5);
      await graph.setParam(`x${i}`, new Uint8Array(data.buffer));
    }
    // An idle GPU's clocks are low: they rise while it works.
    for (const warm = performance.now(); performance.now() - warm < warmUpMs; ) await graph.profile();
    const times: number[] = [];
    for (let round = 0; round < rounds; round++) times.push((await graph.profile()).reduce((sum, { ns }) => sum + ns, 0));
    const best = times.sort((a, b) => a - b)[Math.floor(rounds / 2)] ?? 0;
    console.log(
      `  ${name.padEnd(36)} ${(best / 1e3).toFixed(1).padStart(9)} us ${((work / best) * 1e9).toFixed(1).padStart(8)} ${unit}   compile ${compile.toFixed(0)} ms`,
    );
  } finally {
    graph.dispose();
  }
}

export async function run(args: readonly string[]): Promise<void> {
  const backend = await openBackend({ device: 'webgpu', checked: args.includes('checked') });
  console.log(`${backend.name}${args.includes('checked') ? ', checked' : ''}`);
  if (args.includes('cases')) await checkAll(backend);
  for (const plan of plans) await measure(backend, plan);
  backend.dispose();
}
