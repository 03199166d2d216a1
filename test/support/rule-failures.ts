import type { OpCase } from '../../src/ops/case.js';
import type { HostTensor, OpDefinition } from '../../src/ops/definition.js';
import type { ComputeOp } from '../../src/ops/params.js';
import { ops } from '../../src/ops/table.js';
import { dequantize } from '../../src/quant/index.js';
import { type RuleMaker, type RunOptions, runCase, type TestDevice } from './run-steps.js';

/** Runs cases whose results may be infinite or NaN, which must then be met exactly; the list of those that fail, empty where all pass. */
export async function ruleFailures<K extends ComputeOp>(
  test: TestDevice,
  rule: RuleMaker<K>,
  cases: Iterable<OpCase<K>>,
  options: RunOptions = {},
): Promise<readonly string[]> {
  const failed: string[] = [];
  for (const opCase of cases) {
    const { got } = await runCase(test, rule, opCase, options);
    const wanted = referenceOf(opCase);
    const { absolute = 0, relative = 0, relativeToMax = 0 } = opCase.tolerance;
    const largest = wanted.reduce((max, value) => (Number.isFinite(value) ? Math.max(max, Math.abs(value)) : max), 0);
    const wrong = [...wanted].flatMap((want, i) => {
      const have = got[i] ?? Number.NaN;
      const close = Math.abs(have - want) <= absolute + relative * Math.abs(want) + relativeToMax * largest;
      return Object.is(want, have) || want === have || (Number.isFinite(want) && close) ? [] : [`[${i}] ${have} instead of ${want}`];
    });
    if (wrong.length > 0) failed.push(`${opCase.name}: ${wrong.length} wrong, ${wrong.slice(0, 4).join(', ')}`);
  }
  return failed;
}

function referenceOf<K extends ComputeOp>(opCase: OpCase<K>): Float64Array {
  const definition = ops[opCase.op] as OpDefinition<K>;
  const inputs = opCase.inputs.map(({ type, bytes }): HostTensor => ({ shape: type.shape, data: Float64Array.from(dequantize(type.dtype, bytes)) }));
  const types = opCase.inputs.map((input) => input.type);
  return definition.reference(inputs, opCase.params, definition.type(types, opCase.params));
}
