/** Operations on host arrays of any length: on a backend that the first of them opens, in pieces where an array is longer than one binding of the device holds. */

import { ArgumentError, DisposedError } from '../core/errors.js';
import type { ReduceFunction } from '../ops/params.js';
import type { Backend } from '../runtime/backend.js';
import type { BackendOptions } from '../runtime/select.js';
import { openTarget, type TargetChoice } from './open.js';
import { type Operation, OperationCache } from './operation-cache.js';
import { type RowOperation, rowsOfPiece, runColumns, runRows } from './row-pieces.js';

/** Where operations run, and how many compiled ones are kept. */
export interface GpuBackendOptions extends Omit<BackendOptions, 'device'> {
  /** Default 'auto': a hardware GPU, else the CPU. A `GpuDevice` or `Backend` of the caller's is used as it is. */
  readonly device?: TargetChoice;
  /** Compiled operations kept for their shapes, oldest first out. Default 64. */
  readonly cachedGraphs?: number;
}

/** A result [rows, columns] that is made by columns. */
interface ColumnShape {
  readonly rows: number;
  readonly columns: number;
  /** Numbers of an operand that belong to one column. */
  readonly width: number;
  /** Numbers of a column that have to fit a binding with it; 1 where its rows are pieces of their own. */
  readonly out: number;
}

export class ArrayRunner {
  readonly #opening: () => ReturnType<typeof openTarget>;
  readonly #operations: OperationCache;
  #opened: ReturnType<typeof openTarget> | undefined;
  #disposed = false;

  /** Touches no device before the first operation. */
  constructor({ device, cachedGraphs = 64, ...rest }: GpuBackendOptions) {
    if (!Number.isSafeInteger(cachedGraphs) || cachedGraphs < 1)
      throw new ArgumentError('cachedGraphs', `cachedGraphs is a whole number of compiled operations from 1, got ${String(cachedGraphs)}`);
    this.#opening = () => openTarget(device, rest);
    this.#operations = new OperationCache(cachedGraphs);
  }

  /** The backend, opened where it is not yet. What failed is tried again by the next call: a driver may be back by then. */
  async open(): Promise<Backend> {
    if (this.#disposed) throw new DisposedError('the GPU backend');
    if (this.#opened === undefined) {
      const opening = this.#opening();
      opening.catch(() => {
        if (this.#opened === opening) this.#opened = undefined;
      });
      this.#opened = opening;
    }
    return (await this.#opened).backend;
  }

  /** The whole operation at once: its arrays have to fit a binding. */
  async run(operation: Operation, inputs: readonly Float32Array[]): Promise<Float32Array> {
    return this.#operations.run(await this.open(), operation, inputs);
  }

  /** By rows. */
  async rows(operation: RowOperation, inputs: readonly Float32Array[]): Promise<Float32Array> {
    return runRows((part, data) => this.run(part, data), operation, inputs, await this.#mostNumbers());
  }

  /** Every element by itself. */
  elements(key: string, build: Operation['build'], inputs: readonly Float32Array[]): Promise<Float32Array> {
    const rows = inputs[0]?.length ?? 0;
    return this.rows({ key, build, rows, widths: inputs.map(() => 1), out: 1, shapes: (count) => inputs.map(() => [count]) }, inputs);
  }

  /** By columns: `product` makes those of [start, start + count). */
  async columns({ rows, columns, width, out }: ColumnShape, product: (start: number, count: number) => Promise<Float32Array>): Promise<Float32Array> {
    return runColumns(product, rows, columns, rowsOfPiece({ rows: columns, widths: [width], out }, await this.#mostNumbers()));
  }

  /** One number of all elements: folded from what `part` makes of those from `from` to `to` (exclusive), where they are more than a binding holds. */
  async fold(length: number, fn: ReduceFunction, part: (from: number, to: number) => Promise<Float32Array>): Promise<number> {
    const step = rowsOfPiece({ rows: length, widths: [1], out: 1 }, await this.#mostNumbers());
    if (step === length) return (await part(0, length))[0] ?? Number.NaN;
    let whole: number | undefined;
    for (let from = 0; from < length; from += step) {
      const to = Math.min(from + step, length);
      const [value = Number.NaN] = await part(from, to);
      whole = folds[fn](whole, fn === 'mean' ? (value * (to - from)) / length : value);
    }
    return Math.fround(whole ?? Number.NaN);
  }

  /** Frees what was compiled and, where it was opened here, the device. Again is no error. */
  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#operations.dispose();
    const opened = await this.#opened?.catch(() => undefined);
    if (opened?.owned === true) opened.backend.dispose();
  }

  async #mostNumbers(): Promise<number> {
    return Math.floor((await this.open()).maxBindingBytes / 4);
  }
}

const sumOf = (a: number | undefined, b: number): number => (a ?? 0) + b;
/** Pieces to a whole, in f64. NaN goes through `Math.max` and `Math.min`. */
const folds: { readonly [F in ReduceFunction]: (before: number | undefined, value: number) => number } = {
  sum: sumOf,
  mean: sumOf,
  max: (a, b) => Math.max(a ?? b, b),
  min: (a, b) => Math.min(a ?? b, b),
  prod: (a, b) => (a ?? 1) * b,
};
