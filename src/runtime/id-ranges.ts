import { ArgumentError } from '../core/errors.js';
import { elementCount } from '../core/tensor.js';
import type { Graph, NodeId } from '../graph/graph.js';

/** Words [start, start + count) of an input or a state are row numbers of a table with `rows` rows. */
interface IdRange {
  readonly start: number;
  readonly count: number;
  readonly rows: number;
}

/** Which words of the graph's inputs and states `gatherRows` reads as row numbers, by the leaf's name. Kernels trust them, so that they are checked where they are fed. */
export function idRanges(graph: Graph): ReadonlyMap<string, readonly IdRange[]> {
  const ranges = new Map<string, IdRange[]>();
  for (const node of graph.nodes) {
    if (node.op !== 'gatherRows') continue;
    const [table, ids] = node.inputs;
    const { leaf, start } = leafOf(graph, ids ?? -1);
    if (leaf === undefined) continue;
    const range = { start, count: node.type.shape[0] ?? 0, rows: graph.nodes[table ?? -1]?.type.shape[0] ?? 0 };
    ranges.set(leaf, [...(ranges.get(leaf) ?? []), range]);
  }
  return ranges;
}

/** The input or state that a value is a view of, and the view's first element. Values that steps compute have none. */
function leafOf(graph: Graph, id: NodeId): { leaf: string | undefined; start: number } {
  let start = 0;
  let node = graph.nodes[id];
  while (node?.op === 'reshape' || node?.op === 'narrow') {
    if (node.op === 'narrow') start += node.params.start * elementCount(node.type.shape.slice(1));
    node = graph.nodes[node.inputs[0] ?? -1];
  }
  return { leaf: node?.op === 'input' || node?.op === 'state' ? node.params.name : undefined, start };
}

/** Throws `ArgumentError` for a row number beyond its table. `bytes` are the whole leaf's. */
export function checkIds(name: string, ranges: readonly IdRange[] | undefined, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const { start, count, rows } of ranges ?? []) {
    for (let i = start; i < start + count; i++) {
      const id = view.getUint32(i * 4, true);
      if (id >= rows) throw new ArgumentError(name, `"${name}" holds row numbers from 0 to ${rows - 1}, got ${id} at element ${i}`);
    }
  }
}
