import type { GpuCapabilities } from '../../core/capabilities.js';
import { type CaseInput, decodeBytes, type OpCase } from '../../ops/case.js';
import { selectMatrixAttention } from '../attention-matrix.js';
import { selectMatrix } from './linear.js';

/** Standard deviations that are accepted: beyond any that a few million outputs show. */
const deviations = 6;
/** Half a unit in the last place of an f16, relative to its value. */
const halfStep = 2 ** -11;

/**
 * What f16 operands may add to the error of each output of a case that runs on subgroup matrices; undefined for every other case.
 * - linear: each product errs by two roundings, uniform in half a step to either side: variance (w x 2^-11)^2 2 / 3.
 * - attention: values and weights err by half a step each, and a score by what its products do, which its weight then has as a factor: all of it times the largest value.
 */
export function matrixRounding(opCase: OpCase, capabilities: GpuCapabilities, leastRows?: number): Float64Array | undefined {
  if (opCase.op === 'linear') return linearRounding(opCase as OpCase<'linear'>, capabilities, leastRows);
  return opCase.op === 'attention' ? attentionRounding(opCase as OpCase<'attention'>, capabilities, leastRows) : undefined;
}

function linearRounding({ inputs: [x, w], params }: OpCase<'linear'>, capabilities: GpuCapabilities, leastRows?: number): Float64Array | undefined {
  const [outputs = 0, depth = 0] = w?.type.shape ?? [];
  const [rows = 0] = x?.type.shape ?? [];
  if (
    params.rounded !== true ||
    x === undefined ||
    w === undefined ||
    w.type.dtype === 'f32' ||
    selectMatrix({ rows, outputs, depth }, capabilities, leastRows) === undefined
  )
    return undefined;
  const [values, weights] = [decodeBytes(x.type, x.bytes), decodeBytes(w.type, w.bytes)];
  return Float64Array.from({ length: rows * outputs }, (_, i) => {
    const [t, n] = [Math.floor(i / outputs) * depth, (i % outputs) * depth];
    let squares = 0;
    for (let k = 0; k < depth; k++) squares += ((values[t + k] ?? 0) * (weights[n + k] ?? 0)) ** 2;
    return deviations * halfStep * Math.sqrt((squares * 2) / 3);
  });
}

function attentionRounding(
  { inputs: [q, keys, values], params }: OpCase<'attention'>,
  capabilities: GpuCapabilities,
  leastRows?: number,
): Float64Array | undefined {
  if (q === undefined || keys === undefined || values === undefined) return undefined;
  const [rows = 0, heads = 0, width = 0] = q.type.shape;
  const [kvHeads = 0, capacity = 0] = keys.type.shape;
  const problem = { rows, heads, kvHeads, width, capacity, keys: 'f16', values: 'f16', scale: params.scale } as const;
  if (rows === 1 || selectMatrixAttention(problem, capabilities, leastRows) === undefined) return undefined;
  const score = deviations * params.scale * Math.sqrt((width * 2) / 3) * largestOf(q) * largestOf(keys);
  return new Float64Array(rows * heads * width).fill((2 + score) * halfStep * largestOf(values));
}

/** Of the numbers among the values: a cache holds NaN where no kernel may look. */
function largestOf({ type, bytes }: CaseInput): number {
  return decodeBytes(type, bytes).reduce((max, value) => (Math.abs(value) > max ? Math.abs(value) : max), 0);
}
