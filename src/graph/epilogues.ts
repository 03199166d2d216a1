/** Elementwise operations that follow a product move into it: the product is finished as it is written, and is nowhere in memory. */

import { elementCount, type Shape, sameShape } from '../core/tensor.js';
import { maxEpilogueInputs } from '../ops/matmul.js';
import type { RegionOperand, RegionStep } from '../ops/params.js';
import type { Graph, GraphNode, NodeId } from './graph.js';
import { regionOf } from './regions.js';
import type { RewriteEntry } from './rewrite-entry.js';
import { isUpdatedBetween } from './verify.js';

const rule = 'matmul epilogue';

type Product = Extract<GraphNode, { op: 'matmul' }>;

interface Epilogue {
  readonly product: Product;
  readonly steps: readonly RegionStep[];
  /** Read beside the product, in old ids. */
  readonly extras: readonly NodeId[];
}

/** Products that are read by one elementwise operation (or region) take it in; the plain products are left without readers. The report says what fused, and why a neighbour did not. */
export function fuseEpilogues(graph: Graph, report: RewriteEntry[]): Graph {
  const readers: NodeId[][] = graph.nodes.map(() => []);
  for (const node of graph.nodes) for (const input of node.inputs) readers[input]?.push(node.id);
  const kept = new Set(graph.outputs.map((output) => output.node));
  const alone = (id: NodeId): boolean => readers[id]?.length === 1 && !kept.has(id);
  const nodes: GraphNode[] = [];
  const renamed: NodeId[] = [];
  const rename = (id: NodeId): NodeId => renamed[id] ?? id;
  const push = (node: GraphNode): NodeId => nodes.push({ ...node, id: nodes.length }) - 1;
  const shaped = (id: NodeId, shape: Shape): NodeId => {
    const node = nodes[id];
    if (node === undefined || sameShape(node.type.shape, shape)) return id;
    return push({ id, op: 'reshape', params: { shape }, inputs: [id], type: { ...node.type, shape }, name: `${node.name} reshaped` });
  };
  for (const node of graph.nodes) {
    const found = epilogueOf(graph, node, alone);
    if (typeof found === 'string') report.push({ rule, at: node.name, applied: false, reason: found });
    if (found === undefined || typeof found === 'string') {
      renamed[node.id] = push({ ...node, inputs: node.inputs.map(rename) } as GraphNode);
      continue;
    }
    const { product, steps, extras } = found;
    const [m = 1, n = 1] = product.type.shape;
    const others = extras.map((id) => {
      const count = elementCount(graph.nodes[id]?.type.shape ?? []);
      return sameShape(node.type.shape, product.type.shape) ? rename(id) : shaped(rename(id), count === 1 ? [1] : [m, n]);
    });
    const fused = push({ ...product, params: { ...product.params, epilogue: steps }, inputs: [...product.inputs.map(rename), ...others], name: node.name });
    renamed[node.id] = shaped(fused, node.type.shape);
    report.push({ rule, at: node.name, applied: true, reason: `${product.name} is finished as it is written` });
  }
  return { nodes, outputs: graph.outputs.map((output) => ({ ...output, node: rename(output.node) })) };
}

/** The product that `node` finishes, a reason why it stays, or undefined where it reads none. */
function epilogueOf(graph: Graph, node: GraphNode, alone: (id: NodeId) => boolean): Epilogue | string | undefined {
  if (node.op !== 'region' && node.op !== 'unary' && node.op !== 'binary') return undefined;
  const region = node.op === 'region' ? node : regionOf(graph, node, new Set([node.id]));
  if (region.op !== 'region' || node.type.dtype !== 'f32') return undefined;
  let blocked: string | undefined;
  for (const id of region.inputs) {
    const input = graph.nodes[id];
    const source = input?.op === 'reshape' ? graph.nodes[input.inputs[0] ?? -1] : input;
    if (source?.op !== 'matmul' || source.params.epilogue !== undefined) continue;
    const extras = region.inputs.filter((other) => other !== id);
    const reason = !alone(id) || !alone(source.id) ? 'the product has other readers' : obstacle(graph, node, source, extras);
    if (reason === undefined) return { product: source, steps: renumbered(region.params.steps, [id, ...extras], region.inputs), extras };
    blocked ??= reason;
  }
  return blocked;
}

function obstacle(graph: Graph, node: GraphNode, product: Product, extras: readonly NodeId[]): string | undefined {
  const count = elementCount(node.type.shape);
  if (count !== elementCount(product.type.shape)) return 'the product is broadcast';
  if (extras.length > maxEpilogueInputs) return `more than ${maxEpilogueInputs} inputs`;
  const types = extras.map((id) => graph.nodes[id]?.type);
  if (types.some((type) => type?.dtype !== 'f32')) return 'it reads a condition';
  // In another shape only what is whole or a single number keeps its meaning.
  const flat = types.every((type) => [1, count].includes(elementCount(type?.shape ?? [])));
  if (!sameShape(node.type.shape, product.type.shape) && !flat) return 'it broadcasts over another shape than the product has';
  return isUpdatedBetween(graph, product.inputs, product.id, node.id) ? 'a state that the product reads is updated before' : undefined;
}

/** Steps whose inputs count in the order of `to` instead of `from`. */
function renumbered(steps: readonly RegionStep[], to: readonly NodeId[], from: readonly NodeId[]): readonly RegionStep[] {
  const operand = (of: RegionOperand): RegionOperand => ('input' in of ? { input: to.indexOf(from[of.input] ?? -1) } : of);
  return steps.map((step): RegionStep => {
    if (step.op === 'unary') return { ...step, x: operand(step.x) };
    if (step.op === 'where') return { ...step, condition: operand(step.condition), x: operand(step.x), y: operand(step.y) };
    return { ...step, x: operand(step.x), y: operand(step.y) };
  });
}
