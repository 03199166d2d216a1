import { describe, expect, it, test } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import { adapterKey, checkTuning, mergeTuning, parseTuning, productKey, type TunedShape, type Tuning, tuningVersion } from '../../src/core/tuning.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { type ProductEnd, type ProductProblem, productKernel } from '../../src/kernels/decode/product.js';
import { selectProduct } from '../../src/kernels/decode/select.js';
import { checkEntries, chooseProduct, fitShape, needsOf, productCandidates, tunedName } from '../../src/kernels/decode/tuned.js';
import { gpuTarget } from '../../src/kernels/target.js';
import { weightLayout } from '../../src/kernels/weights-layout.js';
import { planGraph } from '../../src/plan/plan.js';

const here: GpuCapabilities = {
  ...baseCapabilities,
  ...{ subgroups: true, subgroupMinSize: 32, subgroupMaxSize: 32, packedDot: true, vendor: 'maker', description: 'card (driver 1)' },
  limits: { ...baseCapabilities.limits, maxComputeInvocationsPerWorkgroup: 1024, maxComputeWorkgroupSizeX: 1024, maxComputeWorkgroupStorageSize: 49_152 },
};

function problemOf(end: ProductEnd, best = false, depth = 4096, results = 4096): ProductProblem {
  const matrix = { layout: weightLayout({ dtype: 'q8_0', shape: [results, depth] }), start: 0, bias: false };
  return { depth, end, best, eps: 1e-5, plain: true, matrices: end === 'gated' ? [matrix, matrix] : [matrix], packed: 'none' };
}

const residual = problemOf('residual');
const measured: TunedShape = { subgroups: 16, lanes: 32, rows: 4, together: 2, split: 2, ahead: 3 };

function tuningOf(problem: ProductProblem, shape: TunedShape, capabilities = here): Tuning {
  return { version: tuningVersion, adapter: adapterKey(capabilities), products: [{ ...tunedName(problem), shape, microseconds: 10 }] };
}

describe('the shape of a product', () => {
  const shipped = selectProduct(needsOf(tunedName(residual)), here);

  it("is the table's where it has one for that product", () => {
    const choice = chooseProduct(residual, here, tuningOf(residual, measured));
    expect(choice).toMatchObject({ source: 'tuned', shape: { ...measured, subgroupSize: 32, staged: true } });
    const other = chooseProduct(problemOf('residual', false, 2048), here, tuningOf(residual, measured));
    expect(other).toMatchObject({ source: 'shipped', reason: 'the tuning has no residual q8_0[4096] x 2048' });
  });

  test.each([
    ['there is no tuning', undefined, 'there is no tuning'],
    [
      'it is of an unknown version',
      { ...tuningOf(residual, measured), version: 99 },
      'the tuning is ignored: it is of version 99, and this build reads version 2',
    ],
    [
      'it is of another driver',
      tuningOf(residual, measured, { ...here, description: 'card (driver 2)' }),
      'the tuning is ignored: it was measured on another adapter: description is "card (driver 2)" there and "card (driver 1)" here',
    ],
    ['the shape does not hold', tuningOf(residual, { ...measured, together: 3 }), 'the tuned shape is ignored: 3 rows together do not divide 4'],
  ])('is the shipped one where %s', (_, tuning, reason) => {
    expect(chooseProduct(residual, here, tuning)).toEqual({ source: 'shipped', reason, shape: shipped });
  });

  it('reaches the kernels of a graph', () => {
    const g = new GraphBuilder();
    const x = g.input('x', { dtype: 'f32', shape: [1, 4096] });
    const w = g.param('w', { dtype: 'q8_0', shape: [4096, 4096] });
    g.output('y', g.add('tokenLinear', { bias: false, residual: true }, [x, w, x], 'y'));
    const keys = (tuning?: Tuning): readonly string[] =>
      planGraph(g.build(), gpuTarget(here, { ...(tuning === undefined ? {} : { tuning }) })).steps.map(({ kernel }) => kernel.key);
    expect(keys(tuningOf(residual, measured))).not.toEqual(keys());
    expect(keys({ ...tuningOf(residual, measured), version: 99 })).toEqual(keys());
  });
});

describe('a measured shape', () => {
  test.each([
    ['too many threads', residual, { ...measured, subgroups: 64 }, '2048 threads are too many for a workgroup'],
    ['too many rows', residual, { ...measured, rows: 64 }, '64 rows with 3 loads ahead are more than 32 with 16'],
    ['odd lanes', residual, { ...measured, lanes: 12 }, '12 lanes to a row are no part of a subgroup of 32 that is 4 or more'],
    ['rows that are not read at once', residual, { ...measured, lanes: 8 }, '4 rows, 2 together, are not read 4 at once'],
    ['uneven subgroups', residual, { ...measured, split: 3 }, '3 subgroups to a row do not divide 16'],
    ['no whole blocks', residual, { ...measured, subgroups: 2 }, '4 results to a workgroup are no whole blocks of 16 that divide 4096'],
    [
      'half a pair',
      problemOf('gated'),
      { ...measured, rows: 1, together: 1, split: 1 },
      'gated products take pairs of rows, each of one subgroup, got 1 rows of 1',
    ],
  ])('is refused for %s', (_, problem, shape, reason) => {
    expect(fitShape(needsOf(tunedName(problem)), shape, here)).toBe(reason);
    const { used, ignored } = checkEntries(tuningOf(problem, shape), here);
    expect({ used, ignored }).toEqual({ used: [], ignored: [{ product: productKey(tunedName(problem)), reason }] });
  });

  it('stages nothing that workgroup memory cannot hold', () => {
    const small = { ...here, limits: { ...here.limits, maxComputeWorkgroupStorageSize: 4096 } };
    expect(fitShape(needsOf(tunedName(residual)), measured, small)).toMatchObject({ staged: false });
    const tiny = { ...here, limits: { ...here.limits, maxComputeWorkgroupStorageSize: 128 } };
    expect(fitShape(needsOf(tunedName(residual)), measured, tiny)).toBe('256 bytes of workgroup memory are too many');
  });
});

describe('candidates', () => {
  test.each(['none', 'residual', 'gated'] as const)('of end %s are lawful, many and others than the shipped shape', (end) => {
    const problem = problemOf(end);
    const shapes = productCandidates(problem, here);
    expect(shapes.length).toBeGreaterThan(20);
    const keys = new Set(shapes.map((shape) => productKernel(problem, shape).key));
    expect(keys.size).toBe(shapes.length);
    expect(keys.has(productKernel(problem, selectProduct(needsOf(tunedName(problem)), here)).key)).toBe(false);
    for (const shape of shapes) expect(fitShape(needsOf(tunedName(problem)), shape, here)).toEqual(shape);
  });

  it('of the head leave the choice no more to read', () => {
    const shapes = productCandidates(problemOf('none', true, 4096, 128_256), here);
    expect(shapes.length).toBeGreaterThan(3);
    for (const { subgroups, rows } of shapes) expect(subgroups * rows).toBeGreaterThanOrEqual(16);
  });
});

describe('the text of a tuning', () => {
  const tuning = tuningOf(residual, measured);

  it('is read as it was written', () => {
    expect(parseTuning(JSON.stringify(tuning))).toEqual(tuning);
    expect(checkTuning({ ...tuning, version: 99, products: 'of a later format' })).toMatchObject({ version: 99, products: [] });
  });

  it('takes the later measurement of a product', () => {
    const later = tuningOf(residual, { ...measured, ahead: 1 });
    const gated = tuningOf(problemOf('gated'), { ...measured, split: 1 });
    expect(mergeTuning(mergeTuning(tuning, gated), later).products.map(({ end, shape }) => [end, shape.ahead])).toEqual([
      ['residual', 1],
      ['gated', 3],
    ]);
  });

  test.each([
    ['is no JSON', '{', 'is no JSON'],
    ['is a list', '[]', 'has [] where a tuning should be'],
    ['has no version', '{}', 'has no version'],
    ['has no adapter', '{"version":1}', 'where adapter should be'],
    ['has no products', JSON.stringify({ ...tuning, products: 3 }), 'has no list of products: got 3'],
    ['has half a row', JSON.stringify(tuningOf(residual, { ...measured, rows: 0.5 })), 'has products[0].shape.rows 0.5: wanted a whole number from 1'],
    ['has no matrices', JSON.stringify({ ...tuning, products: [{ ...tuning.products[0], weights: [] }] }), 'has no products[0].weights'],
    ['has an unknown end', JSON.stringify({ ...tuning, products: [{ ...tuning.products[0], end: 'x' }] }), 'wanted none, residual, gated'],
  ])('is refused where it %s', (_, text, message) => {
    expect(() => parseTuning(text)).toThrow(expect.objectContaining({ code: 'E_ARGUMENT', argument: 'tuning', message: expect.stringContaining(message) }));
  });
});
