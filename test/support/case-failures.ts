import { maskCapabilities } from '../../src/core/capabilities.js';
import type { GpuKernel } from '../../src/core/kernel.js';
import { matrixRounding } from '../../src/kernels/matrix/rounding.js';
import { gpuTarget } from '../../src/kernels/target.js';
import { decodeBytes, type OpCase } from '../../src/ops/case.js';
import type { OpDefinition } from '../../src/ops/definition.js';
import type { ComputeOp } from '../../src/ops/params.js';
import { ops } from '../../src/ops/table.js';
import type { LoweringRule } from '../../src/ops/target.js';
import { type RunOptions, runCase, type TestDevice } from './run-steps.js';

/**
 * Runs cases of any operation and type by the GPU target's own rules; the list of those that fail, empty where all pass. NaN and infinities must be met exactly; where operands become f16 for
 * matrices, an output may err by what that adds.
 */
export async function caseFailures(test: TestDevice, cases: Iterable<OpCase>, options: RunOptions = {}): Promise<readonly string[]> {
  const failed: string[] = [];
  const capabilities = maskCapabilities(test.capabilities, options.mask ?? {});
  const { rules } = gpuTarget(capabilities);
  for (const opCase of cases) {
    const rule = rules[opCase.op] as LoweringRule<ComputeOp, GpuKernel>;
    const { got } = await runCase(test, () => rule, opCase, options);
    const wrong = differences(opCase, got, matrixRounding(opCase, capabilities));
    if (wrong.length > 0) failed.push(`${opCase.name}: ${wrong.length} wrong, ${wrong.slice(0, 4).join(', ')}`);
  }
  return failed;
}

/** Elements that are further from the reference than the case accepts and `rounding` adds. */
export function differences(opCase: OpCase, got: ArrayLike<number>, rounding?: Float64Array): readonly string[] {
  const definition = ops[opCase.op] as OpDefinition<ComputeOp>;
  const inputs = opCase.inputs.map(({ type, bytes }) => ({ shape: type.shape, data: decodeBytes(type, bytes) }));
  const type = definition.type(
    opCase.inputs.map((input) => input.type),
    opCase.params,
  );
  const wanted = definition.reference(inputs, opCase.params, type);
  const { absolute = 0, relative = 0, relativeToMax = 0 } = opCase.tolerance;
  const largest = wanted.reduce((max, value) => (Number.isFinite(value) ? Math.max(max, Math.abs(value)) : max), 0);
  const wrong: string[] = [];
  wanted.forEach((want, i) => {
    const have = got[i] ?? Number.NaN;
    if (Object.is(want, have) || want === have) return;
    const close = Math.abs(have - want) <= absolute + relative * Math.abs(want) + relativeToMax * largest + (rounding?.[i] ?? 0);
    if (!(Number.isFinite(want) && close)) wrong.push(`[${i}] ${have} instead of ${want}`);
  });
  return wrong;
}
