/** The names of all operations and the parameters of each. Shapes of inputs and outputs stand with the definitions (elementwise.ts, linear.ts, ...). */

export type UnaryFunction =
  | 'silu'
  | 'relu'
  | 'leakyRelu'
  | 'elu'
  | 'clip'
  | 'sigmoid'
  | 'tanh'
  | 'gelu'
  | 'geluErf'
  | 'exp'
  | 'log'
  | 'sqrt'
  | 'rsqrt'
  | 'neg'
  | 'abs'
  | 'scale'
  | 'square'
  | 'reciprocal'
  | 'sin'
  | 'cos'
  | 'tan'
  | 'atan'
  | 'round';

export type BinaryFunction = 'add' | 'sub' | 'mul' | 'div' | 'max' | 'min' | 'pow';

/** How `reduce` joins elements: a sum, its mean, the largest or smallest (NaN where there is one), the product. */
export type ReduceFunction = 'sum' | 'mean' | 'max' | 'min' | 'prod';

export type CompareFunction = 'eq' | 'ne' | 'lt' | 'le' | 'gt' | 'ge';

/** What a step of a region reads: an input of the region, an earlier step, or a number. */
export type RegionOperand = { readonly input: number } | { readonly step: number } | { readonly value: number };

export type RegionStep =
  | { readonly op: 'unary'; readonly fn: UnaryFunction; readonly a?: number; readonly b?: number; readonly x: RegionOperand }
  | { readonly op: 'binary'; readonly fn: BinaryFunction; readonly x: RegionOperand; readonly y: RegionOperand }
  | { readonly op: 'compare'; readonly fn: CompareFunction; readonly x: RegionOperand; readonly y: RegionOperand }
  | { readonly op: 'where'; readonly condition: RegionOperand; readonly x: RegionOperand; readonly y: RegionOperand };

/** Where a kernel may hang over its input: nowhere, so far that the output has ceil(input / stride) places, or wherever one element meets. */
export type ConvPadding = 'valid' | 'same' | 'full';

/** Which two elements of a head RoPE rotates together: neighbours (2i, 2i+1), or i and i + rotated/2. */
export type RopePairing = 'adjacent' | 'halves';

/** The parameters of every operation; what it computes is at its definition in `ops/`. */
export interface OpParams {
  /** A value that the caller writes before a run. */
  input: { readonly name: string };
  /** A weight; packed ones keep their block type. */
  param: { readonly name: string };
  /** A tensor that outlives a run and that operations may update in place (KV cache, session state). */
  state: { readonly name: string };
  constant: { readonly values: readonly number[] };

  unary: { readonly fn: UnaryFunction; readonly a?: number; readonly b?: number };
  binary: { readonly fn: BinaryFunction };
  swiglu: Record<never, never>;

  reshape: { readonly shape: readonly number[] };
  /** Rows [start, start + length) of axis 0. */
  narrow: { readonly start: number; readonly length: number };

  gatherRows: Record<never, never>;
  lastRow: Record<never, never>;
  /**
   * `rounded`: the caller takes x rounded to f16 or to 8-bit integers where that is faster, as models do. Otherwise x is used in f32.
   */
  linear: { readonly bias: boolean; readonly residual: boolean; readonly rounded?: true };
  rmsNorm: { readonly eps: number };
  rope: { readonly pairing: RopePairing };
  cacheWrite: Record<never, never>;
  /** `window`: positions that a row sees at most, its own included (sliding window). `softcap`: scores s become softcap tanh(s / softcap). */
  attention: { readonly scale: number; readonly window?: number; readonly softcap?: number };
  argmax: Record<never, never>;

  /** `rounded`: the caller takes a and b rounded to f16 where that is faster. `epilogue`: steps over the product (input 0) and the further inputs (1 and on), made by the rewriter. */
  matmul: {
    readonly transposeA: boolean;
    readonly transposeB: boolean;
    readonly alpha: number;
    readonly rounded?: true;
    readonly epilogue?: readonly RegionStep[];
  };

  /** `axes` ascending, counted from 0; with `keepDims` they stay as axes of size 1. */
  reduce: { readonly fn: ReduceFunction; readonly axes: readonly number[]; readonly keepDims: boolean };
  dot: Record<never, never>;
  softmax: { readonly axis: number };
  logSoftmax: { readonly axis: number };
  layerNorm: { readonly eps: number };
  region: { readonly steps: readonly RegionStep[] };

  compare: { readonly fn: CompareFunction };
  where: Record<never, never>;
  cast: { readonly to: 'f32' | 'i32' | 'u32' };
  concat: { readonly axis: number };
  gather: { readonly axis: number };
  permute: { readonly perm: readonly number[] };
  expand: { readonly shape: readonly number[] };
  /** Elements start, start + step, ... of one axis, `length` of them; the step may be negative. */
  slice: { readonly axis: number; readonly start: number; readonly length: number; readonly step: number };
  /** The element at [i0, i1, ...] is x's at offset + i0 strides[0] + i1 strides[1] + ..., x counted as one row; strides may be 0 or negative. */
  strided: { readonly shape: readonly number[]; readonly strides: readonly number[]; readonly offset: number };
  topK: { readonly k: number; readonly output: 'values' | 'indices' };
  cumsum: { readonly axis: number; readonly exclusive: boolean };
  conv2d: { readonly stride: number; readonly padding: ConvPadding };
  tileReduce: { readonly fn: 'sum' | 'max' | 'min' };

  advance: Record<never, never>;

  tokenLinear: { readonly eps?: number; readonly bias: boolean; readonly residual: boolean };
  qkv: { readonly eps: number; readonly biases: boolean };
  gatedProduct: { readonly eps: number };
  attendToken: { readonly scale: number; readonly pairing: RopePairing; readonly eps?: number; readonly window: number };
  chooseNext: Record<never, never>;
  redraw: Record<never, never>;
}

/** Every operation of the op table. */
export type OpName = keyof OpParams;

/** Operations that hold a value rather than compute one. */
export type LeafOp = 'input' | 'param' | 'state' | 'constant';

/** Operations whose output is a window onto their input: no step, no storage. */
export type ViewOp = 'reshape' | 'narrow';

/** Operations that a target has to lower to steps. */
export type ComputeOp = Exclude<OpName, LeafOp | ViewOp>;
