import { UnsupportedError } from '../../core/errors.js';
import type { Step } from '../../core/step.js';
import { roundUp } from '../../core/tensor.js';
import { advanceState, stateWord } from '../../ops/state.js';
import type { LoweringContext, LoweringNode, LoweringRule, TensorRef } from '../../ops/target.js';
import { halfToFloat } from '../../quant/index.js';
import { q8Block } from '../../quant/q8-planes.js';
import type { CpuContext, CpuKernel } from '../kernel.js';
import { attendRow } from '../kernels/attention.js';
import { planesToFloats } from '../kernels/planes.js';
import { axisOf, cpuStep, inputOf, liveRows } from '../step.js';
import { cacheType } from './cache.js';

export const lastRow: LoweringRule<'lastRow', CpuKernel> = (node) => {
  const [x, state] = [inputOf(node, 0), inputOf(node, 1)];
  const [rows, width] = [axisOf(x, 0), axisOf(x, 1)];
  const kernel: CpuKernel = {
    key: `lastRow:${rows},${width}`,
    family: 'lastRow',
    programs: [],
    bind(context) {
      const [values, words, y] = [context.f32(0), context.u32(1), context.f32(2)];
      return () => {
        const start = (liveRows(words, rows) - 1) * width;
        for (let i = 0; i < width; i++) y[i] = values[start + i] ?? Number.NaN;
      };
    },
  };
  return [cpuStep(node, kernel, [x, 'read'], [state, 'read'], [node.output, 'write'])];
};

export const rope: LoweringRule<'rope', CpuKernel> = (node) => {
  const [x, table, state] = [inputOf(node, 0), inputOf(node, 1), inputOf(node, 2)];
  const [rows, heads, width, half] = [axisOf(x, 0), axisOf(x, 1), axisOf(x, 2), axisOf(table, 1)];
  const kernel = ropeKernel(rows, heads, width, half, node.params.pairing === 'adjacent', axisOf(table, 0) === 1);
  return [cpuStep(node, kernel, [x, 'read'], [table, 'read'], [state, 'read'], [node.output, 'write'])];
};

function ropeKernel(rows: number, heads: number, width: number, half: number, adjacent: boolean, single: boolean): CpuKernel {
  const [step, apart] = adjacent ? [2, 1] : [1, half];
  return {
    key: `rope:${rows},${heads},${width},${half},${adjacent},${single}`,
    family: 'rope',
    programs: [],
    bind(context) {
      const [x, table, state, y] = [context.f32(0), context.f32(1), context.u32(2), context.f32(3)];
      return () => {
        const live = liveRows(state, rows);
        const position = state[stateWord.position] ?? 0;
        y.set(x);
        for (let t = 0; t < live; t++) {
          const angles = single ? 0 : (position + t) * half * 2;
          for (let start = t * heads * width; start < (t + 1) * heads * width; start += width) {
            for (let i = 0; i < half; i++) {
              const cos = table[angles + 2 * i] ?? 1;
              const sin = table[angles + 2 * i + 1] ?? 0;
              const a = start + i * step;
              const xa = x[a] ?? 0;
              const xb = x[a + apart] ?? 0;
              y[a] = xa * cos - xb * sin;
              y[a + apart] = xa * sin + xb * cos;
            }
          }
        }
      };
    },
  };
}

interface AttentionShape {
  /** What rows are read from: caches in planes are decoded before. */
  readonly cache: 'f32' | 'f16';
  readonly rows: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly capacity: number;
  readonly width: number;
  readonly scale: number;
  readonly softcap: number | undefined;
  /** Positions that a row sees at most. */
  readonly window: number;
  readonly sinks: boolean;
}

/** Query heads that one pass over the cache serves. */
const sharedHeads = 2;

export const attention: LoweringRule<'attention', CpuKernel> = (node, context) => {
  const [q, keys, values, state, sinks] = [inputOf(node, 0), inputOf(node, 1), inputOf(node, 2), inputOf(node, 3), node.inputs[4]];
  const types = [cacheType(node.label, keys), cacheType(node.label, values)] as const;
  if (types[0] !== types[1]) throw new UnsupportedError(`${node.label}: keys and values must have one type, got ${types[0]} and ${types[1]}`);
  const shape: AttentionShape = {
    cache: types[0] === 'f16' ? 'f16' : 'f32',
    rows: axisOf(q, 0),
    heads: axisOf(q, 1),
    kvHeads: axisOf(keys, 0),
    capacity: axisOf(keys, 1),
    width: axisOf(q, 2),
    scale: node.params.scale,
    softcap: node.params.softcap,
    window: Math.min(node.params.window ?? axisOf(keys, 1), axisOf(keys, 1)),
    sinks: sinks !== undefined,
  };
  const scores = context.scratch({ dtype: 'f32', shape: [sharedHeads, scoreStride(shape)] });
  const kernel = shape.width % 4 === 0 ? attentionKernel(shape) : plainAttention(shape);
  const more = sinks === undefined ? [] : [[sinks, 'read'] as const];
  const decoded = types[0] === 'q8_planes' ? [keys, values].map((cache) => decodedCache(node, context, cache, shape)) : [];
  const [k, v] = [decoded[0]?.floats ?? keys, decoded[1]?.floats ?? values];
  const step = cpuStep(node, kernel, [q, 'read'], [k, 'read'], [v, 'read'], [state, 'read'], [scores, 'write'], [node.output, 'write'], ...more);
  return [...decoded.map((cache) => cache.step), step];
};

/** A cache in planes as f32, at the positions that this run sees. */
function decodedCache(
  node: LoweringNode<'attention'>,
  context: LoweringContext,
  cache: TensorRef,
  { rows, kvHeads, capacity, width, window }: AttentionShape,
): { readonly floats: TensorRef; readonly step: Step<CpuKernel> } {
  const rowBlocks = width / q8Block;
  const kernel: CpuKernel = {
    key: `decodeCache:${rows},${kvHeads},${capacity},${width},${window}`,
    family: 'cache to f32',
    programs: [planesToFloats],
    bind(bound) {
      const [bytes, state, y] = [bound.address(0), bound.u32(1), bound.address(2)];
      const decode = bound.compiled(planesToFloats);
      const scales = bytes + kvHeads * capacity * width;
      return () => {
        const position = state[stateWord.position] ?? 0;
        const first = Math.max(0, position + 1 - window);
        const count = Math.min(position + liveRows(state, rows), capacity) - first;
        for (let head = 0; head < kvHeads; head++) {
          const block = (head * capacity + first) * rowBlocks;
          decode(bytes + block * q8Block, scales + block * 2, y + block * q8Block * 4, count * rowBlocks);
        }
      };
    },
  };
  const floats = context.scratch({ dtype: 'f32', shape: cache.type.shape });
  return { floats, step: cpuStep(node, kernel, [cache, 'read'], [inputOf(node, 3), 'read'], [floats, 'write']) };
}

/** Scores of one head: those of a window, and room for one vector more. */
function scoreStride({ window }: AttentionShape): number {
  return roundUp(window, 4) + 4;
}

function keyOf(family: string, shape: AttentionShape): string {
  const { cache, rows, heads, kvHeads, capacity, width, scale, softcap, window, sinks } = shape;
  return `${family}:${cache},${rows},${heads},${kvHeads},${capacity},${width},${scale},${softcap ?? 'plain'},${window},${sinks}`;
}

/** Passes of one or two query heads of each KV head, for each live row. */
function attentionKernel(shape: AttentionShape): CpuKernel {
  const { rows, heads, kvHeads, capacity, width, cache, window, sinks } = shape;
  const ratio = heads / kvHeads;
  const pair = attendRow({ ...shape, heads: sharedHeads });
  const single = attendRow({ ...shape, heads: 1 });
  return {
    key: keyOf('attention', shape),
    family: `attention ${cache}`,
    programs: [...(ratio >= sharedHeads ? [pair] : []), ...(ratio % sharedHeads === 0 ? [] : [single])],
    bind(context) {
      const [q, keys, values, scores, y] = [context.address(0), context.address(1), context.address(2), context.address(4), context.address(5)];
      const state = context.u32(3);
      const sinksAt = sinks ? context.address(6) : 0;
      const positionBytes = width * (cache === 'f16' ? 2 : 4);
      const passes = headPasses(shape).map(({ head, count }) => {
        const kv = Math.floor(head / ratio) * capacity * positionBytes;
        const compiled = context.compiled(count === 1 ? single : pair);
        return { compiled, head: head * width * 4, keys: keys + kv, values: values + kv, sinks: sinksAt + head * 4 };
      });
      const [rowBytes, stride] = [heads * width * 4, scoreStride(shape) * 4];
      return () => {
        const live = liveRows(state, rows);
        const position = state[stateWord.position] ?? 0;
        for (const pass of passes) {
          for (let t = 0; t < live; t++) {
            const row = t * rowBytes + pass.head;
            const end = Math.min(position + t + 1, capacity);
            const first = Math.max(0, end - window);
            const skipped = first * positionBytes;
            pass.compiled(q + row, pass.keys + skipped, pass.values + skipped, y + row, scores, end - first, stride, pass.sinks);
          }
        }
      };
    },
  };
}

function headPasses({ heads, kvHeads }: AttentionShape): { readonly head: number; readonly count: number }[] {
  const ratio = heads / kvHeads;
  return Array.from({ length: kvHeads }, (_, g) =>
    Array.from({ length: Math.ceil(ratio / sharedHeads) }, (_, i) => ({
      head: g * ratio + i * sharedHeads,
      count: Math.min(sharedHeads, ratio - i * sharedHeads),
    })),
  ).flat();
}

/** Heads whose width is no multiple of 4. */
function plainAttention(shape: AttentionShape): CpuKernel {
  const { rows, heads, kvHeads, capacity, width, window } = shape;
  return {
    key: keyOf('plainAttention', shape),
    family: `attention ${shape.cache}`,
    programs: [],
    bind(context) {
      const [q, state, weights, y] = [context.f32(0), context.u32(3), context.f32(4), context.f32(5)];
      const [keys, values] = [cacheReader(shape.cache, context, 1), cacheReader(shape.cache, context, 2)];
      const sinks = shape.sinks ? context.f32(6) : undefined;
      return () => {
        const live = liveRows(state, rows);
        const position = state[stateWord.position] ?? 0;
        for (let i = 0; i < live * heads; i++) {
          const end = Math.min(position + Math.floor(i / heads) + 1, capacity);
          const length = Math.min(end, window);
          const kv = (Math.floor(((i % heads) * kvHeads) / heads) * capacity + end - length) * width;
          const sink = sinks === undefined ? Number.NEGATIVE_INFINITY : (sinks[i % heads] ?? Number.NaN);
          const sum = softmaxScores(q, i * width, keys, kv, length, shape, sink, weights);
          for (let d = 0; d < width; d++) {
            let total = 0;
            for (let p = 0; p < length; p++) total += (weights[p] ?? 0) * values(kv + p * width + d);
            y[i * width + d] = total / sum;
          }
        }
      };
    },
  };
}

type Reader = (index: number) => number;

function cacheReader(cache: AttentionShape['cache'], context: CpuContext, index: number): Reader {
  if (cache === 'f32') {
    const values = context.f32(index);
    return (i) => values[i] ?? 0;
  }
  const bits = context.u16(index);
  return (i) => halfToFloat(bits[i] ?? 0);
}

/** Leaves e^(score - max) in `weights` and returns their sum with that of the sink. */
function softmaxScores(
  q: Float32Array,
  from: number,
  keys: Reader,
  kv: number,
  length: number,
  { width, scale, softcap }: AttentionShape,
  sink: number,
  weights: Float32Array,
): number {
  let max = sink;
  for (let p = 0; p < length; p++) {
    let score = 0;
    for (let d = 0; d < width; d++) score += (q[from + d] ?? 0) * keys(kv + p * width + d);
    weights[p] = softcap === undefined ? score * scale : softcap * Math.tanh((score * scale) / softcap);
    max = Math.max(max, weights[p] ?? 0);
  }
  let sum = Math.exp(sink - max);
  for (let p = 0; p < length; p++) {
    weights[p] = Math.exp((weights[p] ?? 0) - max);
    sum += weights[p] ?? 0;
  }
  return sum;
}

export const advance: LoweringRule<'advance', CpuKernel> = (node) => {
  const tokens = inputOf(node, 1);
  const kernel: CpuKernel = {
    key: 'advance',
    family: 'advance',
    programs: [],
    bind(context) {
      const [state, chosen] = [context.u32(0), context.u32(1)];
      return () => advanceState(state, chosen[0] ?? 0);
    },
  };
  return [cpuStep(node, kernel, [node.output, 'readwrite'], [tokens, 'read'])];
};
