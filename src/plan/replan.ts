import type { Graph, GraphNode } from '../graph/graph.js';
import type { ExecutionPlan, PlannedStep } from './execution-plan.js';
import { lowerAgain } from './lower.js';
import { validate } from './validate.js';

/**
 * The plan of a graph that is a planned one but for parameters of some nodes, whose other nodes are the very same objects: where their steps take the same values, every value keeps its place and only
 * kernels change. Undefined where more does: then the graph needs a plan of its own, which takes many times as long.
 */
export function replan<Kernel>(plan: ExecutionPlan<Kernel>, graph: Graph): ExecutionPlan<Kernel> | undefined {
  const changed = changedNodes(plan.graph, graph);
  if (changed === undefined) return undefined;
  const steps = new Map<number, readonly PlannedStep<Kernel>[]>();
  for (const [id, again] of lowerAgain(graph, plan, changed)) {
    const before = plan.steps.filter((step) => step.node === id);
    const now = before.flatMap((step, i): readonly PlannedStep<Kernel>[] => {
      const other = again[i];
      const same =
        other !== undefined &&
        step.consumes === undefined &&
        other.args.map(({ value, access }) => `${value} ${access}`).join() === step.args.map(({ value, access }) => `${value} ${access}`).join();
      return same ? [{ ...step, kernel: other.kernel }] : [];
    });
    if (now.length !== before.length || again.length !== before.length) return undefined;
    steps.set(id, now);
  }
  const taken = new Map<number, number>();
  const result = {
    ...plan,
    graph,
    steps: plan.steps.map((step) => {
      const index = taken.get(step.node) ?? 0;
      taken.set(step.node, index + 1);
      return steps.get(step.node)?.[index] ?? step;
    }),
  };
  validate(result);
  return result;
}

/** Nodes that differ in their parameters; undefined where the graphs differ in more. */
function changedNodes(before: Graph, graph: Graph): readonly GraphNode[] | undefined {
  if (before.nodes.length !== graph.nodes.length || before.outputs !== graph.outputs) return undefined;
  const changed = graph.nodes.filter((node, id) => node !== before.nodes[id]);
  const alike = changed.every((node) => {
    const other = before.nodes[node.id];
    return other !== undefined && other.op === node.op && other.name === node.name && other.inputs === node.inputs && other.type === node.type;
  });
  return alike ? changed : undefined;
}
