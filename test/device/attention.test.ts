import { beforeAll, describe, expect, it } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import { attentionArgs, attentionProblem, attentionRule } from '../../src/kernels/attention/attention.js';
import { cacheWriteRule } from '../../src/kernels/attention/cache.js';
import { attentionMatrixKernel } from '../../src/kernels/attention/matrix.js';
import type { MatrixAttentionShape } from '../../src/kernels/attention/matrix-layout.js';
import { matrixRounding } from '../../src/kernels/matrix/rounding.js';
import { arg, oneStep } from '../../src/kernels/template.js';
import { attentionCases } from '../../src/ops/cases/attention.js';
import { cacheWriteCases } from '../../src/ops/cases/cache.js';
import { testAdapterName } from '../support/adapter-name.js';
import { attentionCasesToDeal, wideHeads } from '../support/attention-cases.js';
import { maskedWays } from '../support/masks.js';
import { caseError, failures, openTestDevice, type RuleMaker, runCase, type TestDevice } from '../support/run-steps.js';
import { dealt, shareName } from '../support/share.js';
import { writtenOut } from '../support/written-out-matrices.js';

/** A software rasteriser compiles some of these kernels for seconds. */
const timeout = 600_000;

let test: TestDevice;
beforeAll(async () => {
  test = await openTestDevice();
});

describe.each(maskedWays)('attention with %s', (_name, mask, way) => {
  it(`agrees with the reference in ${shareName}`, { timeout }, async () => {
    expect(await failures(test, attentionRule, dealt(attentionCasesToDeal(), { ...way, slow: wideHeads }), { mask })).toEqual([]);
  });

  it(`finds what cacheWrite wrote in ${shareName}`, async () => {
    expect(await failures(test, () => cacheWriteRule, dealt(cacheWriteCases(), way), { mask })).toEqual([]);
  });
});

it('writes no word of a cache in planes from two heads, whose scales may share one', async () => {
  const opCase = cacheWriteCases().find(({ name }) => name === 'cacheWrite q8_planes [3, 3, 96] rows 3 of 4 position 0');
  if (opCase === undefined) throw new Error('the case is not there');
  const before = opCase.inputs[0]?.bytes ?? new Uint8Array();
  const written = await Promise.all(
    [0, 1, 2].map(async (head) => {
      const only: RuleMaker<'cacheWrite'> = () => (node, context) =>
        cacheWriteRule(node, context).map((step) => {
          const wgsl = (): string => step.kernel.wgsl().replace(/let head = [^;]*;/, `$&\n  if (head != ${head}u) { return; }`);
          return { ...step, kernel: { ...step.kernel, key: `${step.kernel.key} head ${head}`, wgsl } };
        });
      const { bytes } = await runCase(test, only, opCase);
      return [...new Set([...before.keys()].filter((at) => before[at] !== bytes[at]).map((at) => Math.floor(at / 4)))];
    }),
  );
  const words = written.flat();
  expect(words.length).toBeGreaterThan(3 * 3 * 24);
  expect(new Set(words).size).toBe(words.length);
});

/** As the large tiles are, with fewer rows: workgroup memory also holds what stands for registers here. */
const smallShape: MatrixAttentionShape = { tileRows: 64, tileKeys: 16, scores: [4, 1], output: [4, 1], subgroupSize: 32 };

const withMatrices: GpuCapabilities = {
  ...baseCapabilities,
  limits: { ...baseCapabilities.limits, maxComputeWorkgroupStorageSize: 49_152 },
  f16: true,
  subgroups: true,
  subgroupMinSize: 32,
  subgroupMaxSize: 32,
  subgroupMatrices: [{ componentType: 'f16', resultComponentType: 'f32', m: 16, n: 16, k: 16 }],
};

/** Attention on matrices that are written out. */
const matrixRule: RuleMaker<'attention'> = () => (node) => {
  const problem = attentionProblem(node);
  return oneStep(node, writtenOut(attentionMatrixKernel(problem, smallShape)), [...attentionArgs(node), arg(node.output, 'write')]);
};

/** Narrow heads over every part of the text, and maxima that grow: Mesa's compiler takes minutes for what is written out, so SwiftShader has them all. */
const onMatrices = attentionCases().filter(({ inputs, name, params: { scale } }) => {
  const [rows = 0, , width = 0] = inputs[0]?.type.shape ?? [];
  return rows >= 33 && width % 16 === 0 && (scale === 4 || (width <= 48 && (inputs.length > 4 || /q8_planes/.test(name))));
});

describe.each(testAdapterName() === 'swiftshader' ? onMatrices.map((opCase) => [opCase.name, opCase] as const) : [])('on matrices, %s', (_name, opCase) => {
  it('is as near to the reference as f16 allows', { timeout }, async () => {
    const { got } = await runCase(test, matrixRule, opCase);
    const rounding = matrixRounding(opCase, withMatrices, 1) ?? new Float64Array();
    expect(rounding.length).toBe(got.length);
    expect(caseError({ ...opCase, tolerance: { ...opCase.tolerance, absolute: rounding[0] ?? 0 } }, got)).toMatchObject({
      worst: expect.toSatisfy((worst: number) => worst <= 1),
    });
  });
});

// On SwiftShader alone, as above: a query that is no number makes NaN of its row of its head, and of no other.
it.each(testAdapterName() === 'swiftshader' ? onMatrices.filter(({ name }) => /f32/.test(name)) : [])(
  'on matrices, a NaN stays one: $name',
  { timeout },
  async (opCase) => {
    const [query, ...rest] = opCase.inputs;
    if (query === undefined) throw new Error('the case has no query');
    const [, heads = 0, width = 0] = query.type.shape;
    const bytes = Uint8Array.from(query.bytes);
    const [row, head] = [3, 1];
    const at = (row * heads + head) * width;
    new DataView(bytes.buffer).setFloat32((at + 5) * 4, Number.NaN, true);
    const { got } = await runCase(test, matrixRule, { ...opCase, inputs: [{ ...query, bytes }, ...rest] });
    const broken = Array.from(got, (value, i) => (Number.isNaN(value) ? [i] : [])).flat();
    expect(broken).toEqual(Array.from({ length: width }, (_, i) => at + i));
  },
);
