import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { baseCapabilities } from '../../src/core/capabilities.js';
import { PlanError, UnsupportedError } from '../../src/core/errors.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { evaluate } from '../../src/graph/evaluate.js';
import type { NodeId } from '../../src/graph/graph.js';
import { rewrite } from '../../src/graph/rewrite.js';
import { gpuTarget } from '../../src/kernels/target.js';
import type { ExecutionPlan } from '../../src/plan/execution-plan.js';
import { planGraph } from '../../src/plan/plan.js';
import { formatMemoryPlan } from '../../src/plan/report.js';
import { f32, randomGraphs, u32 } from '../graph/support.js';
import { execute, type FakeKernel, type FakeOptions, fakeTarget } from './support.js';

/** Plans what `build` makes of x, f32 [size]; its results are outputs. */
function planned(build: (g: GraphBuilder, x: NodeId) => readonly NodeId[], options: FakeOptions = {}, size = 16): ExecutionPlan<FakeKernel> {
  const g = new GraphBuilder();
  const outputs = build(g, g.input('x', f32(size)));
  for (const [index, node] of outputs.entries()) g.output(`y${index}`, node);
  return planGraph(g.build(), fakeTarget(options));
}

const chain = (g: GraphBuilder, x: NodeId, length: number): NodeId =>
  Array.from({ length }).reduce<NodeId>((node, _, i) => g.unary('neg', node, {}, `n${i}`), x);
const one = { exclusiveBuffers: false } as const;
const total = (plan: ExecutionPlan<FakeKernel>): number => plan.memory.banks.reduce((sum, bytes) => sum + bytes, 0);

describe('places', () => {
  test('values that never live together share, those that do stay apart', () => {
    const plan = planned((g, x) => [chain(g, x, 5)], { inPlace: false, memory: one });
    // The input keeps its place; the chain needs two more, whatever its length, and the last must stay.
    expect(plan.memory.banks).toEqual([3 * 64]);
    expect(plan.memory.unsharedBytes).toBe(6 * 64);
    const [a, b] = [plan.memory.slots.get(1), plan.memory.slots.get(2)];
    expect(a?.interval).toEqual({ birth: 0, death: 1 });
    expect(b?.interval).toEqual({ birth: 1, death: 2 });
    expect(a?.offset).not.toBe(b?.offset);
    expect(plan.memory.slots.get(3)?.offset).toBe(a?.offset);
  });

  test('what one step reads and writes is in different banks where buffers are exclusive', () => {
    const plan = planned((g, x) => [chain(g, x, 6)], { inPlace: false });
    for (const { args } of plan.steps) {
      const [read, written] = args.map(({ location }) => location.bank);
      expect(read).not.toBe(written);
    }
    expect(plan.memory.banks.length).toBeGreaterThan(1);
  });

  test('a view of a weight binds the bytes of its own shape, whatever padding matrices have', () => {
    const g = new GraphBuilder();
    g.output('y', g.add('argmax', {}, [g.reshape(g.param('gains', f32(33)), [3, 11])]));
    g.output('z', g.unary('neg', g.narrow(g.param('w', f32(65, 3)), 64, 1)));
    const [first, second] = planGraph(g.build(), gpuTarget(baseCapabilities)).steps;
    expect(first?.args[0]?.location).toMatchObject({ offset: 0, byteLength: 33 * 4 });
    expect(second?.args[0]?.location).toMatchObject({ offset: 64 * 12, byteLength: 12 });
  });

  test('views have no slot: they lie in their base and keep it alive', () => {
    const plan = planned(
      (g, x) => {
        const view = g.narrow(g.reshape(chain(g, x, 1), [4, 4]), 1, 2, 'view');
        const other = chain(g, x, 3);
        return [g.binary('add', g.reshape(view, [8]), g.narrow(other, 0, 8))];
      },
      { inPlace: false, memory: one },
    );
    const { graph, values, memory, steps } = plan;
    const [view, base] = [graph.nodes.find(({ name }) => name === 'view')?.id ?? -1, graph.nodes.find(({ name }) => name === 'n0')?.id ?? -1];
    expect(memory.slots.has(view)).toBe(false);
    expect(values.get(view)).toMatchObject({ root: base, byteOffset: 16, byteLength: 32 });
    expect(memory.slots.get(base)?.interval.death).toBe(steps.length - 1);
    expect(steps.at(-1)?.args[0]?.location).toMatchObject({ offset: (memory.slots.get(base)?.offset ?? 0) + 16, byteLength: 32 });
  });

  test('an output that is a view keeps its base to the end', () => {
    const plan = planned((g, x) => [g.narrow(chain(g, x, 1), 0, 4), chain(g, x, 4)], { inPlace: false, memory: one });
    expect(plan.memory.slots.get(1)?.interval.death).toBe(plan.steps.length);
  });

  test('slots begin at multiples of the alignment and keep their true size', () => {
    const plan = planned((g, x) => [g.unary('neg', x), g.unary('abs', x), g.unary('exp', x)], { memory: { alignment: 256 } }, 5);
    for (const { offset, byteLength } of plan.memory.slots.values()) {
      expect(offset % 256).toBe(0);
      expect(byteLength).toBe(20);
    }
    expect(total(plan) % 256).toBe(0);
  });

  test('packed weights have the bytes that their blocks have, odd ones too', () => {
    const g = new GraphBuilder();
    const w = g.param('w', { dtype: 'q6_k', shape: [3, 256] });
    g.output('y', g.linear(g.input('x', f32(1, 256)), w));
    const plan = planGraph(g.build(), fakeTarget());
    expect(plan.values.get(w)?.byteLength).toBe(630);
    expect(plan.steps[0]?.args[1]?.location).toMatchObject({ storage: 'param', byteLength: 632 });
    expect([...plan.memory.slots.keys()]).not.toContain(w);
  });

  test('a lower limit of banks makes more of them', () => {
    const build = (g: GraphBuilder, x: NodeId): readonly NodeId[] => Array.from({ length: 6 }, (_, i) => g.unary('scale', x, { a: i }));
    expect(planned(build, { memory: one }).memory.banks).toEqual([7 * 64]);
    const plan = planned(build, { memory: { ...one, maxBankBytes: 128 } });
    expect(plan.memory.banks).toEqual([128, 128, 128, 64]);
  });

  test('a value that no binding holds is a typed error that names it and the bytes', () => {
    const build = (g: GraphBuilder, x: NodeId): readonly NodeId[] => [g.unary('neg', x, {}, 'big')];
    expect(() => planned(build, { memory: { maxBindingBytes: 32 } })).toThrow(UnsupportedError);
    expect(() => planned(build, { memory: { maxBankBytes: 32 } })).toThrow('needs 64 bytes, one binding of this device holds 32');
  });

  test('so is a state or a plain weight beyond the binding limit', () => {
    const g = new GraphBuilder();
    const cache = g.state('cache', f32(1, 64, 2));
    g.output('y', g.unary('exp', g.cacheWrite(cache, g.input('x', f32(1, 1, 2)), g.state('session', u32(65)))));
    expect(() => planGraph(g.build(), fakeTarget({ memory: { maxBindingBytes: 300 } }))).toThrow(UnsupportedError);
    expect(() => planGraph(g.build(), fakeTarget({ memory: { maxBindingBytes: 300 } }))).toThrow('512 bytes');
  });

  test('a view that begins between aligned bytes is a typed error, unless another view of it is read', () => {
    const build = (g: GraphBuilder, x: NodeId): readonly NodeId[] => [g.unary('neg', g.narrow(x, 1, 4, 'odd'))];
    expect(() => planned(build)).toThrow(UnsupportedError);
    expect(() => planned(build)).toThrow('the view odd begins at byte 4');
    const even = planned((g, x) => [g.unary('neg', g.narrow(g.narrow(x, 1, 8), 3, 4))]);
    expect(even.steps[0]?.args[0]?.location.offset).toBe(16);
  });
});

describe('in place', () => {
  test('an output takes the place of an input that dies', () => {
    const plan = planned((g, x) => [chain(g, x, 5)]);
    // The first step cannot: inputs keep their values for the next run.
    expect([...plan.memory.inPlace]).toEqual([1, 2, 3, 4].map((step) => [step, step]));
    expect(plan.steps[1]).toMatchObject({ consumes: 1, args: [{ value: 2, access: 'readwrite' }] });
    expect(plan.steps[1]?.kernel.key).toBe('unary in place');
    expect(plan.memory.banks).toEqual([64, 64]);
  });

  test.each<[string, (g: GraphBuilder, x: NodeId) => readonly NodeId[]]>([
    ['an input', (g, x) => [g.unary('neg', x)]],
    ['an output', (g, x) => [chain(g, x, 1), g.unary('exp', 1)]],
    ['a value that a later step reads', (g, x) => [g.binary('add', g.unary('exp', chain(g, x, 1)), 1)].slice(0, 1)],
    ['a value that the step reads twice', (g, x) => [g.binary('mul', chain(g, x, 1), 1)]],
    ['a part of a value', (g, x) => [g.unary('exp', g.narrow(chain(g, x, 1), 0, 8))]],
    ['a weight', (g) => [g.unary('exp', g.param('p', f32(16)))]],
    ['a state', (g) => [g.unary('exp', g.state('s', f32(16)))]],
    ['a constant', (g) => [g.unary('exp', g.constant([1, 2], f32(2)))]],
  ])('never in place of %s', (_, build) => {
    const g = new GraphBuilder();
    const x = g.input('x', f32(16));
    for (const [index, node] of build(g, x).entries()) g.output(`y${index}`, node);
    expect([...planGraph(g.build(), fakeTarget()).memory.inPlace.values()].filter((value) => value <= 1)).toEqual([]);
  });

  test('a whole view counts as its base', () => {
    const plan = planned((g, x) => [g.unary('exp', g.reshape(chain(g, x, 1), [4, 4]))]);
    expect([...plan.memory.inPlace]).toEqual([[1, 2]]);
    expect(plan.steps[1]?.args).toHaveLength(1);
  });
});

describe('weights', () => {
  const linear = (options: FakeOptions): ExecutionPlan<FakeKernel> => {
    const g = new GraphBuilder();
    g.output('y', g.linear(g.input('x', f32(1, 2)), g.param('w', f32(5, 2))));
    return planGraph(g.build(), fakeTarget(options));
  };

  test('in several bindings give one argument for each', () => {
    const plan = linear({ shardRows: 2 });
    expect(plan.steps[0]?.args.map(({ location }) => [location.storage, location.shard, location.byteLength])).toEqual([
      ['arena', 0, 8],
      ['param', 0, 16],
      ['param', 1, 16],
      ['param', 2, 8],
      ['arena', 0, 20],
    ]);
    const leaves = { inputs: new Map([['x', Float64Array.of(1, 10)]]), params: new Map([['w', Float64Array.from({ length: 10 }, (_, i) => i)]]) };
    expect(execute(plan, leaves).outputs.get('y')).toEqual([10, 32, 54, 76, 98]);
  });

  test('in several bindings are no operand of what knows nothing of them', () => {
    const g = new GraphBuilder();
    g.output('y', g.unary('exp', g.param('w', f32(5, 2))));
    const graph = g.build();
    expect(() => planGraph(graph, fakeTarget({ shardRows: 2 }))).toThrow(UnsupportedError);
    expect(planGraph(graph, fakeTarget()).steps).toHaveLength(1);
  });

  test('are not viewed where their layout is the device’s own, nor given back', () => {
    const view = new GraphBuilder();
    const w = view.param('w', { dtype: 'f16', shape: [4, 32] });
    view.output('y', view.linear(view.input('x', f32(1, 32)), view.narrow(w, 0, 2)));
    expect(() => planGraph(view.build(), fakeTarget())).toThrow('cannot be viewed');
    const back = new GraphBuilder();
    back.output('w', back.param('w', f32(4, 2)));
    expect(() => planGraph(back.build(), fakeTarget())).toThrow(UnsupportedError);
  });

  test('are params, unless they are f32', () => {
    const g = new GraphBuilder();
    g.output('y', g.linear(g.input('x', f32(1, 2)), g.input('w', { dtype: 'f16', shape: [3, 2] })));
    expect(() => planGraph(g.build(), fakeTarget())).toThrow(UnsupportedError);
    const plain = new GraphBuilder();
    plain.output('y', plain.linear(plain.input('x', f32(1, 2)), plain.input('w', f32(3, 2))));
    expect(planGraph(plain.build(), fakeTarget()).steps).toHaveLength(2);
  });
});

test('the report names slots, lifetimes and savings', () => {
  const text = formatMemoryPlan(planned((g, x) => [chain(g, x, 3)], {}, 5));
  expect(text.split('\n')).toEqual([
    'value  bank  offset  bytes  alive',
    'x         0       0     20  in to out',
    'n0        1       0     20  0 to 1',
    'n1        1       0     20  1 to 2     in place of n0',
    'n2        1       0     20  2 to out   in place of n1',
    '4 values in 2 banks of 32, 32 bytes: 64 bytes, 64 less than unshared (48 of padding)',
  ]);
});

test('a scratch value of a step that reads nothing before is refused', () => {
  const target = fakeTarget();
  const graph = (() => {
    const g = new GraphBuilder();
    g.output('y', g.unary('exp', g.input('x', f32(4))));
    return g.build();
  })();
  const rule: typeof target.rules.unary = (node, context) => {
    const [step] = target.rules.unary(node, context);
    if (step === undefined) throw new Error('no step');
    return [{ ...step, args: [{ value: context.scratch(f32(4)).id, shard: 0, access: 'read' }, ...step.args.slice(1)] }];
  };
  expect(() => planGraph(graph, { ...target, rules: { ...target.rules, unary: rule } })).toThrow(PlanError);
});

test('any graph runs on its plan as on paper', () => {
  const options = fc.record({
    inPlace: fc.boolean(),
    exclusiveBuffers: fc.boolean(),
    alignment: fc.constantFrom(4, 16),
    maxBankBytes: fc.constantFrom(32, 64, 160, 65_536),
    rewriting: fc.boolean(),
  });
  fc.assert(
    fc.property(randomGraphs, options, ({ graph, leaves }, { inPlace, exclusiveBuffers, alignment, maxBankBytes, rewriting }) => {
      const source = rewriting ? rewrite(graph).graph : graph;
      const plan = planGraph(source, fakeTarget({ inPlace, memory: { exclusiveBuffers, alignment, maxBankBytes } }));
      const [wanted, got] = [evaluate(source, leaves), execute(plan, leaves)];
      for (const [name, { data }] of wanted.outputs) near(got.outputs.get(name), data);
      for (const [name, data] of wanted.states) near(got.states.get(name), data);
      expect(total(plan)).toBeLessThanOrEqual(plan.memory.unsharedBytes);
      expect(formatMemoryPlan(plan).split('\n')).toHaveLength(plan.memory.slots.size + 2);
    }),
    { numRuns: 400 },
  );
});

/** The fake product adds its bias after the sum and not before, so the last bits may differ; a wrong place is NaN or another value. */
function near(got: readonly number[] | undefined, wanted: Float64Array): void {
  expect(got?.length).toBe(wanted.length);
  wanted.forEach((want, i) => {
    const have = got?.[i] ?? Number.NaN;
    if (!Object.is(have, want)) expect(Math.abs(have - want)).toBeLessThanOrEqual(1e-9 * Math.max(1, Math.abs(want)));
  });
}
