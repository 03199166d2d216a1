import { ArgumentError, ShapeError } from '../core/errors.js';
import { formatType, type TensorType } from '../core/tensor.js';
import { expectEqual, expectFloat, expectRank, need, type OpDefinition } from './definition.js';
import type { ConvPadding, OpParams } from './params.js';
import { partialsOf, tileCounts, tileFolds } from './tile-tree.js';

const paddings: readonly ConvPadding[] = ['valid', 'same', 'full'];

/** Everything that a convolution's loops run over. */
export interface ConvGeometry {
  readonly batch: number;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly outChannels: number;
  readonly kernelHeight: number;
  readonly kernelWidth: number;
  readonly stride: number;
  /** Rows and columns of zeros before the input. */
  readonly top: number;
  readonly left: number;
  readonly outHeight: number;
  readonly outWidth: number;
}

/** Places along one axis, and zeros before the first element. */
function along(size: number, kernel: number, stride: number, padding: ConvPadding): readonly [out: number, before: number] {
  if (padding === 'valid') return [Math.floor((size - kernel) / stride) + 1, 0];
  if (padding === 'full') return [Math.floor((size + kernel - 2) / stride) + 1, kernel - 1];
  const out = Math.ceil(size / stride);
  return [out, Math.floor(Math.max(0, (out - 1) * stride + kernel - size) / 2)];
}

/** Of an input [C, H, W] or [N, C, H, W] and a kernel [C_out, C, h, w] that fit. */
export function convGeometry(input: TensorType['shape'], kernel: TensorType['shape'], { stride, padding }: OpParams['conv2d']): ConvGeometry {
  const [batch = 1, channels = 1, height = 1, width = 1] = input.length === 3 ? [1, ...input] : input;
  const [outChannels = 1, , kernelHeight = 1, kernelWidth = 1] = kernel;
  const [outHeight, top] = along(height, kernelHeight, stride, padding);
  const [outWidth, left] = along(width, kernelWidth, stride, padding);
  return { batch, channels, height, width, outChannels, kernelHeight, kernelWidth, stride, top, left, outHeight, outWidth };
}

/**
 * Cross-correlation (the kernel is not turned): input f32 [C, H, W] or [N, C, H, W], kernel f32 [C_out, C, h, w], output [C_out, H', W'] or [N, C_out, H', W'].
 * y[o, r, c] = sum over i, u, v of x[i, r stride + u - top, c stride + v - left] k[o, i, u, v], zero outside the input. `same` puts the odd zero behind.
 */
const conv2d: OpDefinition<'conv2d'> = {
  arity: 2,
  type([input, kernel], params) {
    const [x, k] = [need(input), need(kernel)];
    expectFloat('conv2d', 'the input', x);
    expectFloat('conv2d', 'the kernel', k);
    if (x.shape.length !== 3 && x.shape.length !== 4) throw new ShapeError(`conv2d: the input must be [C, H, W] or [N, C, H, W], got ${formatType(x)}`);
    expectRank('conv2d', 'the kernel', k, 4);
    expectEqual('conv2d', 'channels of the kernel', k.shape[1], x.shape.at(-3));
    if (!(Number.isInteger(params.stride) && params.stride >= 1))
      throw new ShapeError(`conv2d: the stride must be a whole number from 1, got ${params.stride}`);
    if (!paddings.includes(params.padding))
      throw new ArgumentError('padding', `conv2d: the padding is one of ${paddings.join(', ')}, got ${String(params.padding)}`);
    const { batch, outChannels, outHeight, outWidth } = convGeometry(x.shape, k.shape, params);
    if (outHeight < 1 || outWidth < 1) throw new ShapeError(`conv2d: the kernel ${formatType(k)} does not fit into ${formatType(x)} without padding`);
    return { dtype: 'f32', shape: [...(x.shape.length === 4 ? [batch] : []), outChannels, outHeight, outWidth] };
  },
  reference([input, kernel], params) {
    const [x, k] = [need(input), need(kernel)];
    const g = convGeometry(x.shape, k.shape, params);
    return convolve(x.data, k.data, g, new Float64Array(g.batch * g.outChannels * g.outHeight * g.outWidth));
  },
};

/** The sums of a convolution, in f64 whatever the arrays. */
export function convolve<T extends Float32Array | Float64Array>(x: ArrayLike<number>, kernel: ArrayLike<number>, g: ConvGeometry, y: T): T {
  let at = 0;
  for (let n = 0; n < g.batch; n++) {
    for (let o = 0; o < g.outChannels; o++) {
      for (let r = 0; r < g.outHeight; r++) {
        for (let c = 0; c < g.outWidth; c++) y[at++] = place(x, kernel, g, n, o, r * g.stride - g.top, c * g.stride - g.left);
      }
    }
  }
  return y;
}

function place(x: ArrayLike<number>, kernel: ArrayLike<number>, g: ConvGeometry, n: number, o: number, top: number, left: number): number {
  const [firstRow, lastRow] = [Math.max(0, -top), Math.min(g.kernelHeight, g.height - top)];
  const [firstColumn, lastColumn] = [Math.max(0, -left), Math.min(g.kernelWidth, g.width - left)];
  let sum = 0;
  for (let i = 0; i < g.channels; i++) {
    for (let u = firstRow; u < lastRow; u++) {
      const row = ((n * g.channels + i) * g.height + top + u) * g.width + left;
      const weights = ((o * g.channels + i) * g.kernelHeight + u) * g.kernelWidth;
      for (let v = firstColumn; v < lastColumn; v++) sum += (x[row + v] ?? 0) * (kernel[weights + v] ?? 0);
    }
  }
  return sum;
}

/** Sum, maximum or minimum of every 16 x 16 tile, in the order of a fixed tree: x f32 [H, W], y f32 [ceil(H / 16), ceil(W / 16)]. Maxima and minima pass over NaN. */
const tileReduce: OpDefinition<'tileReduce'> = {
  arity: 1,
  type([x]) {
    const input = need(x);
    expectFloat('tileReduce', 'x', input);
    expectRank('tileReduce', 'x', input, 2);
    return { dtype: 'f32', shape: tileCounts(input.shape[0] ?? 0, input.shape[1] ?? 0) };
  },
  reference([x], { fn }, output) {
    const { shape, data } = need(x);
    return partialsOf(
      tileFolds[fn],
      data,
      shape[0] ?? 0,
      shape[1] ?? 0,
      new Float64Array((output.shape[0] ?? 0) * (output.shape[1] ?? 0)),
      new Float64Array(256),
    );
  },
};

export const convOps = { conv2d, tileReduce };
