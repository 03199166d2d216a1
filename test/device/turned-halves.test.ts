import { beforeAll, expect, it } from 'vitest';
import { bytesOf } from '../../src/core/bytes.js';
import type { GpuKernel } from '../../src/core/kernel.js';
import { linearKernel } from '../../src/kernels/linear.js';
import { halvesKernel, turnedHalvesKernel } from '../../src/kernels/matrix/halves.js';
import { hasMatrices } from '../../src/kernels/matrix/linear.js';
import { arg } from '../../src/kernels/template.js';
import { weightLayout } from '../../src/kernels/weights-layout.js';
import type { OpCase } from '../../src/ops/case.js';
import { floatInput, seededRandom } from '../../src/ops/cases/weight-data.js';
import { need } from '../../src/ops/definition.js';
import type { LoweringRule } from '../../src/ops/target.js';
import { failures, openTestDevice, runCase, type TestDevice } from '../support/run-steps.js';

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

/** A product of a [M, depth] with b, of which `toHalves` makes f16 [lines, depth]; a kernel for f16 weights multiplies with them. */
const withHalves =
  (lines: number, toHalves: (depth: number) => GpuKernel): LoweringRule<'matmul', GpuKernel> =>
  (node, context) => {
    const [a, b] = [need(node.inputs[0]), need(node.inputs[1])];
    const [rows = 0, depth = 0] = a.type.shape;
    const type = { dtype: 'f16', shape: [lines, depth] } as const;
    const halves = context.scratch(type);
    const product = linearKernel({ layout: weightLayout(type), start: 0, outputs: lines, rows, bias: false, residual: 'none' }, test.capabilities);
    return [
      { label: 'f16', node: 0, kernel: toHalves(depth), args: [arg(b, 'read'), arg(halves, 'write')] },
      { label: 'product', node: 0, kernel: product, args: [arg(a, 'read'), arg(halves, 'read'), arg(node.output, 'write')] },
    ];
  };

/** b [depth, lines], whose first `k` rows are made f16 with their axes swapped. */
const turned = (lines: number, k: number) => withHalves(lines, (depth) => turnedHalvesKernel(lines, k, depth));

/** b holds numbers that f16 holds, and zeros from row `k` on. */
function caseOf(lines: number, k: number, depth: number): OpCase<'matmul'> {
  const random = seededRandom(lines + k);
  const values = Float32Array.from({ length: depth * lines }, (_, i) => (i < k * lines ? Math.round(random() * 2000 - 1000) / 512 : 0));
  const b = { role: 'input', type: { dtype: 'f32', shape: [depth, lines] }, bytes: bytesOf(values) } as const;
  const params = { transposeA: false, transposeB: false, alpha: 1 };
  return { name: `${lines} lines of ${k}`, op: 'matmul', params, inputs: [floatInput('input', [2, depth], random), b], tolerance: { relativeToMax: 3e-6 } };
}

/** Without f16 there are no f16 matrices that would read halves. */
function withoutHalves(): boolean {
  if (!test.capabilities.f16) expect(hasMatrices(test.capabilities)).toBe(false);
  return !test.capabilities.f16;
}

it('makes matrices f16 with their axes swapped, edges filled up with zeros', async () => {
  if (withoutHalves()) return;
  for (const [lines, k, depth] of [
    [64, 64, 64],
    [33, 40, 64],
  ] as const)
    expect(await failures(test, () => turned(lines, k), [caseOf(lines, k, depth)])).toEqual([]);
});

it('keeps NaN in f16, and takes the largest for what is beyond its range', async () => {
  if (withoutHalves()) return;
  const special = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -1e6, 65504, -0.3, -Number.NaN];
  const [lines, depth] = [special.length, 64];
  const input = (shape: readonly [number, number], value: (at: number) => number) =>
    ({ role: 'input', type: { dtype: 'f32', shape }, bytes: bytesOf(Float32Array.from({ length: shape[0] * shape[1] }, (_, at) => value(at))) }) as const;
  // Of a's row only the first is not 0, so that each result is the first element of its line as f16.
  const a = input([1, depth], (at) => (at === 0 ? 1 : 0));
  const ways = [
    { rule: turned(lines, depth), transposeB: false, b: input([depth, lines], (at) => special[at] ?? 1) },
    {
      rule: withHalves(lines, () => halvesKernel(lines, depth, depth)),
      transposeB: true,
      b: input([lines, depth], (at) => (at % depth === 0 ? (special[at / depth] ?? 1) : 1)),
    },
  ];
  for (const { rule, transposeB, b } of ways) {
    const params = { transposeA: false, transposeB, alpha: 1 };
    const { got } = await runCase(test, () => rule, { name: 'no numbers', op: 'matmul', params, inputs: [a, b], tolerance: {} });
    expect(Array.from(got)).toEqual([Number.NaN, 65504, -65504, -65504, 65504, -0.300048828125, Number.NaN]);
  }
});
