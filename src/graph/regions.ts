/** Fuses chains of elementwise operations into regions: one kernel each, whose intermediate values exist nowhere in memory. */

import { sameShape } from '../core/tensor.js';
import type { RegionOperand, RegionStep } from '../ops/params.js';
import { maxRegionInputs, maxRegionSteps } from '../ops/region.js';
import type { Graph, GraphNode, NodeId } from './graph.js';
import type { RewriteEntry } from './rewrite-entry.js';
import { isUpdatedBetween } from './verify.js';

const rule = 'region';

/** Steps of one node: swiglu has two. */
function stepsOf(node: GraphNode): number {
  return node.op === 'swiglu' ? 2 : 1;
}

/** Whether a region can hold the node: elementwise, on f32 (and conditions). */
function fusable(graph: Graph, node: GraphNode): boolean {
  const floats = node.inputs.every((id, i) => graph.nodes[id]?.type.dtype === (node.op === 'where' && i === 0 ? 'u32' : 'f32'));
  return floats && (node.op === 'unary' || node.op === 'binary' || node.op === 'swiglu' || node.op === 'compare' || node.op === 'where');
}

/** A constant of one element stands in the text of the kernel. */
function scalarOf(graph: Graph, id: NodeId): number | undefined {
  const node = graph.nodes[id];
  return node?.op === 'constant' && node.type.dtype === 'f32' && node.params.values.length === 1 ? Math.fround(node.params.values[0] ?? 0) : undefined;
}

/** What a set of nodes reads from outside. Constants of one element are left out, unless they alone have as many axes as the members. */
function inputsOf(graph: Graph, members: ReadonlySet<NodeId>): readonly NodeId[] {
  const sorted = [...members].sort((a, b) => a - b);
  const ids = sorted.flatMap((id) => graph.nodes[id]?.inputs ?? []);
  const outer = [...new Set(ids)].filter((id) => !members.has(id));
  const rank = (id: NodeId): number => graph.nodes[id]?.type.shape.length ?? 0;
  const tensors = outer.filter((id) => scalarOf(graph, id) === undefined);
  return Math.max(0, ...tensors.map(rank)) < rank(sorted[0] ?? -1) ? outer : tensors;
}

class Growth {
  readonly #graph: Graph;
  readonly #readers: readonly (readonly NodeId[])[];
  readonly #outputs: ReadonlySet<NodeId>;

  constructor(graph: Graph) {
    const readers: NodeId[][] = graph.nodes.map(() => []);
    for (const node of graph.nodes) for (const input of node.inputs) readers[input]?.push(node.id);
    this.#graph = graph;
    this.#readers = readers;
    this.#outputs = new Set(graph.outputs.map((output) => output.node));
  }

  /** The nodes that fuse into `root`, and why others that it reads do not. */
  grow(root: GraphNode, taken: ReadonlySet<NodeId>): { readonly members: ReadonlySet<NodeId>; readonly misses: readonly string[] } {
    const members = new Set([root.id]);
    const misses: string[] = [];
    for (let id = root.id - 1; id >= 0; id--) {
      const node = this.#graph.nodes[id];
      const readers = this.#readers[id] ?? [];
      if (node === undefined || taken.has(id) || !fusable(this.#graph, node) || !readers.some((reader) => members.has(reader))) continue;
      const reason = this.#obstacle(node, root, members);
      if (reason === undefined) members.add(id);
      else misses.push(`${node.name}: ${reason}`);
    }
    return { members, misses };
  }

  #obstacle(node: GraphNode, root: GraphNode, members: ReadonlySet<NodeId>): string | undefined {
    if (this.#outputs.has(node.id)) return 'it is an output of the graph';
    if (!(this.#readers[node.id] ?? []).every((reader) => members.has(reader))) return 'it has other readers';
    if (!sameShape(node.type.shape, root.type.shape)) return 'it is broadcast, and would be computed again and again';
    const grown = new Set([...members, node.id]);
    const steps = [...grown].reduce((sum, id) => sum + stepsOf(this.#graph.nodes[id] ?? node), 0);
    if (steps > maxRegionSteps) return `more than ${maxRegionSteps} steps`;
    if (inputsOf(this.#graph, grown).length > maxRegionInputs) return `more than ${maxRegionInputs} inputs`;
    return isUpdatedBetween(this.#graph, node.inputs, node.id, root.id) ? 'a state that it reads is updated before' : undefined;
  }
}

/** The region node that takes the place of `root`. */
export function regionOf(graph: Graph, root: GraphNode, members: ReadonlySet<NodeId>): GraphNode {
  const inputs = inputsOf(graph, members);
  const steps: RegionStep[] = [];
  const stepOf = new Map<NodeId, number>();
  const operand = (id: NodeId): RegionOperand => {
    const step = stepOf.get(id);
    if (step !== undefined) return { step };
    const input = inputs.indexOf(id);
    return input === -1 ? { value: scalarOf(graph, id) ?? Number.NaN } : { input };
  };
  for (const id of [...members].sort((a, b) => a - b)) {
    const node = graph.nodes[id];
    if (node === undefined) continue;
    const [x, y, z] = node.inputs.map(operand);
    if (x === undefined) continue;
    if (node.op === 'unary') steps.push({ op: 'unary', ...node.params, x });
    if (node.op === 'swiglu' && y !== undefined) {
      steps.push({ op: 'unary', fn: 'silu', x }, { op: 'binary', fn: 'mul', x: { step: steps.length }, y });
    }
    if (node.op === 'binary' && y !== undefined) steps.push({ op: 'binary', fn: node.params.fn, x, y });
    if (node.op === 'compare' && y !== undefined) steps.push({ op: 'compare', fn: node.params.fn, x, y });
    if (node.op === 'where' && y !== undefined && z !== undefined) steps.push({ op: 'where', condition: x, x: y, y: z });
    stepOf.set(id, steps.length - 1);
  }
  return { id: root.id, op: 'region', params: { steps }, inputs, type: root.type, name: root.name };
}

/** Regions in place of chains; the nodes that they take in are left without readers. The report says what fused, and why a neighbour did not. */
export function fuseRegions(graph: Graph, report: RewriteEntry[]): Graph {
  const growth = new Growth(graph);
  const taken = new Set<NodeId>();
  const nodes = [...graph.nodes];
  for (const root of graph.nodes.toReversed()) {
    if (taken.has(root.id) || !fusable(graph, root)) continue;
    const { members, misses } = growth.grow(root, taken);
    for (const reason of misses) report.push({ rule, at: root.name, applied: false, reason });
    if (members.size < 2) continue;
    const fused = regionOf(graph, root, members);
    if (fused.inputs.length === 0) continue;
    for (const id of members) taken.add(id);
    nodes[root.id] = fused;
    report.push({ rule, at: root.name, applied: true, reason: `${members.size} operations in one kernel` });
  }
  return { nodes, outputs: graph.outputs };
}
