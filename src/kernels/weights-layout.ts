import { type DType, dtypes } from '../core/dtype.js';
import { UnsupportedError } from '../core/errors.js';
import { elementCount, formatType, roundUp, type TensorType } from '../core/tensor.js';

/** Part of a weight's storage: `bytes` for every `weights` consecutive weights of a row. */
interface PlaneSpec {
  readonly name: PlaneName;
  readonly bytes: number;
  readonly weights: number;
}

/**
 * What a plane holds.
 * - `quants`: 32 weights in 16 bytes: byte i has weight i in its low nibble and weight i + 16 in its high one (q8_0: 32 signed bytes in order)
 * - `high`: the bits above the nibble. One bit (q5): bit 8 b + k of a word belongs to weight 4 k + b. Two bits (q6): bits 8 b + 2 k of word h belong to weight 16 h + 4 k + b
 * - `scale`: f16 scale, or f16 scale and f16 minimum (q4_1, q5_1)
 * - `header`: f16 d, f16 dmin and 12 bytes of 6-bit scales and minimums, as in ggml's block
 * - `scales`: one signed byte for each 16 weights
 */
export type PlaneName = 'values' | 'quants' | 'high' | 'scale' | 'header' | 'scales';

const plane = (name: PlaneName, bytes: number, weights: number): PlaneSpec => ({ name, bytes, weights });

const blockPlanes = {
  q8_0: [plane('quants', 32, 32), plane('scale', 2, 32)],
  q4_0: [plane('quants', 16, 32), plane('scale', 2, 32)],
  q4_1: [plane('quants', 16, 32), plane('scale', 4, 32)],
  q5_0: [plane('quants', 16, 32), plane('high', 4, 32), plane('scale', 2, 32)],
  q5_1: [plane('quants', 16, 32), plane('high', 4, 32), plane('scale', 4, 32)],
  q4_k: [plane('quants', 16, 32), plane('header', 16, 256)],
  q5_k: [plane('quants', 16, 32), plane('high', 4, 32), plane('header', 16, 256)],
  q6_k: [plane('quants', 16, 32), plane('high', 8, 32), plane('scales', 16, 256), plane('scale', 2, 256)],
} as const satisfies Partial<Record<DType, readonly PlaneSpec[]>>;

const plainBytes = { f32: 4, u32: 4, i32: 4, f16: 2, bf16: 2 } as const satisfies Partial<Record<DType, number>>;

export type BlockType = keyof typeof blockPlanes;
export type PlainType = keyof typeof plainBytes;

/** Element types that the GPU target multiplies and gathers. */
export const weightTypes = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1', 'q4_k', 'q5_k', 'q6_k'] as const satisfies readonly DType[];
export type WeightType = (typeof weightTypes)[number];

export interface Plane extends PlaneSpec {
  /** Bytes from the start of the storage; a multiple of 16. */
  readonly offset: number;
  readonly rowBytes: number;
}

/** Where the parts of a weight (or of one shard of it) lie in its storage. */
export interface WeightLayout {
  readonly dtype: BlockType | PlainType;
  readonly rows: number;
  /** Weights of a row. */
  readonly columns: number;
  readonly planes: readonly Plane[];
  /** A multiple of 16. */
  readonly byteLength: number;
}

export function isBlockType(dtype: DType): dtype is BlockType {
  return Object.hasOwn(blockPlanes, dtype);
}

function isPlainType(dtype: DType): dtype is PlainType {
  return Object.hasOwn(plainBytes, dtype);
}

/** Axis 0 counts the rows, the other axes together the columns. Rows of f16 and bf16 matrices start at multiples of 16 bytes; f32 has no padding between rows. */
export function weightLayout(type: TensorType): WeightLayout {
  const { dtype, shape } = type;
  const rows = shape[0] ?? 1;
  const columns = elementCount(shape.slice(1));
  if (!isBlockType(dtype) && !isPlainType(dtype)) {
    throw new UnsupportedError(`WebGPU kernels read weights of type ${weightTypes.join(', ')}; got ${formatType(type)}. Convert the tensor to one of them.`);
  }
  if (columns % dtypes[dtype].block !== 0)
    throw new UnsupportedError(`rows of a ${dtype} weight must be whole blocks of ${dtypes[dtype].block}; got ${formatType(type)}`);
  const specs = isBlockType(dtype) ? blockPlanes[dtype] : [plane('values', plainBytes[dtype], 1)];
  const rowAlignment = !isBlockType(dtype) && plainBytes[dtype] === 2 && shape.length > 1 ? 16 : 1;
  const planes: Plane[] = [];
  let offset = 0;
  for (const spec of specs) {
    const rowBytes = roundUp((columns / spec.weights) * spec.bytes, rowAlignment);
    planes.push({ ...spec, offset, rowBytes });
    offset = roundUp(offset + rows * rowBytes, 16);
  }
  return { dtype, rows, columns, planes, byteLength: offset };
}

/** Byte offset of a plane that the type has. */
export function planeOffset(layout: WeightLayout, name: PlaneName): number {
  const found = layout.planes.find((entry) => entry.name === name);
  if (found === undefined) throw new UnsupportedError(`${layout.dtype} has no plane '${name}'`);
  return found.offset;
}
