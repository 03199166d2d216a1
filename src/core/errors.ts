/**
 * The one error hierarchy. Every error that Centella throws on purpose is a `CentellaError` with a stable `code`; its message says what was wanted, what came
 * and what to do.
 */

/** Codes of a malformed model file. The container is checked by `formats`, the vocabulary by `text`, the hyperparameters by `model`. */
export type FormatErrorCode =
  | 'E_MAGIC'
  | 'E_VERSION'
  | 'E_COUNT'
  | 'E_TRUNCATED'
  | 'E_DATA_BOUNDS'
  | 'E_STRING'
  | 'E_KEY'
  | 'E_DUP_KEY'
  | 'E_KV_TYPE'
  | 'E_ARRAY'
  | 'E_ARRAY_TYPE'
  | 'E_DEPTH'
  | 'E_UTF8'
  | 'E_ALIGN'
  | 'E_DIMS'
  | 'E_SHAPE'
  | 'E_OVERFLOW'
  | 'E_TENSOR_TYPE'
  | 'E_BLOCK'
  | 'E_OFFSET'
  | 'E_NAME'
  | 'E_SPLIT'
  | 'E_VOCAB'
  | 'E_HPARAM'
  | 'E_TENSOR_MISSING'
  | 'E_TENSOR_SHAPE'
  | 'E_METADATA';

/** What went wrong, for programs: stable from version to version, which messages are not. */
export type ErrorCode =
  | FormatErrorCode
  /** An argument of a public call is wrong. */
  | 'E_ARGUMENT'
  /** Shapes do not fit each other. */
  | 'E_SHAPE_MISMATCH'
  /** The graph breaks a rule of the op table. */
  | 'E_GRAPH'
  /** The step list or the memory plan would be wrong or illegal: a defect of Centella, never of the input. */
  | 'E_PLAN'
  /** A valid request that this build or this device cannot serve. */
  | 'E_UNSUPPORTED'
  /** WebGPU (or the package that brings it) is not there. */
  | 'E_NO_WEBGPU'
  /** No adapter fits what was asked for. */
  | 'E_NO_ADAPTER'
  | 'E_DEVICE'
  | 'E_DEVICE_LOST'
  | 'E_SHADER'
  /** A memory budget or a device limit is too small; nothing was allocated. */
  | 'E_OUT_OF_MEMORY'
  | 'E_DISPOSED'
  /** One generation at a time. */
  | 'E_BUSY'
  /** The prompt does not fit into the context. */
  | 'E_CONTEXT'
  | 'E_ABORTED'
  | 'E_IO'
  /** A result that cannot be right (NaN in the logits, say). */
  | 'E_NUMERICAL';

/** What every error that Centella throws on purpose is. */
export class CentellaError extends Error {
  override readonly name: string = 'CentellaError';
  /** Stable, for programs; messages are for people. */
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** A model file that breaks its format. `offset` counts bytes from the start of the file (of the first file, where it is split). */
export class FormatError extends CentellaError {
  override readonly name = 'FormatError';
  declare readonly code: FormatErrorCode;
  readonly offset: number | undefined;
  /** The metadata key at fault. */
  readonly key: string | undefined;
  /** The name of the tensor at fault. */
  readonly tensor: string | undefined;

  constructor(code: FormatErrorCode, message: string, where: { offset?: number; key?: string; tensor?: string; cause?: unknown } = {}) {
    super(code, message, where.cause === undefined ? undefined : { cause: where.cause });
    this.offset = where.offset;
    this.key = where.key;
    this.tensor = where.tensor;
  }
}

/** The caller passed something that cannot be right. */
export class ArgumentError extends CentellaError {
  override readonly name = 'ArgumentError';
  /** The name of the wrong argument or option. */
  readonly argument: string;

  constructor(argument: string, message: string, code: ErrorCode = 'E_ARGUMENT') {
    super(code, message);
    this.argument = argument;
  }
}

/** Tensor shapes that do not fit an operation. */
export class ShapeError extends CentellaError {
  override readonly name = 'ShapeError';

  constructor(message: string) {
    super('E_SHAPE_MISMATCH', message);
  }
}

/** A graph that the verifier refuses; `node` is the offending node. */
export class GraphError extends CentellaError {
  override readonly name = 'GraphError';
  readonly node: number | undefined;

  constructor(message: string, node?: number) {
    super('E_GRAPH', message);
    this.node = node;
  }
}

/** A step list that the validator refuses. */
export class PlanError extends CentellaError {
  override readonly name = 'PlanError';
  readonly step: number | undefined;

  constructor(message: string, step?: number) {
    super('E_PLAN', message);
    this.step = step;
  }
}

/** What the device reported: a validation or compilation failure, or its loss. */
export class DeviceError extends CentellaError {
  override readonly name: string = 'DeviceError';
}

/** The device is gone. Everything that lived on it is lost; make a new device and load again. */
export class DeviceLostError extends DeviceError {
  override readonly name = 'DeviceLostError';
  /** WebGPU's own word: "destroyed" where `dispose()` or `destroy()` ended it, else "unknown". */
  readonly reason: string;

  constructor(reason: string, message: string) {
    super('E_DEVICE_LOST', message);
    this.reason = reason;
  }
}

/** More memory was wanted than the budget or the device allows; `requested` and `available` are bytes. */
export class OutOfMemoryError extends CentellaError {
  override readonly name = 'OutOfMemoryError';
  /** Bytes. */
  readonly requested: number;
  /** Bytes. */
  readonly available: number;

  constructor(message: string, bytes: { requested: number; available: number }) {
    super('E_OUT_OF_MEMORY', message);
    this.requested = bytes.requested;
    this.available = bytes.available;
  }
}

/** A generation was asked for while another one runs. */
export class BusyError extends CentellaError {
  override readonly name = 'BusyError';

  constructor(message: string) {
    super('E_BUSY', message);
  }
}

/** The prompt needs more positions than the context has. */
export class ContextError extends CentellaError {
  override readonly name = 'ContextError';
  /** Positions that the prompt needs, with those before it. */
  readonly tokens: number;
  /** Positions that there are. */
  readonly contextLength: number;

  constructor(message: string, sizes: { tokens: number; contextLength: number }) {
    super('E_CONTEXT', message);
    this.tokens = sizes.tokens;
    this.contextLength = sizes.contextLength;
  }
}

/** A valid request that this build or this device cannot serve; the message says what would do. */
export class UnsupportedError extends CentellaError {
  override readonly name = 'UnsupportedError';

  constructor(message: string) {
    super('E_UNSUPPORTED', message);
  }
}

/** Something was used after its `dispose()`, or was disposed of while it worked. */
export class DisposedError extends CentellaError {
  override readonly name = 'DisposedError';

  constructor(what: string, options?: { cause?: unknown }) {
    super('E_DISPOSED', `${what} was used after dispose(): make a new one`, options);
  }
}

/** The caller's signal ended the work. `cause` is the signal's reason. */
export class AbortedError extends CentellaError {
  override readonly name = 'AbortedError';

  constructor(what: string, cause?: unknown) {
    super('E_ABORTED', `${what} was aborted by its signal`, cause === undefined ? undefined : { cause });
  }
}

/** Throws `AbortedError` where the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) throw new AbortedError(what, signal.reason);
}

/** The value, or an error for an index or key that the surrounding code has already proven to exist. */
export function defined<T>(value: T | undefined | null, what: string): T {
  if (value === undefined || value === null) throw new PlanError(`${what} is missing: a defect of Centella, please report it`);
  return value;
}

/** A value as an error names it, no longer than a line. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (Array.isArray(value)) return `a list of ${value.length}: ${value.slice(0, 3).map(shown).join(', ')}`;
  if (typeof value === 'object' && value !== null) return `an object of ${value.constructor?.name ?? 'no class'}`;
  return typeof value === 'function' ? 'a function' : String(value);
}
