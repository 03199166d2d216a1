/**
 * Element types: plain ones, and ggml's block types with their true sizes.
 * Source of the numbers: ggml's public type table (ids as stored in GGUF tensor infos).
 */

interface DTypeRow {
  /** ggml's type number in GGUF, or undefined for types that no GGUF tensor has. */
  readonly ggml?: number;
  /** Elements in a block; 1 for plain types. */
  readonly block: number;
  /** Bytes of a block. */
  readonly bytes: number;
}

const table = {
  f32: { ggml: 0, block: 1, bytes: 4 },
  f16: { ggml: 1, block: 1, bytes: 2 },
  q4_0: { ggml: 2, block: 32, bytes: 18 },
  q4_1: { ggml: 3, block: 32, bytes: 20 },
  q5_0: { ggml: 6, block: 32, bytes: 22 },
  q5_1: { ggml: 7, block: 32, bytes: 24 },
  q8_0: { ggml: 8, block: 32, bytes: 34 },
  q8_1: { ggml: 9, block: 32, bytes: 36 },
  q2_k: { ggml: 10, block: 256, bytes: 84 },
  q3_k: { ggml: 11, block: 256, bytes: 110 },
  q4_k: { ggml: 12, block: 256, bytes: 144 },
  q5_k: { ggml: 13, block: 256, bytes: 176 },
  q6_k: { ggml: 14, block: 256, bytes: 210 },
  q8_k: { ggml: 15, block: 256, bytes: 292 },
  iq2_xxs: { ggml: 16, block: 256, bytes: 66 },
  iq2_xs: { ggml: 17, block: 256, bytes: 74 },
  iq3_xxs: { ggml: 18, block: 256, bytes: 98 },
  iq1_s: { ggml: 19, block: 256, bytes: 50 },
  iq4_nl: { ggml: 20, block: 32, bytes: 18 },
  iq3_s: { ggml: 21, block: 256, bytes: 110 },
  iq2_s: { ggml: 22, block: 256, bytes: 82 },
  iq4_xs: { ggml: 23, block: 256, bytes: 136 },
  i8: { ggml: 24, block: 1, bytes: 1 },
  i16: { ggml: 25, block: 1, bytes: 2 },
  i32: { ggml: 26, block: 1, bytes: 4 },
  i64: { ggml: 27, block: 1, bytes: 8 },
  f64: { ggml: 28, block: 1, bytes: 8 },
  iq1_m: { ggml: 29, block: 256, bytes: 56 },
  bf16: { ggml: 30, block: 1, bytes: 2 },
  tq1_0: { ggml: 34, block: 256, bytes: 54 },
  tq2_0: { ggml: 35, block: 256, bytes: 66 },
  mxfp4: { ggml: 39, block: 32, bytes: 17 },
  nvfp4: { ggml: 40, block: 64, bytes: 36 },
  u32: { block: 1, bytes: 4 },
  u8: { block: 1, bytes: 1 },
  /** The values of q8_0 in two planes, all bytes first and then all scales: KV caches. */
  q8_planes: { block: 32, bytes: 34 },
} as const satisfies Record<string, DTypeRow>;

/** The name of an element type: "f32", "u32", "q4_k"... Block types have ggml's sizes and layouts. */
export type DType = keyof typeof table;

/** Every element type by name. */
export const dtypes: Readonly<Record<DType, DTypeRow>> = table;

export const dtypeNames = Object.keys(table) as readonly DType[];

const byGgmlId = new Map<number, DType>(dtypeNames.flatMap((name) => (dtypes[name].ggml === undefined ? [] : [[dtypes[name].ggml, name] as const])));

/** The type with ggml's number `id`, or undefined for a number that ggml does not use (or no longer uses). */
export function dtypeOfGgml(id: number): DType | undefined {
  return byGgmlId.get(id);
}

export function isDType(name: string): name is DType {
  return Object.hasOwn(table, name);
}

/** Whether values come in blocks with shared scales. */
export function isQuantized(dtype: DType): boolean {
  return dtypes[dtype].block > 1;
}

/** Bytes of `elements` values; `elements` must be whole blocks. */
export function byteLengthOf(dtype: DType, elements: number): number {
  const { block, bytes } = dtypes[dtype];
  return (elements / block) * bytes;
}
