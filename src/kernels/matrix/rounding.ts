import type { GpuCapabilities } from '../../core/capabilities.js';
import { type CaseInput, decodeBytes, type OpCase } from '../../ops/case.js';
import { selectMatrixAttention } from '../attention/matrix.js';
import { selectMatrix } from './linear.js';
import { selectMatmulMatrix } from './matmul.js';

/** Standard deviations that are accepted: beyond any that a few million outputs show. */
const deviations = 6;
/** Half a unit in the last place of an f16, relative to its value. */
const halfStep = 2 ** -11;

/**
 * What f16 operands may add to the error of each output of a case that runs on subgroup matrices; undefined for every other case.
 * - linear: each product errs by two roundings, uniform in half a step to either side: variance (w x 2^-11)^2 2 / 3.
 * - matmul: the same, times alpha; what an epilogue makes of it is not known here, so that cases with one are not rounded.
 * - attention: values and weights err by half a step each, and a score by what its products do, which its weight then has as a factor: all of it times the largest value.
 */
export function matrixRounding(opCase: OpCase, capabilities: GpuCapabilities, leastRows?: number): Float64Array | undefined {
  if (opCase.op === 'matmul') return matmulRounding(opCase as OpCase<'matmul'>, capabilities, leastRows);
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
  return productRounding(
    rows,
    outputs,
    depth,
    1,
    (t, k) => values[t * depth + k] ?? 0,
    (n, k) => weights[n * depth + k] ?? 0,
  );
}

function matmulRounding({ inputs: [a, b], params }: OpCase<'matmul'>, capabilities: GpuCapabilities, leastRows?: number): Float64Array | undefined {
  if (a === undefined || b === undefined || params.epilogue !== undefined) return undefined;
  const [m = 0, k = 0] = params.transposeA ? a.type.shape.toReversed() : a.type.shape;
  const n = b.type.shape[params.transposeB ? 0 : 1] ?? 0;
  if (selectMatmulMatrix({ m, n, k }, params, capabilities, leastRows) === undefined) return undefined;
  const [left, right] = [decodeBytes(a.type, a.bytes), decodeBytes(b.type, b.bytes)];
  const ofA = (row: number, d: number): number => left[params.transposeA ? d * m + row : row * k + d] ?? 0;
  const ofB = (column: number, d: number): number => right[params.transposeB ? column * k + d : d * n + column] ?? 0;
  return productRounding(m, n, k, Math.abs(params.alpha), ofA, ofB);
}

function productRounding(
  rows: number,
  columns: number,
  depth: number,
  factor: number,
  a: (row: number, k: number) => number,
  b: (column: number, k: number) => number,
): Float64Array {
  return Float64Array.from({ length: rows * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    let squares = 0;
    for (let k = 0; k < depth; k++) squares += (a(row, k) * b(column, k)) ** 2;
    return factor * deviations * halfStep * Math.sqrt((squares * 2) / 3);
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
