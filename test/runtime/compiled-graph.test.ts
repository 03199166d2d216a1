import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ArgumentError, DisposedError, OutOfMemoryError } from '../../src/core/errors.js';
import type { TensorType } from '../../src/core/tensor.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { Graph } from '../../src/graph/graph.js';
import { advanceCases } from '../../src/ops/cases/state.js';
import { stateWord } from '../../src/ops/state.js';
import { quantize } from '../../src/quant/index.js';
import type { Program } from '../../src/runtime/backend.js';
import { checkCase } from '../../src/runtime/check.js';
import { CompiledGraph } from '../../src/runtime/compiled-graph.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { TensorStore } from '../../src/runtime/tensors.js';

const f32 = (...shape: number[]): TensorType => ({ dtype: 'f32', shape });
const u32 = (...shape: number[]): TensorType => ({ dtype: 'u32', shape });
const raw = (values: Float32Array | Uint32Array): Uint8Array => new Uint8Array(values.buffer);

let backend: CpuBackend;
beforeEach(() => {
  backend = new CpuBackend();
});
afterEach(() => {
  expect(backend.ledger().bytes).toBe(0);
  backend.dispose();
});

/** y = x wᵀ + b, x f32 [1, 32]. */
function linearGraph(dtype: TensorType['dtype'] = 'f32'): GraphBuilder {
  const g = new GraphBuilder();
  g.output('y', g.binary('add', g.linear(g.input('x', f32(1, 32)), g.param('w', { dtype, shape: [2, 32] })), g.param('b', f32(2))));
  return g;
}

const ones = new Float32Array(32).fill(1);

describe('CompiledGraph', () => {
  test('runs when everything has a value, and says what has none', async () => {
    const compiled = await CompiledGraph.compile(linearGraph().build(), backend);
    await expect(compiled.run()).rejects.toThrow('no value yet for "x", "w", "b"');
    await compiled.setParam(
      'w',
      new Float32Array(64).map((_, i) => i),
    );
    await compiled.setParam('b', Float32Array.of(0.5, -0.5));
    await expect(compiled.run()).rejects.toThrow('no value yet for "x"');
    expect((await compiled.run({ x: ones })).get('y')).toEqual(Float32Array.of(496.5, 1519.5));
    // Inputs that are left out keep their value.
    expect((await compiled.run()).get('y')).toEqual(Float32Array.of(496.5, 1519.5));
    expect((await compiled.run({ x: ones.map(() => 2) })).get('y')).toEqual(Float32Array.of(992.5, 3039.5));
    compiled.dispose();
  });

  test('reports what it fused, or nothing where it was told not to', async () => {
    const [fused, plain] = [
      await CompiledGraph.compile(linearGraph().build(), backend),
      await CompiledGraph.compile(linearGraph().build(), backend, { rewrite: false }),
    ];
    expect(fused.rewrites).toMatchObject([{ rule: 'linear bias', applied: true }]);
    expect(plain.rewrites).toEqual([]);
    expect(plain.plan.steps.length).toBe(fused.plan.steps.length + 1);
    fused.dispose();
    plain.dispose();
  });

  test('refuses wrong names, sizes and types', async () => {
    const compiled = await CompiledGraph.compile(linearGraph().build(), backend);
    await expect(compiled.setParam('v', ones)).rejects.toThrow('the graph has no param "v"');
    await expect(compiled.setParam('x', ones)).rejects.toThrow(ArgumentError);
    await expect(compiled.setState('w', ones)).rejects.toThrow('the graph has no state "w"');
    await expect(compiled.setParam('b', Float32Array.of(1))).rejects.toThrow('"b" is f32[2] and takes 8 bytes, got 4');
    await expect(compiled.setParam('b', Uint32Array.of(1, 2))).rejects.toThrow('got u32 values');
    await expect(compiled.run({ z: ones })).rejects.toThrow(ArgumentError);
    await compiled.setParam('w', new Float32Array(64));
    await compiled.setParam('b', raw(Float32Array.of(1, 2)));
    await expect(compiled.run({ x: ones.subarray(1) })).rejects.toThrow('takes 128 bytes, got 124');
    await expect(compiled.run({ x: new Int32Array(32) })).rejects.toThrow('got i32 values');
    compiled.dispose();
  });

  test('takes a name of an object’s own for no input', async () => {
    const g = new GraphBuilder();
    g.output('y', g.unary('neg', g.input('toString', f32(1))));
    const compiled = await CompiledGraph.compile(g.build(), backend);
    await expect(compiled.run({})).rejects.toThrow('no value yet for "toString"');
    compiled.dispose();
  });

  test('reads packed weights', async () => {
    const compiled = await CompiledGraph.compile(linearGraph('q8_0').build(), backend);
    const bytes = quantize(
      'q8_0',
      new Float32Array(64).map((_, i) => (i < 32 ? 1 : -2)),
      32,
    );
    await compiled.setParam('w', bytes);
    await compiled.setParam('b', new Float32Array(2));
    const y = (await compiled.run({ x: ones })).get('y');
    expect(y?.[0]).toBeCloseTo(32, 1);
    expect(y?.[1]).toBeCloseTo(-64, 1);
    await expect(compiled.setParam('w', bytes.subarray(1))).rejects.toThrow('takes 68 bytes, got 67');
    compiled.dispose();
  });

  test('keeps states between runs, from zeros on', async () => {
    const g = new GraphBuilder();
    const session = g.state('session', u32(65));
    const cache = g.cacheWrite(g.state('cache', f32(1, 3, 1)), g.input('x', f32(1, 1, 1)), session);
    g.output('cache', cache);
    g.add('advance', {}, [session, g.constant([7], u32(1))]);
    const compiled = await CompiledGraph.compile(g.build(), backend);
    const words = new Uint32Array(65);
    words[stateWord.rows] = 1;
    await compiled.setState('session', words);
    expect((await compiled.run({ x: Float32Array.of(5) })).get('cache')).toEqual(Float32Array.of(5, 0, 0));
    expect((await compiled.run({ x: Float32Array.of(6) })).get('cache')).toEqual(Float32Array.of(5, 6, 0));
    const after = new Uint32Array(Uint8Array.from(await compiled.readState('session')).buffer);
    expect([after[stateWord.position], after[stateWord.token], after.length]).toEqual([2, 7, 65]);
    expect(new Float32Array(Uint8Array.from(await compiled.readState('cache')).buffer)).toEqual(Float32Array.of(5, 6, 0));
    compiled.dispose();
  });

  test('runs several times in one call, each run on the states of the one before', async () => {
    const g = new GraphBuilder();
    const session = g.state('session', u32(65));
    g.output('cache', g.cacheWrite(g.state('cache', f32(1, 4, 1)), g.input('x', f32(1, 1, 1)), session));
    g.add('advance', {}, [session, g.constant([7], u32(1))]);
    const compiled = await CompiledGraph.compile(g.build(), backend);
    const words = new Uint32Array(65);
    words[stateWord.rows] = 1;
    await compiled.setState('session', words);
    await compiled.execute({ x: Float32Array.of(5) }, { times: 3 });
    expect(await compiled.read('cache')).toEqual(Float32Array.of(5, 5, 5, 0));
    for (const times of [0, 1.5, Number.NaN]) await expect(compiled.execute({}, { times })).rejects.toThrow('expected a whole number of runs');
    compiled.dispose();
  });

  test('gives constants and their views as outputs, also under the name of a weight', async () => {
    const g = new GraphBuilder();
    const constant = g.constant([1, 2, 3, 4], u32(4), 'w');
    g.output('constant', constant);
    g.output('sum', g.binary('add', g.param('w', f32(1)), g.constant([2], f32(1))));
    const compiled = await CompiledGraph.compile(g.build(), backend);
    await compiled.setParam('w', Float32Array.of(3));
    const outputs = await compiled.run();
    expect(outputs.get('constant')).toEqual(Uint32Array.of(1, 2, 3, 4));
    expect(outputs.get('sum')).toEqual(Float32Array.of(5));
    compiled.dispose();
  });

  test('checks row numbers before kernels trust them', async () => {
    const g = new GraphBuilder();
    const table = g.param('table', f32(3, 2));
    g.output('a', g.gatherRows(table, g.input('ids', u32(2))));
    g.output('b', g.gatherRows(table, g.narrow(g.state('words', u32(20)), 16, 2)));
    const compiled = await CompiledGraph.compile(g.build(), backend);
    await compiled.setParam('table', Float32Array.of(1, 2, 3, 4, 5, 6));
    await expect(compiled.run({ ids: Uint32Array.of(2, 3) })).rejects.toThrow('"ids" holds row numbers from 0 to 2, got 3 at element 1');
    await expect(compiled.run({ ids: raw(Uint32Array.of(0xffffffff, 0)) })).rejects.toThrow(ArgumentError);
    const words = new Uint32Array(20).fill(99);
    await expect(compiled.setState('words', words)).rejects.toThrow('at element 16');
    words.set([1, 0], 16);
    await compiled.setState('words', words);
    const outputs = await compiled.run({ ids: Uint32Array.of(2, 2) });
    expect(outputs.get('a')).toEqual(Float32Array.of(5, 6, 5, 6));
    expect(outputs.get('b')).toEqual(Float32Array.of(3, 4, 1, 2));
    compiled.dispose();
  });

  test('shares tensors with other graphs', async () => {
    const tensors = new TensorStore(backend);
    const first = await CompiledGraph.compile(linearGraph().build(), backend, { tensors });
    await first.setParam('w', new Float32Array(64).fill(1));
    await first.setParam('b', new Float32Array(2));
    const second = await CompiledGraph.compile(linearGraph().build(), backend, { tensors });
    expect((await second.run({ x: ones })).get('y')).toEqual(Float32Array.of(32, 32));
    first.dispose();
    expect((await second.run()).get('y')).toEqual(Float32Array.of(32, 32));
    second.dispose();
    expect(backend.ledger().byClass.weights.count).toBe(2);
    tensors.dispose();
  });

  test('runs asked for at once do not mix', async () => {
    const g = new GraphBuilder();
    g.output('y', g.unary('neg', g.input('x', f32(1))));
    const compiled = await CompiledGraph.compile(g.build(), backend);
    const runs = await Promise.all([1, 2, 3].map((x) => compiled.run({ x: Float32Array.of(x) })));
    expect(runs.map((outputs) => outputs.get('y')?.[0])).toEqual([-1, -2, -3]);
    compiled.dispose();
  });

  test('leaves nothing behind where it finds no room', async () => {
    const g = linearGraph();
    g.output('z', g.binary('add', g.unary('exp', g.input('big', f32(1000))), g.constant([1], f32(1))));
    const graph = g.build();
    for (let budgetBytes = 64; budgetBytes < 9000; budgetBytes += 512) {
      const small = new CpuBackend({ budgetBytes });
      await expect(CompiledGraph.compile(graph, small)).rejects.toThrow(OutOfMemoryError);
      expect(small.ledger().bytes).toBe(0);
      small.dispose();
    }
  });

  test('says that it was disposed', async () => {
    const compiled = await CompiledGraph.compile(linearGraph().build(), backend);
    compiled.dispose();
    compiled.dispose();
    await expect(compiled.run({ x: ones })).rejects.toThrow(DisposedError);
    await expect(compiled.setParam('w', ones)).rejects.toThrow(DisposedError);
    await expect(compiled.readState('s')).rejects.toThrow(DisposedError);
    expect(() => compiled.profile()).toThrow(DisposedError);
  });
});

/** The CPU backend, but that the first number of every result is another. */
class LyingBackend extends CpuBackend {
  readonly #lie: number;

  constructor(lie: number) {
    super();
    this.#lie = lie;
  }

  override program(graph: Graph): Program {
    const program = super.program(graph);
    const lie = this.#lie;
    const prepare: Program['prepare'] = async (bindings) => {
      const honest = await program.prepare(bindings);
      return {
        stepCount: honest.stepCount,
        profile: () => honest.profile(),
        followedBy: (next) => honest.followedBy(next),
        start: (writes, reads) => honest.start(writes, reads),
        run: async (writes, reads) =>
          (await honest.run(writes, reads)).map((bytes) => {
            const copy = Uint8Array.from(bytes);
            new Float32Array(copy.buffer)[0] = lie;
            return copy;
          }),
      };
    };
    return { ...program, prepare };
  }
}

describe('checkCase', () => {
  const sums = {
    name: 'sum',
    op: 'binary',
    params: { fn: 'add' },
    inputs: [Float32Array.of(1, 2), Float32Array.of(1, Number.POSITIVE_INFINITY)].map(
      (values) => ({ role: 'input', type: f32(2), bytes: raw(values) }) as const,
    ),
    tolerance: { absolute: 0.5 },
  } as const;

  test('passes what is right, infinities included', async () => {
    expect(await checkCase(backend, sums)).toEqual({ name: 'sum', ok: true, worst: 0, where: '' });
  });

  test.each([
    [2.25, true, 0.5, '[0]: 2.25 instead of 2'],
    [3, false, 2, '[0]: 3 instead of 2'],
    [Number.NaN, false, Number.POSITIVE_INFINITY, '[0]: NaN instead of 2'],
    [Number.POSITIVE_INFINITY, false, Number.POSITIVE_INFINITY, '[0]: Infinity instead of 2'],
  ])('measures %d against the tolerance', async (lie, ok, worst, where) => {
    const lying = new LyingBackend(lie);
    expect(await checkCase(lying, sums)).toEqual({ name: 'sum', ok, worst, where });
    expect(lying.ledger().bytes).toBe(0);
    lying.dispose();
  });

  test('compares updated states', async () => {
    const opCase = advanceCases()[0];
    if (opCase === undefined) throw new Error('no case');
    expect(await checkCase(backend, opCase)).toMatchObject({ ok: true, worst: 0 });
  });
});
