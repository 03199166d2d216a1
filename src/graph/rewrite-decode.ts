/**
 * Fuses the graph of one token into the operations of ops/decode.ts: queries, keys and values with the norm in front, attention with norms, RoPE and cache writes, the gated products, and products with
 * their norm or residual. Every fusion is made only where the target wants it; the report says why not.
 */

import { need } from '../ops/definition.js';
import type { ComputeOp, LeafOp, OpName, OpParams } from '../ops/params.js';
import { stateWord } from '../ops/state.js';
import { isLeaf, ops } from '../ops/table.js';
import type { NodeTypes } from '../ops/target.js';
import type { Graph, GraphNode, NodeId } from './graph.js';
import { type RewriteEntry, type RewriteResult, removeDead } from './rewrite.js';
import { verify } from './verify.js';

/** A reason against a fused operation, or undefined where the target wants it. */
export type Refusal = (node: NodeTypes) => string | undefined;

/** The parts of an attention of one token that become one `qkv` and one `attendToken`. */
interface AttentionMatch {
  readonly x: NodeId;
  readonly gain: NodeId;
  readonly eps: number;
  readonly products: readonly GraphNode[];
  readonly keys: NodeId;
  readonly values: NodeId;
  readonly writes: readonly NodeId[];
  readonly table: NodeId;
  readonly state: NodeId;
  readonly pairing: OpParams['rope']['pairing'];
  readonly headEps: number | undefined;
  readonly headGains: readonly NodeId[];
}

type NodeOf<K extends OpName> = Extract<GraphNode, { op: K }>;

class Reader {
  readonly nodes: readonly GraphNode[];
  readonly #readers: readonly number[];

  constructor(graph: Graph) {
    this.nodes = graph.nodes;
    const readers = new Array<number>(graph.nodes.length).fill(0);
    for (const id of [...graph.nodes.flatMap((node) => node.inputs), ...graph.outputs.map((output) => output.node)]) readers[id] = (readers[id] ?? 0) + 1;
    this.#readers = readers;
  }

  /** Input `index` of a node, if it is an `op`. */
  input<K extends OpName>(node: GraphNode, index: number, op: K): NodeOf<K> | undefined {
    const found = this.nodes[node.inputs[index] ?? -1];
    return found?.op === op ? (found as NodeOf<K>) : undefined;
  }

  /** The same, if nobody else reads it. */
  only<K extends OpName>(node: GraphNode, index: number, op: K): NodeOf<K> | undefined {
    const found = this.input(node, index, op);
    return found !== undefined && this.#readers[found.id] === 1 ? found : undefined;
  }
}

/** Rewrites a graph of one row; `window` bounds the positions that it will run at (see `attendToken`). Call it on a graph that `rewrite` has fused. */
export function rewriteDecode(graph: Graph, refuses: Refusal, window: number): RewriteResult {
  const draft = new Draft(graph, refuses, window);
  for (const node of graph.nodes) draft.take(node);
  const result = removeDead({ nodes: draft.nodes, outputs: graph.outputs.map((output) => ({ ...output, node: draft.renamed(output.node) })) });
  verify(result);
  return { graph: result, report: draft.report };
}

/** The new graph as it grows. */
class Draft {
  readonly nodes: GraphNode[] = [];
  readonly report: RewriteEntry[] = [];
  readonly #reader: Reader;
  readonly #refuses: Refusal;
  readonly #window: number;
  readonly #names = new Map<NodeId, NodeId>();
  readonly #attentions: ReadonlyMap<NodeId, AttentionMatch>;
  readonly #dropped: ReadonlySet<NodeId>;
  /** Of each angle table, the row of the position, which all layers share: attention need not wait for the position to find it. */
  readonly #angleRows = new Map<NodeId, NodeId>();

  constructor(graph: Graph, refuses: Refusal, window: number) {
    this.#reader = new Reader(graph);
    this.#refuses = refuses;
    this.#window = window;
    const attentions = new Map<NodeId, AttentionMatch>();
    for (const node of graph.nodes) {
      const match = node.op === 'attention' ? matchAttention(this.#reader, node) : undefined;
      if (match !== undefined && this.#wantsAttention(node as NodeOf<'attention'>, match)) attentions.set(node.id, match);
    }
    this.#attentions = attentions;
    this.#dropped = new Set([...attentions.values()].flatMap((match) => match.writes));
  }

  renamed(id: NodeId): NodeId {
    return this.#names.get(id) ?? id;
  }

  take(node: GraphNode): void {
    if (this.#dropped.has(node.id)) return;
    this.#names.set(node.id, isLeaf(node.op) ? this.#leaf(node) : (this.#replace(node) ?? this.#push(node.op, node.params, node.inputs, node.name)));
  }

  #leaf(node: GraphNode): NodeId {
    const id = this.nodes.length;
    this.nodes.push({ ...node, id });
    return id;
  }

  #replace(node: GraphNode): NodeId | undefined {
    switch (node.op) {
      case 'reshape':
      case 'lastRow':
        return this.#sameShape(node);
      case 'attention':
        return this.#attention(node);
      case 'swiglu':
        return this.#gated(node);
      case 'linear':
        return this.#linear(node);
      default:
        return undefined;
    }
  }

  /** A view of a whole tensor in its own shape, and the last of one row, are that tensor. */
  #sameShape(node: GraphNode): NodeId | undefined {
    const input = this.nodes[this.renamed(node.inputs[0] ?? -1)];
    return input !== undefined && input.type.shape.join() === node.type.shape.join() ? input.id : undefined;
  }

  #wantsAttention(node: NodeOf<'attention'>, match: AttentionMatch): boolean {
    const beyond = beyondFused(node);
    if (beyond !== undefined) {
      this.report.push({ rule: 'attendToken', at: node.name, applied: false, reason: `${beyond} attend in steps of their own` });
      return false;
    }
    const types = (ids: readonly NodeId[]) => ids.map((id) => this.#reader.nodes[id]?.type ?? node.type);
    const { params, inputs } = qkvOf(match);
    const product = { op: 'qkv', params, inputs: types(inputs) } as NodeTypes;
    const width = ops.qkv.type(product.inputs, params);
    const attend = attendOf(match, node, this.#window);
    const [table = node.type] = types([match.table]);
    const angles = { ...table, shape: [1, ...table.shape.slice(1)] };
    const attention = { op: 'attendToken', params: attend.params, inputs: [...types(attend.before), width, angles, ...types(attend.after)] } as NodeTypes;
    // The two come together or not at all.
    const reasons = [this.#refuses(product), this.#refuses(attention)] as const;
    const applied = reasons.every((reason) => reason === undefined);
    for (const [i, rule] of (['qkv', 'attendToken'] as const).entries()) {
      const reason = applied ? 'fused' : (reasons[i] ?? `${rule === 'qkv' ? 'attendToken' : 'qkv'} is refused, which it comes with`);
      this.report.push({ rule, at: node.name, applied, reason });
    }
    return applied;
  }

  #attention(node: NodeOf<'attention'>): NodeId | undefined {
    const match = this.#attentions.get(node.id);
    if (match === undefined) return undefined;
    const { params, inputs } = qkvOf(match);
    const angles = this.#angleRow(match);
    const raw = this.#push('qkv', params, inputs, node.name.replace(/attention$/, 'qkv'));
    const attend = attendOf(match, node, this.#window);
    const renamed = (ids: readonly NodeId[]) => ids.map((id) => this.renamed(id));
    return this.#add('attendToken', attend.params, [...renamed(attend.before), raw, angles, ...renamed(attend.after)], node.name);
  }

  #angleRow({ table, state }: AttentionMatch): NodeId {
    const known = this.#angleRows.get(table);
    if (known !== undefined) return known;
    const { name, type } = need(this.#reader.nodes[table]);
    const [, half = 0, parts = 0] = type.shape;
    const rows = this.#push('reshape', { shape: [type.shape[0] ?? 0, half * parts] }, [table], `${name} rows`);
    const position = this.#push('narrow', { start: stateWord.position, length: 1 }, [state], 'position');
    const row = this.#add('reshape', { shape: [1, half, parts] }, [this.#add('gatherRows', {}, [rows, position], `${name} row`)], `${name} row`);
    this.#angleRows.set(table, row);
    return row;
  }

  #gated(node: NodeOf<'swiglu'>): NodeId | undefined {
    const [gate, up] = [this.#reader.only(node, 0, 'linear'), this.#reader.only(node, 1, 'linear')];
    if (gate === undefined || up === undefined || gate.inputs.length > 2 || up.inputs.length > 2 || gate.inputs[0] !== up.inputs[0]) return undefined;
    const norm = this.#reader.input(gate, 0, 'rmsNorm');
    if (norm === undefined || norm.type.shape[0] !== 1 || norm.type.shape.length !== 2) return undefined;
    return this.#fuse('gatedProduct', { eps: norm.params.eps }, [...norm.inputs, gate.inputs[1] ?? -1, up.inputs[1] ?? -1], node);
  }

  #linear(node: NodeOf<'linear'>): NodeId | undefined {
    const [x = -1, ...rest] = node.inputs;
    if (this.#reader.nodes[x]?.type.shape[0] !== 1) return undefined;
    const norm = this.#reader.only(node, 0, 'rmsNorm');
    const inputs = norm === undefined ? [x, ...rest] : [...norm.inputs, ...rest];
    return this.#fuse('tokenLinear', { ...(norm === undefined ? {} : { eps: norm.params.eps }), ...node.params }, inputs, node);
  }

  #fuse<K extends ComputeOp>(op: K, params: OpParams[K], inputs: readonly NodeId[], node: GraphNode): NodeId | undefined {
    const types = inputs.map((id) => this.#reader.nodes[id]?.type ?? node.type);
    return this.#wants(node, op, { op, params, inputs: types } as unknown as NodeTypes) ? this.#push(op, params, inputs, node.name) : undefined;
  }

  #wants(node: GraphNode, rule: string, types: NodeTypes): boolean {
    const reason = this.#refuses(types);
    this.report.push({ rule, at: node.name, applied: reason === undefined, reason: reason ?? 'fused' });
    return reason === undefined;
  }

  #push<K extends Exclude<OpName, LeafOp>>(op: K, params: OpParams[K], inputs: readonly NodeId[], name: string): NodeId {
    return this.#add(
      op,
      params,
      inputs.map((id) => this.renamed(id)),
      name,
    );
  }

  /** Appends a node; `inputs` are ids of the new graph. */
  #add<K extends Exclude<OpName, LeafOp>>(op: K, params: OpParams[K], inputs: readonly NodeId[], name: string): NodeId {
    const id = this.nodes.length;
    const type = ops[op].type(
      inputs.map((input) => need(this.nodes[input]).type),
      params,
    );
    // `op` and `params` have one K: the union type cannot see it through the generic.
    this.nodes.push({ id, op, params, inputs, type, name } as GraphNode);
    return id;
  }
}

/** What an attention asks for that `attendToken` does not have. */
function beyondFused({ params, inputs }: NodeOf<'attention'>): string | undefined {
  const asked = [
    ...(params.window === undefined ? [] : ['sliding windows']),
    ...(params.softcap === undefined ? [] : ['softcaps']),
    ...(inputs.length > 4 ? ['sinks'] : []),
  ];
  return asked.length === 0 ? undefined : asked.join(' and ');
}

function qkvOf({ x, gain, eps, products }: AttentionMatch): { params: OpParams['qkv']; inputs: readonly NodeId[] } {
  const biases = products.flatMap((product) => product.inputs.slice(2));
  return { params: { eps, biases: biases.length > 0 }, inputs: [x, gain, ...products.map((product) => product.inputs[1] ?? -1), ...biases] };
}

/** Parameters of an attendToken, its inputs before the vector, and those after the angles. */
function attendOf(
  match: AttentionMatch,
  { params }: NodeOf<'attention'>,
  window: number,
): { params: OpParams['attendToken']; before: readonly NodeId[]; after: readonly NodeId[] } {
  const { keys, values, state, headGains, headEps, pairing } = match;
  return {
    params: { scale: params.scale, pairing, window, ...(headEps === undefined ? {} : { eps: headEps }) },
    before: [keys, values],
    after: [state, ...headGains],
  };
}

/** The whole pattern behind an attention of one token, each part read by nobody else. */
function matchAttention(reader: Reader, node: NodeOf<'attention'>): AttentionMatch | undefined {
  const [keysWrite, valuesWrite] = [reader.only(node, 1, 'cacheWrite'), reader.only(node, 2, 'cacheWrite')];
  const state = node.inputs[3];
  if (node.type.shape[0] !== 1 || keysWrite === undefined || valuesWrite === undefined || state === undefined) return undefined;
  const [q, k] = [turnedHead(reader, node, 0), turnedHead(reader, keysWrite, 1)];
  const v = plainHead(reader, valuesWrite, 1);
  if (q === undefined || k === undefined || v === undefined) return undefined;
  const products = [q.product, k.product, v];
  const norm = reader.input(q.product, 0, 'rmsNorm');
  const same = products.every((product) => product.inputs[0] === norm?.id && product.inputs.length === q.product.inputs.length && !product.params.residual);
  const states = [q.rope.inputs[2], k.rope.inputs[2], keysWrite.inputs[2], valuesWrite.inputs[2]];
  const alike = q.rope.inputs[1] === k.rope.inputs[1] && q.rope.params.pairing === k.rope.params.pairing && q.norm?.params.eps === k.norm?.params.eps;
  if (norm === undefined || !same || !alike || states.some((id) => id !== state)) return undefined;
  const [x = -1, gain = -1] = norm.inputs;
  return {
    ...{ x, gain, eps: norm.params.eps, products, state, table: q.rope.inputs[1] ?? -1, pairing: q.rope.params.pairing },
    keys: keysWrite.inputs[0] ?? -1,
    values: valuesWrite.inputs[0] ?? -1,
    writes: [keysWrite.id, valuesWrite.id],
    headEps: q.norm?.params.eps,
    headGains: q.norm === undefined || k.norm === undefined ? [] : [q.norm.inputs[1] ?? -1, k.norm.inputs[1] ?? -1],
  };
}

interface TurnedHead {
  readonly product: NodeOf<'linear'>;
  readonly rope: NodeOf<'rope'>;
  readonly norm: NodeOf<'rmsNorm'> | undefined;
}

function turnedHead(reader: Reader, node: GraphNode, index: number): TurnedHead | undefined {
  const rope = reader.only(node, index, 'rope');
  if (rope === undefined) return undefined;
  const norm = reader.only(rope, 0, 'rmsNorm');
  const product = plainHead(reader, norm ?? rope, 0);
  return product && { product, rope, norm };
}

/** A product seen as heads. */
function plainHead(reader: Reader, node: GraphNode, index: number): NodeOf<'linear'> | undefined {
  const view = reader.only(node, index, 'reshape');
  return view && reader.only(view, 0, 'linear');
}
