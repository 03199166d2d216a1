import type { DType } from '../../core/dtype.js';
import { UnsupportedError } from '../../core/errors.js';
import { elementCount } from '../../core/tensor.js';
import type { LoweringContext, LoweringRule, TensorRef } from '../../ops/target.js';
import { bfloatToFloat, halfToFloat } from '../../quant/index.js';
import { type BlockFormat, blockFormats, groupBytes, groupRows, isPackedType, packedTypes } from '../formats.js';
import type { CpuContext, CpuKernel } from '../kernel.js';
import { quantizeActivations, streamBytes } from '../kernels/activations.js';
import { type FloatType, floatBytes, floatProduct } from '../kernels/float-product.js';
import { packedProduct } from '../kernels/packed-product.js';
import { unpackRow } from '../pack.js';
import { axisOf, cpuStep, inputOf } from '../step.js';

/** Tokens that share a load of the weights. */
const tileTokens = 4;
/** Tiles of one pass over the weights: 64 tokens' activations stay in the second-level cache. */
const passTiles = 16;

/** Token tiles of T rows: whole ones, then one of the rest. */
function tilesOf(tokens: number): { readonly size: number; readonly first: number; readonly count: number }[] {
  const whole = Math.floor(tokens / tileTokens);
  const rest = tokens % tileTokens;
  return [...(whole > 0 ? [{ size: tileTokens, first: 0, count: whole }] : []), ...(rest > 0 ? [{ size: rest, first: whole * tileTokens, count: 1 }] : [])];
}

function isFloatType(dtype: string): dtype is FloatType {
  return Object.hasOwn(floatBytes, dtype);
}

function unsupported(label: string, dtype: DType): UnsupportedError {
  const types = [...Object.keys(floatBytes), ...packedTypes].join(', ');
  return new UnsupportedError(`${label}: the CPU backend reads matrices of ${types}, got ${dtype}; convert the model to one of these types`);
}

export const linear: LoweringRule<'linear', CpuKernel> = (node, context) => {
  const [x, w] = [inputOf(node, 0), inputOf(node, 1)];
  const added = node.inputs.slice(2);
  const { dtype } = w.type;
  const terms = { bias: node.params.bias, residual: node.params.residual };
  const [tokens, columns, rows] = [axisOf(x, 0), axisOf(x, 1), axisOf(w, 0)];
  const extra = added.map((ref) => [ref, 'read'] as const);
  if (isFloatType(dtype)) return [cpuStep(node, floatLinear(dtype, tokens, rows, columns, terms), [x, 'read'], [w, 'read'], [node.output, 'write'], ...extra)];
  if (!isPackedType(dtype)) {
    throw unsupported(node.label, dtype);
  }
  const format = blockFormats[dtype];
  const stream = context.scratch({ dtype: 'u8', shape: [streamBytes(format.unit, columns, tokens)] });
  const tail = tailOf(rows, tokens, context);
  return [
    cpuStep(node, quantize(format.unit, tokens, columns), [x, 'read'], [stream, 'write']),
    cpuStep(
      node,
      packedLinear(format, tokens, rows, columns, terms),
      [stream, 'read'],
      [w, 'read'],
      [node.output, 'write'],
      ...extra,
      ...(tail === undefined ? [] : [[tail, 'write'] as const]),
    ),
  ];
};

/** Where the products of a last, partial group of rows go before the real ones are copied. */
function tailOf(rows: number, tokens: number, context: LoweringContext): TensorRef | undefined {
  return rows % groupRows === 0 ? undefined : context.scratch({ dtype: 'f32', shape: [tokens, groupRows] });
}

function quantize(unit: 16 | 32, tokens: number, columns: number): CpuKernel {
  const tiles = tilesOf(tokens).map((tile) => ({ ...tile, program: quantizeActivations(unit, columns, tile.size) }));
  return {
    key: `quantize:${unit},${tokens},${columns}`,
    family: 'quantize activations',
    programs: tiles.map((tile) => tile.program),
    bind(context) {
      const [x, stream] = [context.address(0), context.address(1)];
      const calls = tiles.map(({ program, first, count }) => ({
        compiled: context.compiled(program),
        from: x + first * columns * 4,
        to: stream + streamBytes(unit, columns, first),
        count,
      }));
      return () => {
        for (const { compiled, from, to, count } of calls) compiled(from, to, count);
      };
    },
  };
}

interface Terms {
  readonly bias: boolean;
  readonly residual: boolean;
}

/** One call of a product program. */
interface ProductCall {
  readonly compiled: (...values: number[]) => void;
  readonly weights: number;
  readonly x: number;
  readonly y: number;
  readonly groups: number;
  readonly tiles: number;
  readonly stride: number;
}

function runAll(calls: readonly ProductCall[]): void {
  for (const { compiled, weights, x, y, groups, tiles, stride } of calls) compiled(weights, x, y, groups, tiles, stride);
}

function packedLinear(format: BlockFormat, tokens: number, rows: number, columns: number, terms: Terms): CpuKernel {
  const tiles = tilesOf(tokens).map((tile) => ({ ...tile, program: packedProduct(format, columns, tile.size) }));
  const [groups, rest] = [Math.floor(rows / groupRows), rows % groupRows];
  return {
    key: `packedLinear:${format.dtype},${tokens},${rows},${columns},${terms.bias},${terms.residual}`,
    family: `linear ${format.dtype}`,
    programs: tiles.map((tile) => tile.program),
    bind(context) {
      const [stream, weights, y] = [context.address(0), context.address(1), context.address(2)];
      const tailArg = 3 + Number(terms.bias) + Number(terms.residual);
      const calls: ProductCall[] = [];
      for (const { program, size, first, count } of tiles) {
        const compiled = context.compiled(program);
        for (let tile = 0; tile < count; tile += passTiles) {
          const token = first + tile * size;
          const call = { compiled, x: stream + streamBytes(format.unit, columns, token), tiles: Math.min(passTiles, count - tile) };
          if (groups > 0) calls.push({ ...call, weights, y: y + token * rows * 4, groups, stride: rows * 4 });
          if (rest > 0) {
            const tail = context.address(tailArg) + token * groupRows * 4;
            calls.push({ ...call, weights: weights + groups * groupBytes(format, columns), y: tail, groups: 1, stride: groupRows * 4 });
          }
        }
      }
      const copyTail = rest === 0 ? undefined : tailCopier(context.f32(tailArg), context.f32(2), tokens, rows, rest);
      const add = adder(context, tokens, rows, terms);
      return () => {
        runAll(calls);
        copyTail?.();
        add?.();
      };
    },
  };
}

function tailCopier(tail: Float32Array, y: Float32Array, tokens: number, rows: number, rest: number): () => void {
  return () => {
    for (let t = 0; t < tokens; t++) {
      for (let i = 0; i < rest; i++) y[(t + 1) * rows - rest + i] = tail[t * groupRows + i] ?? Number.NaN;
    }
  };
}

/** Adds bias and residual (arguments 3 and on) to y (argument 2). */
function adder(context: CpuContext, tokens: number, rows: number, terms: Terms): (() => void) | undefined {
  if (!terms.bias && !terms.residual) return undefined;
  const y = context.f32(2);
  const bias = terms.bias ? context.f32(3) : undefined;
  const residual = terms.residual ? context.f32(terms.bias ? 4 : 3) : undefined;
  return () => {
    if (bias !== undefined) {
      for (let t = 0; t < tokens; t++) {
        for (let n = 0; n < rows; n++) y[t * rows + n] = (y[t * rows + n] ?? 0) + (bias[n] ?? 0);
      }
    }
    if (residual !== undefined) {
      for (let i = 0; i < tokens * rows; i++) y[i] = (y[i] ?? 0) + (residual[i] ?? 0);
    }
  };
}

/** Row groups of a plain weight: many tokens share 2 decoded rows, one token reads 4 rows. */
function floatLinear(dtype: FloatType, tokens: number, rows: number, columns: number, terms: Terms): CpuKernel {
  const tiles = tilesOf(tokens).flatMap((tile) => {
    const size = tile.size > 2 ? 2 : 4;
    const [groups, rest] = [Math.floor(rows / size), rows % size];
    return [
      ...(groups > 0 ? [{ ...tile, row: 0, groups, program: floatProduct(dtype, columns, size, tile.size) }] : []),
      ...(rest > 0 ? [{ ...tile, row: rows - rest, groups: rest, program: floatProduct(dtype, columns, 1, tile.size) }] : []),
    ];
  });
  return {
    key: `floatLinear:${dtype},${tokens},${rows},${columns},${terms.bias},${terms.residual}`,
    family: `linear ${dtype}`,
    programs: tiles.map((tile) => tile.program),
    bind(context) {
      const [x, weights, y] = [context.address(0), context.address(1), context.address(2)];
      const calls = tiles.map(
        ({ program, row, groups, first, count }): ProductCall => ({
          compiled: context.compiled(program),
          weights: weights + row * columns * floatBytes[dtype],
          x: x + first * columns * 4,
          y: y + (first * rows + row) * 4,
          groups,
          tiles: count,
          stride: rows * 4,
        }),
      );
      const add = adder(context, tokens, rows, terms);
      return () => {
        runAll(calls);
        add?.();
      };
    },
  };
}

export const gatherRows: LoweringRule<'gatherRows', CpuKernel> = (node) => {
  const [table, ids] = [inputOf(node, 0), inputOf(node, 1)];
  const kernel = gather(node.label, table, elementCount(ids.type.shape));
  return [cpuStep(node, kernel, [table, 'read'], [ids, 'read'], [node.output, 'write'])];
};

function gather(label: string, table: TensorRef, count: number): CpuKernel {
  const { dtype } = table.type;
  const columns = axisOf(table, 1);
  const read = rowReader(label, table, columns);
  return {
    key: `gather:${dtype},${columns},${count}`,
    family: `gather ${dtype}`,
    programs: [],
    bind(context) {
      const [ids, y] = [context.u32(1), context.f32(2)];
      const copy = read(context);
      return () => {
        for (let t = 0; t < count; t++) copy(ids[t] ?? 0, y, t * columns);
      };
    },
  };
}

type RowCopy = (row: number, out: Float32Array, to: number) => void;

function rowReader(label: string, table: TensorRef, columns: number): (context: CpuContext) => RowCopy {
  const { dtype } = table.type;
  if (isPackedType(dtype)) {
    return (context) => {
      const storage = context.u8(0);
      return (row, out, to) => unpackRow(dtype, columns, storage, row, out, to);
    };
  }
  switch (dtype) {
    case 'f32':
      return (context) => {
        const values = context.f32(0);
        return (row, out, to) => out.set(values.subarray(row * columns, (row + 1) * columns), to);
      };
    case 'f16':
    case 'bf16': {
      const decode = dtype === 'f16' ? halfToFloat : bfloatToFloat;
      return (context) => {
        const values = context.u16(0);
        return (row, out, to) => {
          for (let i = 0; i < columns; i++) out[to + i] = decode(values[row * columns + i] ?? 0);
        };
      };
    }
    default:
      throw unsupported(label, dtype);
  }
}
