import { GraphError } from '../core/errors.js';
import { elementCount, type Shape, type TensorType } from '../core/tensor.js';
import { axisFrom } from '../ops/axes.js';
import type { BinaryFunction, CompareFunction, LeafOp, OpName, OpParams, ReduceFunction, RopePairing, UnaryFunction } from '../ops/params.js';
import { ops } from '../ops/table.js';
import type { Graph, GraphNode, GraphOutput, NodeId } from './graph.js';
import { verify } from './verify.js';

/**
 * Builds a graph node by node. Every method returns the new node's id; output types follow from the op table and shapes that do not fit throw `ShapeError` at once.
 */
export class GraphBuilder {
  readonly #nodes: GraphNode[] = [];
  readonly #outputs: GraphOutput[] = [];

  /** The type of a node made here. */
  typeOf(id: NodeId): TensorType {
    return this.#node(id).type;
  }

  /** A value written by the caller before each run. */
  input(name: string, type: TensorType): NodeId {
    return this.#push('input', { name }, [], type, name);
  }

  /** A weight, bound by name; packed types stay packed. */
  param(name: string, type: TensorType): NodeId {
    return this.#push('param', { name }, [], type, name);
  }

  /** A tensor that outlives runs and that `cacheWrite` and `advance` update. */
  state(name: string, type: TensorType): NodeId {
    return this.#push('state', { name }, [], type, name);
  }

  /** Numbers that belong to the graph. @throws GraphError where their count is not that of the type. */
  constant(values: readonly number[], type: TensorType, name = 'constant'): NodeId {
    if (values.length !== elementCount(type.shape)) throw new GraphError(`constant ${name}: ${values.length} values for [${type.shape.join(', ')}]`);
    return this.#push('constant', { values }, [], type, name);
  }

  /** Any operation of the table. */
  add<K extends Exclude<OpName, LeafOp>>(op: K, params: OpParams[K], inputs: readonly NodeId[], name: string = op): NodeId {
    if (!Object.hasOwn(ops, op)) throw new GraphError(`${name}: there is no operation "${String(op)}"`, this.#nodes.length);
    const definition = ops[op];
    const [min, max] = typeof definition.arity === 'number' ? [definition.arity, definition.arity] : definition.arity;
    if (inputs.length < min || inputs.length > max) {
      throw new GraphError(`${name}: ${op} takes ${min === max ? min : `${min} to ${max}`} inputs, got ${inputs.length}`, this.#nodes.length);
    }
    const type = definition.type(
      inputs.map((id) => this.#node(id).type),
      params,
    );
    return this.#push(op, params, inputs, type, name);
  }

  /** fn(x), element by element; leakyRelu and elu take `a`, clip and scale too, clip `b`. */
  unary(fn: UnaryFunction, x: NodeId, scalars: { a?: number; b?: number } = {}, name: string = fn): NodeId {
    return this.add('unary', { fn, ...scalars }, [x], name);
  }

  /** fn(a, b), with broadcasting. */
  binary(fn: BinaryFunction, a: NodeId, b: NodeId, name: string = fn): NodeId {
    return this.add('binary', { fn }, [a, b], name);
  }

  /** The same elements in another shape of equal size; costs nothing. */
  reshape(x: NodeId, shape: Shape, name = 'reshape'): NodeId {
    return this.add('reshape', { shape }, [x], name);
  }

  /** Rows [start, start + length) of axis 0; costs nothing. */
  narrow(x: NodeId, start: number, length: number, name = 'narrow'): NodeId {
    return this.add('narrow', { start, length }, [x], name);
  }

  /** Rows of a table [V, D] of any type by ids u32 [T]: f32 [T, D]. */
  gatherRows(table: NodeId, ids: NodeId, name = 'gatherRows'): NodeId {
    return this.add('gatherRows', {}, [table, ids], name);
  }

  /** x wᵀ; see the definition for the shapes. With `rounded`, x may be rounded to f16 or 8-bit integers where that is faster. */
  linear(x: NodeId, w: NodeId, extra: { bias?: NodeId; residual?: NodeId; rounded?: true } = {}, name = 'linear'): NodeId {
    const inputs = [x, w, ...(extra.bias === undefined ? [] : [extra.bias]), ...(extra.residual === undefined ? [] : [extra.residual])];
    const rounded = extra.rounded === true ? { rounded: true as const } : {};
    return this.add('linear', { bias: extra.bias !== undefined, residual: extra.residual !== undefined, ...rounded }, inputs, name);
  }

  /** x / sqrt(mean(x^2) + eps) gain along the last axis: x f32 [..., D], gain f32 [D]. */
  rmsNorm(x: NodeId, gain: NodeId, eps: number, name = 'rmsNorm'): NodeId {
    return this.add('rmsNorm', { eps }, [x, gain], name);
  }

  /** Rotary position embedding of x f32 [T, H, D] by a table f32 [P, R/2, 2] of (cos, sin) and the position of the session state. */
  rope(x: NodeId, table: NodeId, state: NodeId, pairing: RopePairing, name = 'rope'): NodeId {
    return this.add('rope', { pairing }, [x, table, state], name);
  }

  /** Writes the live rows of x f32 [T, G, D] into a KV cache [G, C, D] (a state) at the session's position; the new version of the cache. */
  cacheWrite(cache: NodeId, x: NodeId, state: NodeId, name = 'cacheWrite'): NodeId {
    return this.add('cacheWrite', {}, [cache, x, state], name);
  }

  /** Causal attention over the cache; see the definition for the shapes, `window`, `softcap` and `sinks` (f32 [query heads]). */
  attention(
    q: NodeId,
    keys: NodeId,
    values: NodeId,
    state: NodeId,
    options: OpParams['attention'] & { readonly sinks?: NodeId | undefined },
    name = 'attention',
  ): NodeId {
    const { sinks, ...params } = options;
    return this.add('attention', params, [q, keys, values, state, ...(sinks === undefined ? [] : [sinks])], name);
  }

  /** alpha a b of f32 matrices; see the definition for the shapes. With `rounded`, a and b may be rounded to f16 where that is faster; sums are f32. */
  matmul(a: NodeId, b: NodeId, options: { transposeA?: boolean; transposeB?: boolean; alpha?: number; rounded?: boolean } = {}, name = 'matmul'): NodeId {
    const { transposeA = false, transposeB = false, alpha = 1, rounded = false } = options;
    return this.add('matmul', { transposeA, transposeB, alpha, ...(rounded ? { rounded: true as const } : {}) }, [a, b], name);
  }

  /** Over the given axes (from the end where negative), or over all of them. */
  reduce(fn: ReduceFunction, x: NodeId, options: { axes?: readonly number[]; keepDims?: boolean } = {}, name: string = fn): NodeId {
    const rank = this.typeOf(x).shape.length;
    const axes = options.axes?.map((axis) => axisFrom(axis, rank)).sort((a, b) => a - b) ?? Array.from({ length: rank }, (_, axis) => axis);
    return this.add('reduce', { fn, axes, keepDims: options.keepDims ?? false }, [x], name);
  }

  /** The sum of a[i] b[i] of two f32 tensors of one shape: f32 [1]. */
  dot(a: NodeId, b: NodeId, name = 'dot'): NodeId {
    return this.add('dot', {}, [a, b], name);
  }

  /** Along one axis, the last unless said. */
  softmax(x: NodeId, axis = -1, name = 'softmax'): NodeId {
    return this.add('softmax', { axis: this.#axis(x, axis) }, [x], name);
  }

  /** x - max - ln(sum e^(x - max)) along one axis, the last unless said. */
  logSoftmax(x: NodeId, axis = -1, name = 'logSoftmax'): NodeId {
    return this.add('logSoftmax', { axis: this.#axis(x, axis) }, [x], name);
  }

  /** (x - mean) / sqrt(variance + eps) gain (+ bias) along the last axis. */
  layerNorm(x: NodeId, gain: NodeId, bias: NodeId | undefined, eps: number, name = 'layerNorm'): NodeId {
    return this.add('layerNorm', { eps }, bias === undefined ? [x, gain] : [x, gain, bias], name);
  }

  /** u32: 1 where it holds, 0 elsewhere. */
  compare(fn: CompareFunction, a: NodeId, b: NodeId, name: string = fn): NodeId {
    return this.add('compare', { fn }, [a, b], name);
  }

  /** a where the condition (u32) is not 0, b elsewhere. */
  where(condition: NodeId, a: NodeId, b: NodeId, name = 'where'): NodeId {
    return this.add('where', {}, [condition, a, b], name);
  }

  /** The same numbers as f32, u32 or i32. */
  cast(x: NodeId, to: OpParams['cast']['to'], name = 'cast'): NodeId {
    return this.add('cast', { to }, [x], name);
  }

  /** Parts one after another along an axis; equal in the others. */
  concat(parts: readonly NodeId[], axis = 0, name = 'concat'): NodeId {
    const [first] = parts;
    if (first === undefined) throw new GraphError(`${name}: concat takes at least one part`, this.#nodes.length);
    return this.add('concat', { axis: this.#axis(first, axis) }, parts, name);
  }

  /** Elements along one axis by u32 indices of any shape. */
  gather(x: NodeId, indices: NodeId, axis = 0, name = 'gather'): NodeId {
    return this.add('gather', { axis: this.#axis(x, axis) }, [x, indices], name);
  }

  /** y's axis i is x's axis perm[i]. */
  permute(x: NodeId, perm: readonly number[], name = 'permute'): NodeId {
    return this.add('permute', { perm: perm.map((axis) => this.#axis(x, axis)) }, [x], name);
  }

  /** Repeats x to a shape by the rules of broadcasting. */
  expand(x: NodeId, shape: Shape, name = 'expand'): NodeId {
    return this.add('expand', { shape }, [x], name);
  }

  /** `length` elements of one axis from `start` on, every `step`-th; `narrow` on axis 0 costs nothing. */
  slice(x: NodeId, axis: number, start: number, length: number, step = 1, name = 'slice'): NodeId {
    return this.add('slice', { axis: this.#axis(x, axis), start, length, step }, [x], name);
  }

  /** x's elements, counted as one row, at offset + sum of index times stride: any view of a tensor as a tensor of its own. */
  strided(x: NodeId, shape: Shape, strides: readonly number[], offset = 0, name = 'strided'): NodeId {
    return this.add('strided', { shape, strides, offset }, [x], name);
  }

  /** The k largest along the last axis, largest first, or their indices (u32). */
  topK(x: NodeId, k: number, output: OpParams['topK']['output'] = 'values', name = 'topK'): NodeId {
    return this.add('topK', { k, output }, [x], name);
  }

  /** Running sums along an axis, the last unless said; `exclusive` without the element itself. */
  cumsum(x: NodeId, axis = -1, exclusive = false, name = 'cumsum'): NodeId {
    return this.add('cumsum', { axis: this.#axis(x, axis), exclusive }, [x], name);
  }

  /** Cross-correlation of x f32 [C, H, W] or [N, C, H, W] with a kernel f32 [C_out, C, h, w]; stride 1 and padding 'valid' unless said. */
  conv2d(x: NodeId, kernel: NodeId, options: Partial<OpParams['conv2d']> = {}, name = 'conv2d'): NodeId {
    return this.add('conv2d', { stride: options.stride ?? 1, padding: options.padding ?? 'valid' }, [x, kernel], name);
  }

  /** One partial for each tile of 16 x 16. */
  tileReduce(fn: OpParams['tileReduce']['fn'], x: NodeId, name = 'tileReduce'): NodeId {
    return this.add('tileReduce', { fn }, [x], name);
  }

  /** Marks a value as wanted under `name`. */
  output(name: string, node: NodeId): void {
    this.#node(node);
    if (this.#outputs.some((output) => output.name === name)) throw new GraphError(`two outputs are called "${name}"`, node);
    this.#outputs.push({ name, node });
  }

  /** The finished graph, verified. */
  build(): Graph {
    const graph: Graph = { nodes: [...this.#nodes], outputs: [...this.#outputs] };
    verify(graph);
    return graph;
  }

  #axis(x: NodeId, axis: number): number {
    return axisFrom(axis, this.typeOf(x).shape.length);
  }

  #push<K extends OpName>(op: K, params: OpParams[K], inputs: readonly NodeId[], type: TensorType, name: string): NodeId {
    const id = this.#nodes.length;
    // `op` and `params` have one K: the union type cannot see it through the generic.
    this.#nodes.push({ id, op, params, inputs, type, name } as GraphNode);
    return id;
  }

  #node(id: NodeId): GraphNode {
    const node = this.#nodes[id];
    if (node === undefined) throw new GraphError(`node ${id} is not of this graph: it has ${this.#nodes.length} nodes`, id);
    return node;
  }
}
