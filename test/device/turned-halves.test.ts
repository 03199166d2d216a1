import { beforeAll, expect, it } from 'vitest';
import type { GpuKernel } from '../../src/core/kernel.js';
import { linearKernel } from '../../src/kernels/linear.js';
import { turnedHalvesKernel } from '../../src/kernels/matrix/halves.js';
import { hasMatrices } from '../../src/kernels/matrix/linear.js';
import { arg } from '../../src/kernels/template.js';
import { weightLayout } from '../../src/kernels/weights-layout.js';
import type { OpCase } from '../../src/ops/case.js';
import { bytesOf, floatInput, seededRandom } from '../../src/ops/cases/weight-data.js';
import { need } from '../../src/ops/definition.js';
import type { LoweringRule } from '../../src/ops/target.js';
import { failures, openTestDevice, type TestDevice } from '../support/run-steps.js';

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

/** A product of a [M, depth] with b [depth, N], whose first `k` rows are made f16 with their axes swapped; a kernel for f16 weights multiplies with them. */
const turned =
  (k: number): LoweringRule<'matmul', GpuKernel> =>
  (node, context) => {
    const [a, b] = [need(node.inputs[0]), need(node.inputs[1])];
    const [rows = 0, depth = 0] = a.type.shape;
    const lines = b.type.shape[1] ?? 0;
    const type = { dtype: 'f16', shape: [lines, depth] } as const;
    const halves = context.scratch(type);
    const product = linearKernel({ layout: weightLayout(type), start: 0, outputs: lines, rows, bias: false, residual: 'none' }, test.capabilities);
    return [
      { label: 'turn', node: 0, kernel: turnedHalvesKernel(lines, k, depth), args: [arg(b, 'read'), arg(halves, 'write')] },
      { label: 'product', node: 0, kernel: product, args: [arg(a, 'read'), arg(halves, 'read'), arg(node.output, 'write')] },
    ];
  };

/** b holds numbers that f16 holds, and zeros from row `k` on. */
function caseOf(lines: number, k: number, depth: number): OpCase<'matmul'> {
  const random = seededRandom(lines + k);
  const values = Float32Array.from({ length: depth * lines }, (_, i) => (i < k * lines ? Math.round(random() * 2000 - 1000) / 512 : 0));
  const b = { role: 'input', type: { dtype: 'f32', shape: [depth, lines] }, bytes: bytesOf(values) } as const;
  const params = { transposeA: false, transposeB: false, alpha: 1 };
  return { name: `${lines} lines of ${k}`, op: 'matmul', params, inputs: [floatInput('input', [2, depth], random), b], tolerance: { relativeToMax: 3e-6 } };
}

it('makes matrices f16 with their axes swapped, edges filled up with zeros', async () => {
  if (!test.capabilities.f16) {
    // Without f16 there are no f16 matrices that would read them.
    expect(hasMatrices(test.capabilities)).toBe(false);
    return;
  }
  for (const [lines, k, depth] of [
    [64, 64, 64],
    [33, 40, 64],
  ] as const)
    expect(await failures(test, () => turned(k), [caseOf(lines, k, depth)])).toEqual([]);
});
