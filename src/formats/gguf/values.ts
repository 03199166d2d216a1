/** Metadata values: GGUF's thirteen types. */

/** GGUF's type numbers. */
export const ggufTypeIds = { u8: 0, i8: 1, u16: 2, i16: 3, u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, u64: 10, i64: 11, f64: 12 } as const;

/** The types of metadata values. */
export type GgufType = keyof typeof ggufTypeIds;

/** What holds an array's values, by element type. Booleans are bytes, 0 or 1. */
interface Holders {
  u8: Uint8Array;
  i8: Int8Array;
  u16: Uint16Array;
  i16: Int16Array;
  u32: Uint32Array;
  i32: Int32Array;
  f32: Float32Array;
  u64: BigUint64Array;
  i64: BigInt64Array;
  f64: Float64Array;
  bool: Uint8Array;
}

/** Those whose arrays are typed arrays. */
export type GgufNumericType = keyof Holders;

/** Bytes of one value in the file. */
export const ggufTypeBytes: Readonly<Record<GgufNumericType, number>> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  u64: 8,
  i64: 8,
  f64: 8,
  bool: 1,
};

type NumericArray = { [K in GgufNumericType]: { readonly type: 'array'; readonly elementType: K; readonly values: Holders[K] } }[GgufNumericType];

/** Strings of an array are decoded when `values` is first read. */
export type GgufArray = NumericArray | { readonly type: 'array'; readonly elementType: 'string'; readonly values: readonly string[] };

export type GgufNumber =
  | { readonly type: 'u8' | 'i8' | 'u16' | 'i16' | 'u32' | 'i32' | 'f32' | 'f64'; readonly value: number }
  | { readonly type: 'u64' | 'i64'; readonly value: bigint };

/** A metadata value with the type that it has in the file. GGUF's arrays do not nest here, as in ggml. */
export type GgufValue = GgufNumber | { readonly type: 'bool'; readonly value: boolean } | { readonly type: 'string'; readonly value: string } | GgufArray;

const typesById: ReadonlyMap<number, GgufType> = new Map((Object.keys(ggufTypeIds) as GgufType[]).map((type) => [ggufTypeIds[type], type]));

export function ggufTypeOfId(id: number): GgufType | undefined {
  return typesById.get(id);
}

/** A numeric array over a copy of its bytes in the file (little-endian, as every host of WebGPU is). */
export function numericArray(elementType: GgufNumericType, bytes: Uint8Array): GgufArray {
  const buffer = new ArrayBuffer(bytes.length);
  new Uint8Array(buffer).set(bytes);
  switch (elementType) {
    case 'u8':
    case 'bool':
      return { type: 'array', elementType, values: new Uint8Array(buffer) };
    case 'i8':
      return { type: 'array', elementType, values: new Int8Array(buffer) };
    case 'u16':
      return { type: 'array', elementType, values: new Uint16Array(buffer) };
    case 'i16':
      return { type: 'array', elementType, values: new Int16Array(buffer) };
    case 'u32':
      return { type: 'array', elementType, values: new Uint32Array(buffer) };
    case 'i32':
      return { type: 'array', elementType, values: new Int32Array(buffer) };
    case 'f32':
      return { type: 'array', elementType, values: new Float32Array(buffer) };
    case 'u64':
      return { type: 'array', elementType, values: new BigUint64Array(buffer) };
    case 'i64':
      return { type: 'array', elementType, values: new BigInt64Array(buffer) };
    case 'f64':
      return { type: 'array', elementType, values: new Float64Array(buffer) };
  }
}

/** "u32", "array of string". */
export function describeType(value: GgufValue): string {
  return value.type === 'array' ? `array of ${value.elementType}` : value.type;
}

/** Makes metadata for the writer: `ggufValue.u32(7)`, `ggufValue.strings(['a', 'b'])`. */
export const ggufValue = {
  u8: (value: number): GgufValue => ({ type: 'u8', value }),
  i8: (value: number): GgufValue => ({ type: 'i8', value }),
  u16: (value: number): GgufValue => ({ type: 'u16', value }),
  i16: (value: number): GgufValue => ({ type: 'i16', value }),
  u32: (value: number): GgufValue => ({ type: 'u32', value }),
  i32: (value: number): GgufValue => ({ type: 'i32', value }),
  f32: (value: number): GgufValue => ({ type: 'f32', value }),
  f64: (value: number): GgufValue => ({ type: 'f64', value }),
  u64: (value: bigint): GgufValue => ({ type: 'u64', value }),
  i64: (value: bigint): GgufValue => ({ type: 'i64', value }),
  bool: (value: boolean): GgufValue => ({ type: 'bool', value }),
  string: (value: string): GgufValue => ({ type: 'string', value }),
  strings: (values: readonly string[]): GgufValue => ({ type: 'array', elementType: 'string', values }),
  u32s: (values: ArrayLike<number>): GgufValue => ({ type: 'array', elementType: 'u32', values: Uint32Array.from(values) }),
  i32s: (values: ArrayLike<number>): GgufValue => ({ type: 'array', elementType: 'i32', values: Int32Array.from(values) }),
  f32s: (values: ArrayLike<number>): GgufValue => ({ type: 'array', elementType: 'f32', values: Float32Array.from(values) }),
  bools: (values: readonly boolean[]): GgufValue => ({ type: 'array', elementType: 'bool', values: Uint8Array.from(values, Number) }),
} as const;
