import { ShapeError } from '../core/errors.js';
import { formatType, sameShape } from '../core/tensor.js';
import { expectEqual, expectFloat, expectRank, expectScalar, need, type OpDefinition } from './definition.js';
import { regionOps } from './region.js';

/** Inputs of an epilogue beyond the product: with a, b and y they fill the bindings that every device has. */
export const maxEpilogueInputs = 5;

/**
 * y = alpha A B: a f32 [M, K] (or [K, M] with `transposeA`), b f32 [K, N] (or [N, K] with `transposeB`), y f32 [M, N]; all row-major. With an `epilogue`, y is the value of its last step, over
 * the product and further inputs f32 that broadcast to [M, N].
 */
const matmul: OpDefinition<'matmul'> = {
  arity: [2, 2 + maxEpilogueInputs],
  type([a, b, ...extras], { transposeA, transposeB, alpha, epilogue }) {
    const [x, y] = [need(a), need(b)];
    expectScalar('matmul', 'alpha', alpha);
    expectFloat('matmul', 'a', x);
    expectFloat('matmul', 'b', y);
    expectRank('matmul', 'a', x, 2);
    expectRank('matmul', 'b', y, 2);
    const [m = 0, depth = 0] = transposeA ? x.shape.toReversed() : x.shape;
    const [k = 0, n = 0] = transposeB ? y.shape.toReversed() : y.shape;
    expectEqual('matmul', `the depth of b (axis ${transposeB ? 1 : 0})`, k, depth);
    const product = { dtype: 'f32', shape: [m, n] } as const;
    if (epilogue === undefined) {
      expectEqual('matmul', 'number of inputs', extras.length, 0);
      return product;
    }
    for (const [i, extra] of extras.entries()) expectFloat('matmul', `input ${i + 1} of the epilogue`, extra);
    const type = regionOps.region.type([product, ...extras], { steps: epilogue });
    if (type.dtype !== 'f32' || !sameShape(type.shape, product.shape))
      throw new ShapeError(`matmul: the epilogue of ${formatType(product)} gives ${formatType(type)}`);
    return type;
  },
  reference([a, b, ...extras], { transposeA, transposeB, alpha, epilogue }, output) {
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
    return epilogue === undefined ? result : regionOps.region.reference([{ shape: output.shape, data: result }, ...extras], { steps: epilogue }, output);
  },
};

export const matmulOps = { matmul };
