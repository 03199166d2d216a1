import { sameShape } from '../core/tensor.js';
import type { OpName, OpParams } from '../ops/params.js';
import { updatedInputs } from '../ops/table.js';
import { fuseEpilogues } from './epilogues.js';
import type { Graph, GraphNode, NodeId } from './graph.js';
import { fuseRegions } from './regions.js';
import type { RewriteEntry } from './rewrite-entry.js';
import { isUpdatedBetween, verify } from './verify.js';

export type { RewriteEntry } from './rewrite-entry.js';

/** A rewritten graph, and for each place where a rule looked what it did or why not. */
export interface RewriteResult {
  readonly graph: Graph;
  readonly report: readonly RewriteEntry[];
}

export interface RewriteOptions {
  /** Whether chains of elementwise operations become one kernel each, and move into the product that they follow; default false. */
  readonly regions?: boolean;
}

type Draft = { op: OpName; params: OpParams[OpName]; inputs: readonly NodeId[] };

/** What a rule knows about the graph: who reads what. */
interface Uses {
  /** Readers and outputs of a node. */
  readonly count: readonly number[];
  readonly isOutput: ReadonlySet<NodeId>;
}

interface Rule {
  readonly name: string;
  /** The node's replacement (inputs in old ids), a reason why a candidate stays, or undefined where the rule has nothing to say. */
  apply(node: GraphNode, nodes: readonly GraphNode[], uses: Uses): Draft | string | undefined;
}

/** Why an intermediate cannot vanish into its reader, or undefined where it can. */
function keeps(id: NodeId, uses: Uses): string | undefined {
  if (uses.isOutput.has(id)) return 'the intermediate is an output of the graph';
  if ((uses.count[id] ?? 0) > 1) return 'the intermediate has several readers';
  return undefined;
}

/** silu(gate) * up, in either order, becomes swiglu(gate, up). */
const swigluRule: Rule = {
  name: 'swiglu',
  apply(node, nodes, uses) {
    if (node.op !== 'binary' || node.params.fn !== 'mul') return undefined;
    let blocked: string | undefined;
    for (const [gated, other] of pairs(node.inputs)) {
      const silu = nodes[gated];
      if (silu?.op !== 'unary' || silu.params.fn !== 'silu') continue;
      const shapes = sameShape(silu.type.shape, nodes[other]?.type.shape ?? []) ? undefined : 'gate and up have different shapes';
      const reason = keeps(gated, uses) ?? shapes;
      if (reason === undefined) return { op: 'swiglu', params: {}, inputs: [silu.inputs[0] ?? 0, other] };
      blocked ??= reason;
    }
    return blocked;
  },
};

/** linear(x, w) + bias[N] becomes one linear with a bias. */
const biasRule: Rule = {
  name: 'linear bias',
  apply(node, nodes, uses) {
    if (node.op !== 'binary' || node.params.fn !== 'add') return undefined;
    for (const [product, bias] of pairs(node.inputs)) {
      const linear = nodes[product];
      const type = nodes[bias]?.type;
      if (linear?.op !== 'linear' || type?.shape.length !== 1 || type.shape[0] !== linear.type.shape[1]) continue;
      if (linear.params.bias || linear.params.residual) return 'the product has a bias or a residual already';
      const reason = keeps(product, uses);
      if (reason !== undefined) return reason;
      return { op: 'linear', params: { ...linear.params, bias: true }, inputs: [...linear.inputs, bias] };
    }
    return undefined;
  },
};

/** linear(x, w) + residual[T, N] becomes one linear that adds the residual as it writes. */
const residualRule: Rule = {
  name: 'linear residual',
  apply(node, nodes, uses) {
    if (node.op !== 'binary' || node.params.fn !== 'add') return undefined;
    let blocked: string | undefined;
    for (const [product, residual] of pairs(node.inputs)) {
      const linear = nodes[product];
      if (linear?.op !== 'linear' || !sameShape(linear.type.shape, nodes[residual]?.type.shape ?? [])) continue;
      const reason = linear.params.residual ? 'the product has a residual already' : keeps(product, uses);
      if (reason === undefined) return { op: 'linear', params: { ...linear.params, residual: true }, inputs: [...linear.inputs, residual] };
      blocked = reason;
    }
    return blocked;
  },
};

const rules: readonly Rule[] = [swigluRule, biasRule, residualRule];

function pairs(inputs: readonly NodeId[]): readonly (readonly [NodeId, NodeId])[] {
  const [a, b] = inputs;
  return a === undefined || b === undefined ? [] : [[a, b], ...(a === b ? [] : [[b, a] as const])];
}

/** Fuses, merges equal nodes and drops what nobody reads. The result computes the same values; the report says what was fused and what was not, and why. */
export function rewrite(graph: Graph, options: RewriteOptions = {}): RewriteResult {
  const report: RewriteEntry[] = [];
  let current = graph;
  for (const rule of rules) current = removeDead(applyRule(current, rule, report));
  current = removeDead(mergeEqual(current));
  if (options.regions === true) current = removeDead(fuseEpilogues(removeDead(fuseRegions(current, report)), report));
  verify(current);
  return { graph: current, report };
}

function usesOf(graph: Graph): Uses {
  const count = new Array<number>(graph.nodes.length).fill(0);
  for (const id of [...graph.nodes.flatMap((node) => node.inputs), ...graph.outputs.map((output) => output.node)]) count[id] = (count[id] ?? 0) + 1;
  return { count, isOutput: new Set(graph.outputs.map((output) => output.node)) };
}

function applyRule(graph: Graph, rule: Rule, report: RewriteEntry[]): Graph {
  const uses = usesOf(graph);
  const nodes = graph.nodes.map((node) => {
    const drafted = rule.apply(node, graph.nodes, uses);
    if (drafted === undefined) return node;
    // The fused node reads its inputs later than the node that vanishes did.
    const result = typeof drafted === 'object' && isUpdatedBetween(graph, drafted.inputs, 0, node.id) ? 'a state that it reads is updated before' : drafted;
    const applied = typeof result !== 'string';
    report.push({ rule: rule.name, at: node.name, applied, reason: applied ? 'fused' : result });
    return applied ? ({ ...node, ...result } as GraphNode) : node;
  });
  return { nodes, outputs: graph.outputs };
}

/** Equal operations on equal inputs are computed once; leaves and updates of states are never merged. */
function mergeEqual(graph: Graph): Graph {
  const seen = new Map<string, NodeId>();
  const canonical: NodeId[] = [];
  const nodes = graph.nodes.map((node) => {
    const inputs = node.inputs.map((id) => canonical[id] ?? id);
    const mergeable = node.inputs.length > 0 && updatedInputs(node.op).length === 0;
    const key = JSON.stringify([node.op, node.params, inputs], exactNumbers);
    const first = mergeable ? seen.get(key) : undefined;
    canonical.push(first ?? node.id);
    if (mergeable && first === undefined) seen.set(key, node.id);
    return { ...node, inputs } as GraphNode;
  });
  return { nodes, outputs: graph.outputs.map((output) => ({ ...output, node: canonical[output.node] ?? output.node })) };
}

/** JSON has one word for NaN and both infinities, and no -0. */
function exactNumbers(_: string, value: unknown): unknown {
  return typeof value === 'number' && (!Number.isFinite(value) || Object.is(value, -0)) ? `number ${Object.is(value, -0) ? '-0' : value}` : value;
}

/** Drops nodes that no output needs. Updates of states count as outputs: the next run reads them. */
export function removeDead(graph: Graph): Graph {
  const live = new Set(graph.outputs.map((output) => output.node));
  for (const node of [...graph.nodes].reverse()) {
    if (updatedInputs(node.op).length > 0) live.add(node.id);
    if (live.has(node.id)) for (const input of node.inputs) live.add(input);
  }
  const renamed = new Map<NodeId, NodeId>();
  const rename = (id: NodeId): NodeId => renamed.get(id) ?? id;
  const nodes: GraphNode[] = [];
  for (const node of graph.nodes) {
    if (!live.has(node.id)) continue;
    renamed.set(node.id, nodes.length);
    nodes.push({ ...node, id: nodes.length, inputs: node.inputs.map(rename) } as GraphNode);
  }
  return { nodes, outputs: graph.outputs.map((output) => ({ ...output, node: rename(output.node) })) };
}
