import { dtypes } from '../core/dtype.js';
import { ShapeError } from '../core/errors.js';
import { byteLengthOfType, formatType, type TensorType } from '../core/tensor.js';
import type { PackedWrite, Target, WeightStore } from '../ops/target.js';
import { blockFormats, groupBytes, groupRows, isPackedType, type PackedType } from './formats.js';
import type { CpuKernel } from './kernel.js';
import { cpuAlignment, cpuMaxBytes } from './memory.js';
import { packRows } from './pack.js';
import { advance, attention, lastRow, rope } from './rules/attention.js';
import { cacheWrite } from './rules/cache.js';
import { decodeRules } from './rules/decode.js';
import { binary, swiglu, unary } from './rules/elementwise.js';
import { gatherRows, linear } from './rules/linear.js';
import { matmul } from './rules/matmul.js';
import { concat, conv2d, cumsum, expand, gather, permute, slice, stridedView, tileReduce, topK } from './rules/movement.js';
import { argmax, rmsNorm } from './rules/normalization.js';
import { dot, layerNorm, logSoftmax, reduce, softmax } from './rules/reduce.js';
import { redraw } from './rules/sampling.js';
import { cast, compare, region, where } from './rules/tensor.js';

/** Columns of a matrix of a packed type; undefined for whatever is stored as it is. */
function packedColumns(type: TensorType): { readonly dtype: PackedType; readonly columns: number } | undefined {
  if (!isPackedType(type.dtype)) return undefined;
  const columns = type.shape.at(-1) ?? 0;
  const { block } = dtypes[type.dtype];
  if (type.shape.length !== 2 || columns % block !== 0) {
    throw new ShapeError(`a packed weight is a matrix with a multiple of ${block} columns, got ${formatType(type)}`);
  }
  return { dtype: type.dtype, columns };
}

/** Packed matrices in interleaved groups of rows (formats.ts), all else as it comes. One shard: linear memory knows no binding limit. */
const weights: WeightStore = {
  rowGroup: groupRows,
  shards: (type) => [{ start: 0, rows: type.shape[0] ?? 1 }],
  byteLength(type) {
    const packed = packedColumns(type);
    if (packed === undefined) return byteLengthOfType(type);
    return Math.ceil((type.shape[0] ?? 0) / groupRows) * groupBytes(blockFormats[packed.dtype], packed.columns);
  },
  pack(type, firstRow, rows): readonly PackedWrite[] {
    const packed = packedColumns(type);
    if (packed === undefined) return [{ offset: (firstRow * byteLengthOfType(type)) / (type.shape[0] ?? 1), bytes: rows }];
    if (firstRow % groupRows !== 0)
      throw new ShapeError(`rows of a packed weight are written from multiples of ${groupRows}, got row ${firstRow} of ${formatType(type)}`);
    return [{ offset: (firstRow / groupRows) * groupBytes(blockFormats[packed.dtype], packed.columns), bytes: packRows(packed.dtype, packed.columns, rows) }];
  },
};

/** How the CPU backend runs every operation: WebAssembly SIMD for products, attention and gates, plain loops for the rest. */
export function cpuTarget(): Target<CpuKernel> {
  return {
    name: 'cpu',
    memory: {
      alignment: cpuAlignment,
      maxBindingBytes: cpuMaxBytes,
      maxBankBytes: cpuMaxBytes - cpuAlignment,
      maxBindings: Number.POSITIVE_INFINITY,
      maxGrid: Number.POSITIVE_INFINITY,
      exclusiveBuffers: false,
    },
    weights,
    rules: {
      unary,
      binary,
      swiglu,
      gatherRows,
      lastRow,
      linear,
      rmsNorm,
      rope,
      cacheWrite,
      attention,
      argmax,
      matmul,
      reduce,
      dot,
      softmax,
      logSoftmax,
      layerNorm,
      region,
      compare,
      where,
      cast,
      concat,
      gather,
      permute,
      expand,
      slice,
      strided: stridedView,
      topK,
      cumsum,
      conv2d,
      tileReduce,
      advance,
      redraw,
      ...decodeRules,
    },
  };
}
