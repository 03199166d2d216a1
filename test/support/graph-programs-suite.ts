import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { elementCount, type TensorType } from '../../src/core/tensor.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { Graph, GraphNode, NodeId } from '../../src/graph/graph.js';
import type { HostTensor, OpDefinition } from '../../src/ops/definition.js';
import type { OpName } from '../../src/ops/params.js';
import { isLeaf, ops } from '../../src/ops/table.js';
import type { Backend } from '../../src/runtime/backend.js';
import { CompiledGraph, type CompileOptions, type OutputData, type TensorData } from '../../src/runtime/compiled-graph.js';
import { suiteBackend } from './suite-backend.js';

/** One operation more: which, on what, and how, as numbers to pick with. */
interface Move {
  readonly kind: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

const moves = (most: number) => fc.array(fc.record({ kind: fc.nat(999), a: fc.nat(999), b: fc.nat(999), c: fc.nat(999) }), { minLength: 2, maxLength: most });

const f32 = (...shape: number[]): TensorType => ({ dtype: 'f32', shape });

/** Small numbers, exact in f32. */
const numbers = (count: number, seed: number): Float32Array => Float32Array.from({ length: count }, (_, i) => (((i + seed) * 7919) % 65) / 32 - 1);

function pick<T>(from: readonly T[], index: number): T {
  const found = from[index % from.length];
  if (found === undefined) throw new Error('there is nothing to pick from');
  return found;
}

/** A graph over leaves of every kind, and what they hold. */
class Program {
  readonly g = new GraphBuilder();
  readonly values = new Map<string, TensorData>();
  readonly nodes: NodeId[] = [];

  constructor() {
    this.nodes.push(this.#leaf('input', 'x', f32(3, 8)), this.#leaf('input', 'row', f32(8)), this.#leaf('param', 'w', f32(5, 8)));
    this.nodes.push(this.#leaf('state', 's', f32(2, 3, 4)), this.#leaf('param', 'gains', f32(33)));
    this.nodes.push(this.g.constant([0.5], f32(1, 1, 1)), this.g.constant([...numbers(6, 3)], f32(3, 2)));
  }

  /** Adds what a move says, where its operands fit. */
  add(move: Move): void {
    const made = step(this, move);
    // Broadcast upon broadcast grows: what is large is not gone on with.
    if (made !== undefined && elementCount(this.g.typeOf(made).shape) <= 600) this.nodes.push(made);
  }

  /** A value that fits, from the newest on. */
  find(index: number, fits: (type: TensorType) => boolean): NodeId | undefined {
    const found = this.nodes.filter((id) => fits(this.g.typeOf(id)));
    return found.length === 0 ? undefined : found[found.length - 1 - (index % found.length)];
  }

  #leaf(op: 'input' | 'param' | 'state', name: string, type: TensorType): NodeId {
    this.values.set(name, numbers(elementCount(type.shape), name.length * 5));
    return this.g[op](name, type);
  }
}

const unaries = ['relu', 'tanh', 'sigmoid', 'neg', 'abs', 'silu', 'square', 'gelu', 'round'] as const;
const binaries = ['add', 'sub', 'mul', 'max', 'min'] as const;
const reductions = ['sum', 'mean', 'max', 'min'] as const;
const comparisons = ['lt', 'ge', 'eq'] as const;

const isFloat = ({ dtype }: TensorType): boolean => dtype === 'f32';
const isMatrix = (type: TensorType): boolean => isFloat(type) && type.shape.length === 2;

/** Whether two shapes broadcast; `shape` undefined fits nothing. */
function broadcasts(a: readonly number[], b: readonly number[]): boolean {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => [a[a.length - 1 - i] ?? 1, b[b.length - 1 - i] ?? 1] as const).every(([x, y]) => x === y || x === 1 || y === 1);
}

/** Axes of sizes whose product is `count`. */
function shapeOf(count: number, c: number): number[] {
  const divisors = Array.from({ length: count }, (_, i) => i + 1).filter((n) => count % n === 0);
  const first = pick(divisors, c);
  return c % 3 === 0 ? [count] : c % 3 === 1 ? [first, count / first] : [first, 1, count / first];
}

function step(program: Program, { kind, a, b, c }: Move): NodeId | undefined {
  const { g } = program;
  const x = program.find(a, isFloat) ?? 0;
  const { shape } = g.typeOf(x);
  const axis = b % shape.length;
  const size = shape[axis] ?? 1;
  const partner = (dtype: TensorType['dtype']) => program.find(b, (type) => type.dtype === dtype && broadcasts(type.shape, shape)) ?? x;
  const makers: readonly (() => NodeId | undefined)[] = [
    () => g.unary(pick(unaries, c), x),
    () => g.unary('scale', x, { a: (c % 9) / 4 - 1 }),
    () => (c % 2 === 0 ? g.binary(pick(binaries, c >> 1), x, partner('f32')) : g.binary(pick(binaries, c >> 1), partner('f32'), x)),
    () => g.binary('mul', g.unary('silu', x), partner('f32')),
    () => g.compare(pick(comparisons, c), x, partner('f32')),
    () => {
      const condition = program.find(b, (type) => type.dtype === 'u32' && broadcasts(type.shape, shape));
      return condition === undefined ? undefined : g.where(condition, x, c % 2 === 0 ? x : g.constant([c / 100], f32(1)));
    },
    () => g.cast(program.find(b, ({ dtype }) => dtype === 'u32') ?? x, 'f32'),
    () => g.concat(c % 2 === 0 ? [x, x] : [x, program.find(c, (type) => isFloat(type) && type.shape.join() === shape.join()) ?? x, x], axis),
    () => g.gather(x, g.constant([c % size, 0, size], { dtype: 'u32', shape: [3] }), axis),
    () => g.permute(x, c % 2 === 0 ? shape.map((_, i) => shape.length - 1 - i) : shape.map((_, i) => (i + 1) % shape.length)),
    () => g.expand(x, [2, ...shape.map((extent) => (extent === 1 ? 3 : extent))]),
    () => (c % 2 === 0 ? g.slice(x, axis, c % size, size - (c % size)) : g.slice(x, axis, size - 1, Math.ceil(size / 2), -2 + (size % 2 === 0 ? 1 : 0))),
    () => g.reshape(x, shapeOf(elementCount(shape), c)),
    () => g.narrow(x, 0, 1 + (c % (shape[0] ?? 1))),
    () => g.topK(x, 1 + (c % (shape.at(-1) ?? 1)), c % 2 === 0 ? 'values' : 'indices'),
    () => g.cumsum(x, axis, c % 2 === 0),
    () => g.reduce(pick(reductions, c), x, { axes: [axis], keepDims: c % 2 === 0 }),
    () => g.softmax(x, axis),
    () => g.layerNorm(x, g.constant([...numbers(shape.at(-1) ?? 1, c)], f32(shape.at(-1) ?? 1)), undefined, 0.1),
    () => {
      const left = program.find(a, isMatrix) ?? 0;
      const k = g.typeOf(left).shape[1];
      const right = program.find(b, (type) => isMatrix(type) && type.shape[1] === k) ?? left;
      const y = c % 3 === 0 ? g.linear(left, right) : g.matmul(left, right, { transposeB: true, alpha: 0.25 });
      return c % 2 === 0 ? y : g.unary('tanh', g.binary('add', y, g.constant([0.5], f32(1, 1))));
    },
    () => g.add('argmax', {}, [g.reshape(x, [elementCount(shape) / (shape.at(-1) ?? 1), shape.at(-1) ?? 1])]),
    () => g.tileReduce('sum', program.find(a, isMatrix) ?? 0),
    () => g.dot(x, x),
  ];
  return pick(makers, kind)();
}

/** What runs give as they are fused and planned: nothing of it may depend on that. */
async function run(backend: Backend, graph: Graph, values: ReadonlyMap<string, TensorData>, options: CompileOptions, times = 1) {
  const compiled = await CompiledGraph.compile(graph, backend, options);
  try {
    const leaves = compiled.plan.graph.nodes;
    const given = (op: OpName) =>
      leaves.flatMap((node) => (node.op === op && 'name' in node.params ? [[node.params.name, values.get(node.params.name)] as const] : []));
    for (const [name, data] of given('param')) await compiled.setParam(name, data ?? new Uint8Array());
    for (const [name, data] of given('state')) await compiled.setState(name, data ?? new Uint8Array());
    await compiled.execute(Object.fromEntries(given('input').map(([name, data]) => [name, data ?? new Uint8Array()])), { times });
    return await compiled.readAll();
  } finally {
    compiled.dispose();
  }
}

/** A weight and views of one have no form that a run could give back. */
function isWeight(graph: Graph, { op, inputs }: GraphNode): boolean {
  const base = graph.nodes[inputs[0] ?? -1];
  return op === 'param' || ((op === 'reshape' || op === 'narrow') && base !== undefined && isWeight(graph, base));
}

function withOutputs(graph: Graph, nodes: readonly NodeId[]): Graph {
  return { nodes: graph.nodes, outputs: nodes.map((node, i) => ({ name: `y${i}`, node })) };
}

function expectClose(what: string, got: ArrayLike<number>, want: ArrayLike<number>, accepted: number): void {
  expect(got.length, what).toBe(want.length);
  const largest = Array.from(want).reduce((most, value) => Math.max(most, Math.abs(value)), 1);
  for (let i = 0; i < want.length; i++)
    expect(Math.abs((got[i] ?? Number.NaN) - (want[i] ?? Number.NaN)), `${what} [${i}]`).toBeLessThanOrEqual(accepted * largest);
}

/** Every node against its reference, from what the device itself gave its inputs. */
function expectReferences(graph: Graph, held: ReadonlyMap<NodeId, HostTensor>): void {
  for (const node of graph.nodes) {
    const got = held.get(node.id);
    if (isLeaf(node.op) || isWeight(graph, node) || got === undefined) continue;
    const { reference } = ops[node.op] as OpDefinition<typeof node.op>;
    const inputs = node.inputs.flatMap((id) => held.get(id) ?? []);
    expectClose(`node ${node.id} ${node.op}`, got.data, reference(inputs, node.params as never, node.type), node.type.dtype === 'f32' ? 2e-6 : 0);
  }
}

/** What every node holds: read where it can be, else from its weight. */
function heldBy(
  graph: Graph,
  values: ReadonlyMap<string, TensorData>,
  outputs: ReadonlyMap<string, OutputData>,
  nodes: readonly NodeId[],
): Map<NodeId, HostTensor> {
  const held = new Map<NodeId, HostTensor>();
  for (const { id, op, params, inputs, type } of graph.nodes) {
    const read = outputs.get(`y${nodes.indexOf(id)}`) ?? (op === 'param' ? values.get(params.name) : undefined);
    const base = held.get(inputs[0] ?? -1)?.data;
    // The only views of weights that begin elsewhere would be narrowed ones, and those begin at 0 here.
    const data = read === undefined ? base?.subarray(0, elementCount(type.shape)) : Float64Array.from(read);
    if (data !== undefined) held.set(id, { shape: type.shape, data });
  }
  return held;
}

/** Random graphs of most of the op table on any backend: every operation is right, and neither the memory plan nor fusion changes what a graph gives. */
export function graphProgramsSuite(name: string, open: () => Promise<Backend>, { numRuns, most }: { readonly numRuns: number; readonly most: number }): void {
  describe(`graphs on ${name}`, () => {
    const backend = suiteBackend(open);

    test('any graph gives what its operations mean, whatever shares memory, is written in place or fused', async () => {
      const programs = fc.record({ list: moves(most), chosen: fc.array(fc.nat(999), { minLength: 1, maxLength: 3 }), times: fc.integer({ min: 1, max: 2 }) });
      await fc.assert(
        fc.asyncProperty(programs, async ({ list, chosen, times }) => {
          const program = new Program();
          for (const move of list) program.add(move);
          const graph = program.g.build();
          const readable = graph.nodes.filter((node) => !isWeight(graph, node)).map(({ id }) => id);
          const full = await run(backend(), withOutputs(graph, readable), program.values, { rewrite: false });
          const held = heldBy(graph, program.values, full, readable);
          expectReferences(graph, held);
          const wanted = [graph.nodes.length - 1, ...chosen.map((index) => pick(readable, index))].filter((id) => readable.includes(id));
          const few = withOutputs(graph, wanted);
          const [planned, fused] = [
            await run(backend(), few, program.values, { rewrite: false }, times),
            await run(backend(), few, program.values, { regions: true }, times),
          ];
          for (const [i, id] of wanted.entries()) {
            expect([...(planned.get(`y${i}`) ?? [])], `node ${id} with memory shared`).toEqual([...(held.get(id)?.data ?? [])]);
            if (isSteady(graph, id)) expectClose(`node ${id} fused`, fused.get(`y${i}`) ?? [], held.get(id)?.data ?? [], 1e-4);
          }
        }),
        { numRuns },
      );
    });
  });
}

/** Whether small errors stay small: no comparison, rounding or choice of places before a value. */
function isSteady(graph: Graph, id: NodeId): boolean {
  const node = graph.nodes[id];
  if (node === undefined || node.op === 'compare' || node.op === 'argmax' || node.op === 'topK') return false;
  return !(node.op === 'unary' && node.params.fn === 'round') && node.inputs.every((input) => isSteady(graph, input));
}
