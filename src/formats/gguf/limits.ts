/** What a file may ask for. A file that stays inside still cannot make the reader hold more than its own header. */
export interface GgufLimits {
  /** Bytes of a metadata key. */
  readonly keyBytes: number;
  /** Bytes of one string: a value, or one string of an array. */
  readonly stringBytes: number;
  /** Elements of one array. */
  readonly arrayElements: number;
  /** Metadata entries. */
  readonly keyValues: number;
  /** Tensors of one file. */
  readonly tensors: number;
  /** Bytes from the start of the file to the end of the tensor table. */
  readonly headerBytes: number;
}

/** Far beyond any model that is known. */
export const defaultGgufLimits: GgufLimits = {
  keyBytes: 64 * 1024,
  stringBytes: 1024 * 1024,
  arrayElements: 4_000_000,
  keyValues: 65_536,
  tensors: 65_536,
  headerBytes: 256 * 1024 * 1024,
};

/** Bytes of a tensor name that ggml can hold, its terminating zero not counted. */
export const maxNameBytes = 63;

export const maxDimensions = 4;
