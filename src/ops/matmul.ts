import { expectEqual, expectFloat, expectRank, need, type OpDefinition } from './definition.js';

/**
 * y = alpha A B: a f32 [M, K] (or [K, M] with `transposeA`), b f32 [K, N] (or [N, K] with `transposeB`), y f32 [M, N]; all row-major.
 */
const matmul: OpDefinition<'matmul'> = {
  arity: 2,
  type([a, b], { transposeA, transposeB }) {
    const [x, y] = [need(a), need(b)];
    expectFloat('matmul', 'a', x);
    expectFloat('matmul', 'b', y);
    expectRank('matmul', 'a', x, 2);
    expectRank('matmul', 'b', y, 2);
    const [m = 0, depth = 0] = transposeA ? x.shape.toReversed() : x.shape;
    const [k = 0, n = 0] = transposeB ? y.shape.toReversed() : y.shape;
    expectEqual('matmul', `the depth of b (axis ${transposeB ? 1 : 0})`, k, depth);
    return { dtype: 'f32', shape: [m, n] };
  },
  reference([a, b], { transposeA, transposeB, alpha }, output) {
    const [x, y] = [need(a), need(b)];
    const [m = 0, n = 0] = output.shape;
    const depth = x.shape[transposeA ? 0 : 1] ?? 0;
    const [rowA, stepA] = transposeA ? [1, m] : [depth, 1];
    const [columnB, stepB] = transposeB ? [depth, 1] : [1, n];
    const result = new Float64Array(m * n);
    for (let row = 0; row < m; row++) {
      for (let column = 0; column < n; column++) {
        let sum = 0;
        for (let k = 0; k < depth; k++) sum += (x.data[row * rowA + k * stepA] ?? 0) * (y.data[column * columnB + k * stepB] ?? 0);
        result[row * n + column] = alpha * sum;
      }
    }
    return result;
  },
};

export const matmulOps = { matmul };
