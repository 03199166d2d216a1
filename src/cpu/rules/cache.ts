import { UnsupportedError } from '../../core/errors.js';
import { stateWord } from '../../ops/state.js';
import type { LoweringRule, TensorRef } from '../../ops/target.js';
import { floatToHalf } from '../../quant/index.js';
import { q8Block, quantiseBytes } from '../../quant/q8-planes.js';
import type { CpuContext, CpuKernel } from '../kernel.js';
import { axisOf, cpuStep, inputOf, liveRows } from '../step.js';

/** Types that a KV cache may have here. */
export type CacheType = 'f32' | 'f16' | 'q8_planes';

export const cacheWrite: LoweringRule<'cacheWrite', CpuKernel> = (node) => {
  const [cache, x, state] = [inputOf(node, 0), inputOf(node, 1), inputOf(node, 2)];
  const kernel = cacheWriteKernel(cacheType(node.label, cache), axisOf(x, 0), axisOf(cache, 0), axisOf(cache, 1), axisOf(cache, 2));
  return [cpuStep(node, kernel, [node.output, 'readwrite'], [x, 'read'], [state, 'read'])];
};

export function cacheType(label: string, cache: TensorRef): CacheType {
  const { dtype } = cache.type;
  if (dtype === 'f32' || dtype === 'f16' || dtype === 'q8_planes') return dtype;
  throw new UnsupportedError(`${label}: a KV cache is f32, f16 or q8_planes, got ${dtype}`);
}

/** Live rows beyond the capacity are not written: the caller has checked that there are none. */
function cacheWriteKernel(cache: CacheType, rows: number, heads: number, capacity: number, width: number): CpuKernel {
  return {
    key: `cacheWrite:${cache},${rows},${heads},${capacity},${width}`,
    family: `cacheWrite ${cache}`,
    programs: [],
    bind(context) {
      const [x, state] = [context.f32(1), context.u32(2)];
      const put = writers[cache](context, x, heads * capacity * width);
      return () => {
        const position = state[stateWord.position] ?? 0;
        const live = Math.min(liveRows(state, rows), capacity - position);
        for (let t = 0; t < live; t++) {
          for (let head = 0; head < heads; head++) put((head * capacity + position + t) * width, (t * heads + head) * width, width);
        }
      };
    },
  };
}

type Put = (to: number, from: number, count: number) => void;

/** By cache type; `count`: the cache's elements. */
const writers: { readonly [T in CacheType]: (context: CpuContext, x: Float32Array, count: number) => Put } = {
  f32: (context, x) => floatWriter(context.f32(0), x),
  f16: (context, x) => halfWriter(context.u16(0), x),
  q8_planes: (context, x, count) => planesWriter(context.u8(0), context.u16(0).subarray(count / 2), x),
};

function floatWriter(cache: Float32Array, x: Float32Array): Put {
  return (to, from, count) => {
    for (let i = 0; i < count; i++) cache[to + i] = x[from + i] ?? 0;
  };
}

function halfWriter(cache: Uint16Array, x: Float32Array): Put {
  return (to, from, count) => {
    for (let i = 0; i < count; i++) cache[to + i] = floatToHalf(x[from + i] ?? 0);
  };
}

function planesWriter(bytes: Uint8Array, scales: Uint16Array, x: Float32Array): Put {
  return (to, from, count) => {
    for (let i = 0; i < count; i += q8Block) scales[(to + i) / q8Block] = floatToHalf(quantiseBytes(x, from + i, bytes, to + i));
  };
}
