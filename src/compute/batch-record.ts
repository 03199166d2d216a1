import { ArgumentError, DisposedError } from '../core/errors.js';
import { elementCount, type Shape, sameShape, type TensorType } from '../core/tensor.js';
import { TensorView } from '../core/views/tensor-view.js';
import { broadcastShapes } from '../ops/elementwise.js';
import type { LeafOp, OpName, OpParams } from '../ops/params.js';
import { ops } from '../ops/table.js';
import type { BatchInput, BatchValue } from './batch-program.js';
import { type BatchViewReport, readingOf } from './batch-views.js';

/** A buffer of one batch. Only the batch that gave it takes it. */
export class BufferId {
  readonly #record: BatchRecord;
  /** Counts the batch's buffers from 0. */
  readonly index: number;
  /** f32 elements. */
  readonly size: number;
  /** @internal How often the batch was reset before it gave this id. */
  readonly generation: number;

  /** @internal */
  constructor(record: BatchRecord, index: number, size: number, generation: number) {
    this.#record = record;
    this.index = index;
    this.size = size;
    this.generation = generation;
  }

  /** @internal */
  belongsTo(record: BatchRecord): boolean {
    return this.#record === record;
  }
}

/** What operations take: a buffer, or a view of one. */
export type BatchTensor = BufferId | TensorView<BufferId>;

/** How a flat buffer is seen as rows of equal length; default one row. */
export interface RowOptions {
  readonly rows?: number;
}

/** What was recorded in a batch, and how its operations read buffers and views of buffers. */
export class BatchRecord {
  readonly #values: BatchValue[] = [];
  readonly #copies = new Map<TensorView<BufferId>, BufferId>();
  readonly #views: BatchViewReport[] = [];
  #generation = 0;
  #disposed = false;

  get values(): readonly BatchValue[] {
    return this.#values;
  }

  get views(): readonly BatchViewReport[] {
    return this.#views;
  }

  /** Grows with every reset. */
  get generation(): number {
    return this.#generation;
  }

  /** Whether nothing ended what was recorded in a generation: no reset, no end of the batch. */
  isCurrent(generation: number): boolean {
    return !this.#disposed && generation === this.#generation;
  }

  /** Forgets everything; ids given so far are void. */
  reset(): void {
    this.check();
    this.#values.length = 0;
    this.#views.length = 0;
    this.#copies.clear();
    this.#generation++;
  }

  /** No call is taken after it. */
  dispose(): void {
    this.#disposed = true;
  }

  check(): void {
    if (this.#disposed) throw new DisposedError('the batch');
  }

  push(value: BatchValue): BufferId {
    this.check();
    this.#values.push(value);
    return new BufferId(this, this.#values.length - 1, elementCount(value.shape), this.#generation);
  }

  /** @throws ArgumentError, ShapeError where the operation's own rule refuses inputs or parameters. */
  op<K extends Exclude<OpName, LeafOp>>(op: K, params: OpParams[K], inputs: readonly BatchInput[], shape: readonly number[]): BufferId {
    this.check();
    const types = inputs.map((input): TensorType => ({ dtype: this.#values[input.value]?.kind === 'indices' ? 'u32' : 'f32', shape: input.shape }));
    ops[op].type(types, params);
    return this.push({ kind: 'op', op, params, inputs, shape });
  }

  /** The index of a buffer of this batch. @throws ArgumentError for another batch's, or one from before a reset. */
  index(id: BufferId): number {
    this.check();
    if (!(id instanceof BufferId)) throw new ArgumentError('id', `a buffer of this batch, or a view of one, is wanted, got ${typeof id}: upload data first`);
    if (!id.belongsTo(this)) throw new ArgumentError('id', 'the buffer id is of another batch: ids belong to the batch that gave them');
    if (id.generation !== this.#generation) throw new ArgumentError('id', `buffer ${id.index} is void since reset()`);
    return id.index;
  }

  flat(id: BufferId): BatchInput {
    return this.shaped(id, [id.size]);
  }

  shaped(id: BufferId, shape: readonly number[]): BatchInput {
    return { value: this.index(id), shape };
  }

  /** [rows, elements of a row] of a buffer. */
  rows(id: BufferId, { rows = 1 }: RowOptions): [number, number] {
    if (!(Number.isSafeInteger(rows) && rows > 0 && id.size % rows === 0))
      throw new ArgumentError('rows', `${id.size} elements do not make ${rows} equal rows`);
    return [rows, id.size / rows];
  }

  /** [rows, elements of a row] of a buffer whose rows are as long as the gain. */
  rowsOf(x: BufferId, gain: BufferId): [number, number] {
    if (x.size % gain.size !== 0) throw new ArgumentError('gain', `${x.size} elements do not make rows of ${gain.size}`);
    return [x.size / gain.size, gain.size];
  }

  /** Elements of an operand of this batch. */
  sizeOf(x: BatchTensor): number {
    if (x instanceof TensorView) return this.#checkView(x).numel;
    this.index(x);
    return x.size;
  }

  /** A buffer with the elements of x: x itself, the buffer that a view is the whole of, or a copy, one for each view. */
  buffer(operation: string, x: BatchTensor): BufferId {
    if (!(x instanceof TensorView)) {
      this.index(x);
      return x;
    }
    const { kind } = readingOf(this.#checkView(x), x.data.size);
    if (kind === 'whole') {
      this.#report(operation, x, 'it is the whole buffer in its order');
      return x.data;
    }
    this.#report(operation, x, undefined);
    const copy = this.#copies.get(x) ?? this.materialize(x);
    this.#copies.set(x, copy);
    return copy;
  }

  /** The elements of a view, in its order, as a buffer of their own: one kernel by the view's strides, or by a list of its elements where it lies in tiles. */
  materialize(view: TensorView<BufferId>): BufferId {
    const source = this.flat(view.data);
    this.#checkView(view);
    const reading = readingOf(view, view.data.size);
    if (reading.kind !== 'listed') return this.op('strided', { shape: view.shape, strides: view.strides, offset: view.offset }, [source], [view.numel]);
    const indices = Array.from(view.linearIndices());
    const list = this.push({ kind: 'indices', values: indices, shape: [indices.length] });
    return this.op('gather', { axis: 0 }, [source, this.flat(list)], [indices.length]);
  }

  /** Operands of an elementwise operation on `shape`: views that repeat a buffer are read in place. */
  broadcast(operation: string, operands: readonly BatchTensor[], shape: Shape): readonly BatchInput[] {
    const size = elementCount(shape);
    const shapes = operands.map((x): Shape | undefined => {
      const reading = x instanceof TensorView && x.numel === size ? readingOf(x, x.data.size) : undefined;
      return reading?.kind === 'repeated' ? reading.shape : undefined;
    });
    // An axis along which none of them has its elements would be lost: the first that repeats is copied then.
    const whole = operands.map((x, i) => shapes[i] ?? (this.sizeOf(x) === size ? shape : [])).reduce((p, q) => broadcastShapes(operation, p, q));
    const copied = sameShape(whole, shape) ? undefined : shapes.find((repeated) => repeated !== undefined);
    return operands.map((x, i): BatchInput => {
      const repeated = shapes[i] === copied ? undefined : shapes[i];
      if (repeated === undefined || !(x instanceof TensorView)) {
        const id = this.buffer(operation, x);
        return this.shaped(id, id.size === size ? shape : [1]);
      }
      this.#report(operation, x, 'the operation broadcasts');
      return this.shaped(x.data, repeated);
    });
  }

  /** A matrix as it is stored, `shape`; `turned` where the buffer holds its transpose. */
  matrix(name: string, x: BatchTensor, shape: readonly [number, number]): { readonly input: BatchInput; readonly turned: boolean } {
    const [rows, columns] = shape;
    const size = this.sizeOf(x);
    if (size !== rows * columns) throw new ArgumentError(name, `${name} [${rows}, ${columns}] has ${rows * columns} elements, got ${size}`);
    const turned = x instanceof TensorView && sameShape(x.shape, shape) && readingOf(x, x.data.size).kind === 'turned';
    if (!turned) return { input: this.shaped(this.buffer('matmul', x), shape), turned: false };
    this.#report('matmul', x, 'the product reads the buffer by columns');
    return { input: this.shaped(x.data, [columns, rows]), turned: true };
  }

  /** `inPlace` says why a view is read where it lies; undefined: it is copied. */
  #report(operation: string, { shape, data }: TensorView<BufferId>, inPlace: string | undefined): void {
    const reason = inPlace ?? 'the operation reads its elements one after the other';
    this.#views.push({ operation, shape, buffer: data.index, reading: inPlace === undefined ? 'copied' : 'in place', reason });
  }

  #checkView(view: TensorView<BufferId>): TensorView<BufferId> {
    this.index(view.data);
    const { extent } = view;
    if (extent === undefined) throw new ArgumentError('view', 'the view has no elements: a buffer has at least one');
    if (extent.max >= view.data.size) throw new ArgumentError('view', `the view reaches element ${extent.max} of a buffer of ${view.data.size}`);
    return view;
  }
}
