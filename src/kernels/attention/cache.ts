/** Writing new keys or values into a KV cache [G, C, D]: only live rows, and never beyond the capacity. */

import { UnsupportedError } from '../../core/errors.js';
import type { GpuKernel } from '../../core/kernel.js';
import { formatType, type TensorType } from '../../core/tensor.js';
import { need } from '../../ops/definition.js';
import { stateWord } from '../../ops/state.js';
import type { LoweringRule } from '../../ops/target.js';
import { elementKernel } from '../element-kernel.js';
import { arg, encodeHalfFunction, oneStep } from '../template.js';
import { cacheQuantiseKernel } from './cache-quantise.js';

export type CacheType = 'f32' | 'f16' | 'q8_planes';

/** The element type of a cache that kernels can address: halves lie in pairs, in the words of one row. */
export function cacheType(what: string, type: TensorType): CacheType {
  const width = type.shape[2] ?? 0;
  if (type.dtype === 'q8_planes') return type.dtype;
  if (type.dtype === 'f16' && width % 2 === 0) return 'f16';
  if (type.dtype === 'f32') return 'f32';
  throw new UnsupportedError(`${what} is ${formatType(type)}: heads of an f16 cache must have an even width, use an f32 cache`);
}

export interface CacheProblem {
  readonly rows: number;
  readonly heads: number;
  readonly capacity: number;
  readonly width: number;
  readonly type: CacheType;
}

export function cacheWriteKernel(problem: CacheProblem): GpuKernel {
  if (problem.type === 'q8_planes') return cacheQuantiseKernel(problem);
  const { rows, heads, capacity, width, type } = problem;
  const words = type === 'f16' ? width / 2 : width;
  const count = rows * heads * words;
  return elementKernel({
    family: 'cache_write',
    params: { ...problem },
    count,
    bindings: [
      ['cache', type === 'f16' ? 'u32' : 'f32', 'read_write'],
      ['x', type === 'f16' ? 'vec2<f32>' : 'f32', 'read'],
      ['state', 'u32', 'read'],
    ],
    functions: () => (type === 'f16' ? encodeHalfFunction : ''),
    body: () => `  let word = index % ${words}u;
  let head = (index / ${words}u) % ${heads}u;
  let row = index / ${words * heads}u;
  let position = state[${stateWord.position}] + row;
  if (row >= state[${stateWord.rows}] || position >= ${capacity}u) { return; }
  let value = x[index];
  cache[(head * ${capacity}u + position) * ${words}u + word] = ${type === 'f16' ? 'encodeHalf(value.x) | (encodeHalf(value.y) << 16u)' : 'value'};
`,
  });
}

export const cacheWriteRule: LoweringRule<'cacheWrite', GpuKernel> = (node) => {
  const [cache, x, state] = [need(node.inputs[0]), need(node.inputs[1]), need(node.inputs[2])];
  const [heads = 0, capacity = 0, width = 0] = cache.type.shape;
  const kernel = cacheWriteKernel({ rows: x.type.shape[0] ?? 0, heads, capacity, width, type: cacheType('the cache', cache.type) });
  return oneStep(node, kernel, [arg(node.output, 'readwrite'), arg(x, 'read'), arg(state, 'read')]);
};
