import { ShapeError } from '../core/errors.js';
import { elementCount, formatType } from '../core/tensor.js';
import { expectEqual, expectFloat, expectRank, expectScalar, need, type OpDefinition } from './definition.js';

/**
 * y[t, n] = sum_k x[t, k] w[n, k] (+ bias[n]) (+ residual[t, n]): x f32 [T, K], w any type [N, K] row-major, y f32 [T, N].
 * Inputs in order: x, w, then bias [N] and residual [T, N] where the parameters say so.
 */
const linear: OpDefinition<'linear'> = {
  arity: [2, 4],
  type([x, w, ...rest], params) {
    const [input, weight] = [need(x), need(w)];
    expectRank('linear', 'x', input, 2);
    expectFloat('linear', 'x', input);
    expectRank('linear', 'the weight', weight, 2);
    expectEqual('linear', 'columns of x', input.shape[1], weight.shape[1]);
    expectEqual('linear', 'number of inputs', rest.length, Number(params.bias) + Number(params.residual));
    const output = [input.shape[0] ?? 0, weight.shape[0] ?? 0];
    if (params.bias) {
      const bias = need(rest[0]);
      expectFloat('linear', 'bias', bias);
      expectEqual('linear', 'length of bias', elementCount(bias.shape), output[1]);
    }
    if (params.residual) {
      const residual = need(rest[params.bias ? 1 : 0]);
      expectFloat('linear', 'residual', residual);
      expectRank('linear', 'residual', residual, 2);
      expectEqual('linear', 'rows of residual', residual.shape[0], output[0]);
      expectEqual('linear', 'columns of residual', residual.shape[1], output[1]);
    }
    return { dtype: 'f32', shape: output };
  },
  reference([x, w, ...rest], params) {
    const [input, weight] = [need(x), need(w)];
    const [rows, columns, depth] = [input.shape[0] ?? 0, weight.shape[0] ?? 0, input.shape[1] ?? 0];
    const bias = params.bias ? need(rest[0]).data : undefined;
    const residual = params.residual ? need(rest[params.bias ? 1 : 0]).data : undefined;
    const y = new Float64Array(rows * columns);
    for (let t = 0; t < rows; t++) {
      for (let n = 0; n < columns; n++) {
        let sum = (bias?.[n] ?? 0) + (residual?.[t * columns + n] ?? 0);
        for (let k = 0; k < depth; k++) sum += (input.data[t * depth + k] ?? 0) * (weight.data[n * depth + k] ?? 0);
        y[t * columns + n] = sum;
      }
    }
    return y;
  },
};

/** y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * gain: x f32 [T, D] or [T, H, D] (each head on its own), gain f32 [D]. */
const rmsNorm: OpDefinition<'rmsNorm'> = {
  arity: 2,
  type([x, gain], { eps }) {
    const [input, weight] = [need(x), need(gain)];
    expectScalar('rmsNorm', 'eps', eps, 0);
    expectFloat('rmsNorm', 'x', input);
    expectFloat('rmsNorm', 'gain', weight);
    expectEqual('rmsNorm', 'length of gain', elementCount(weight.shape), input.shape.at(-1));
    return input;
  },
  reference([x, gain], { eps }) {
    const [input, weight] = [need(x), need(gain)];
    const width = weight.data.length;
    const y = new Float64Array(input.data.length);
    for (let row = 0; row < y.length; row += width) {
      const values = input.data.subarray(row, row + width);
      const scale = 1 / Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / width + eps);
      for (let i = 0; i < width; i++) y[row + i] = (values[i] ?? 0) * scale * (weight.data[i] ?? 0);
    }
    return y;
  },
};

/** y[t] = table[ids[t]]: table any type [V, D], ids u32 [T], y f32 [T, D]. Ids are checked where they are made: kernels trust them. */
const gatherRows: OpDefinition<'gatherRows'> = {
  arity: 2,
  type([table, ids]) {
    const [rows, index] = [need(table), need(ids)];
    expectRank('gatherRows', 'the table', rows, 2);
    expectRank('gatherRows', 'ids', index, 1);
    if (index.dtype !== 'u32') throw new ShapeError(`gatherRows: ids must be u32, got ${formatType(index)}`);
    return { dtype: 'f32', shape: [index.shape[0] ?? 0, rows.shape[1] ?? 0] };
  },
  reference([table, ids]) {
    const [rows, index] = [need(table), need(ids)];
    const width = rows.shape[1] ?? 0;
    const y = new Float64Array(index.data.length * width);
    index.data.forEach((id, t) => {
      y.set(rows.data.subarray(id * width, (id + 1) * width), t * width);
    });
    return y;
  },
};

/** y[r] = index of the largest of x[r], the lowest where several are equal; NaN is never chosen unless all are: x f32 [R, V], y u32 [R]. */
const argmax: OpDefinition<'argmax'> = {
  arity: 1,
  type([x]) {
    const input = need(x);
    expectRank('argmax', 'x', input, 2);
    expectFloat('argmax', 'x', input);
    return { dtype: 'u32', shape: [input.shape[0] ?? 0] };
  },
  reference([x]) {
    const { shape, data } = need(x);
    const width = shape[1] ?? 0;
    return Float64Array.from({ length: shape[0] ?? 0 }, (_, row) => {
      let best = 0;
      for (let i = 1; i < width; i++) {
        const [value, champion] = [data[row * width + i] ?? Number.NaN, data[row * width + best] ?? Number.NaN];
        if (value > champion || (Number.isNaN(champion) && !Number.isNaN(value))) best = i;
      }
      return best;
    });
  },
};

export const linearOps = { linear, rmsNorm, gatherRows, argmax };
