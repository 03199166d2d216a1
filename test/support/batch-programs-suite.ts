import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { GpuCommandBatch } from '../../src/compute/batch.js';
import type { BatchTensor, BufferId } from '../../src/compute/batch-record.js';
import { TensorView } from '../../src/core/views/tensor-view.js';
import { binaryFunctions, unaryFunctions } from '../../src/ops/elementwise.js';
import type { Backend } from '../../src/runtime/backend.js';
import { suiteBackend } from './suite-backend.js';

/** A buffer of the batch, and what it must hold: as a function, since uploads change between executes. */
interface Value {
  readonly id: BufferId;
  readonly size: number;
  readonly wanted: () => readonly number[];
}

interface Move {
  readonly kind: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

const moves = fc.array(fc.record({ kind: fc.nat(9), a: fc.nat(999), b: fc.nat(999), c: fc.nat(999) }), { minLength: 1, maxLength: 14 });
const unaries = ['relu', 'tanh', 'sigmoid', 'neg', 'abs', 'silu'] as const;
const binaries = ['add', 'sub', 'mul', 'max', 'min'] as const;

const numbers = (size: number, seed: number): Float32Array => Float32Array.from({ length: size }, (_, i) => (((i + seed) * 7919) % 65) / 32 - 1);
const pick = <T>(from: readonly T[], index: number): T => {
  const found = from[index % from.length];
  if (found === undefined) throw new Error('there is nothing to pick from');
  return found;
};
const divisorOf = (size: number, index: number): number =>
  pick(
    Array.from({ length: size }, (_, i) => i + 1).filter((n) => size % n === 0),
    index,
  );

/** Rows of a value as slices of what it holds. */
function rowsOf(values: readonly number[], rows: number): readonly (readonly number[])[] {
  const width = values.length / rows;
  return Array.from({ length: rows }, (_, row) => values.slice(row * width, (row + 1) * width));
}

function softmaxOf(row: readonly number[]): readonly number[] {
  const exponentials = row.map((value) => Math.exp(value - Math.max(...row)));
  return exponentials.map((value) => value / exponentials.reduce((a, b) => a + b));
}

/** What an operation is given, and its elements. */
interface Operand {
  readonly tensor: BatchTensor;
  readonly size: number;
  readonly wanted: () => readonly number[];
}

/** A value as it is or through a view: turned, backwards, in part, or repeated along a first or a last axis. */
function seen({ id, size, wanted }: Value, index: number): Operand {
  const rows = divisorOf(size, index);
  const columns = size / rows;
  const whole = TensorView.over(id, [rows, columns]);
  const views = [
    whole.transpose(0, 1),
    whole.flip(1),
    whole.sliceDim(1, Math.floor(columns / 2)),
    whole.reshape([1, rows, columns]).broadcastTo([2, rows, columns]),
    whole.reshape([rows, columns, 1]).broadcastTo([rows, columns, 3]),
  ];
  if (index % 2 === 0) return { tensor: id, size, wanted };
  const view = pick(views, index >> 1);
  return { tensor: view, size: view.numel, wanted: () => [...view.withData(Float64Array.from(wanted())).toArray()] };
}

function step(batch: GpuCommandBatch, values: readonly Value[], { kind, a, b, c }: Move): Value {
  const [x, y] = [pick(values, a), pick(values, b)];
  const rows = divisorOf(x.size, c);
  switch (kind) {
    case 0:
    case 1: {
      const fn = pick(unaries, c);
      const { tensor, size, wanted } = seen(x, b);
      return { id: batch.unary(fn, tensor), size, wanted: () => wanted().map((value) => unaryFunctions[fn](value, 0, 0)) };
    }
    case 2:
      return { id: batch.scale(x.id, (c % 9) / 4 - 1), size: x.size, wanted: () => x.wanted().map((value) => value * ((c % 9) / 4 - 1)) };
    case 3:
    case 4: {
      // Of one size, or one of them a single number.
      const left = seen(x, a);
      const other = pick(
        values.filter(({ size }) => size === left.size || size === 1 || left.size === 1),
        b,
      );
      const fn = pick(binaries, c);
      const size = Math.max(left.size, other.size);
      const at = (list: readonly number[], i: number): number => list[list.length === 1 ? 0 : i] ?? Number.NaN;
      const wanted = (): number[] => {
        const [first, second] = [left.wanted(), other.wanted()];
        return Array.from({ length: size }, (_, i) => binaryFunctions[fn](at(first, i), at(second, i)));
      };
      return { id: batch.binary(fn, left.tensor, other.id), size, wanted };
    }
    case 5:
      return { id: batch.sum(x.id, { rows }), size: rows, wanted: () => rowsOf(x.wanted(), rows).map((row) => row.reduce((sum, value) => sum + value, 0)) };
    case 6:
      return { id: batch.softmax(x.id, { rows }), size: x.size, wanted: () => rowsOf(x.wanted(), rows).flatMap(softmaxOf) };
    case 7: {
      const start = b % x.size;
      const length = 1 + (c % (x.size - start));
      return { id: batch.slice(x.id, start, length), size: length, wanted: () => x.wanted().slice(start, start + length) };
    }
    case 8: {
      // x as [m, k] times the turned y as [n, k], scaled down so that chains of products stay small.
      const k = x.size / rows;
      if (y.size % k !== 0) return { id: batch.tanh(y.id), size: y.size, wanted: () => y.wanted().map(Math.tanh) };
      const n = y.size / k;
      const wanted = (): number[] => {
        const [left, right] = [rowsOf(x.wanted(), rows), rowsOf(y.wanted(), n)];
        return left.flatMap((row) => right.map((column) => row.reduce((sum, value, i) => sum + value * (column[i] ?? 0), 0) / k));
      };
      return { id: batch.matmul(x.id, y.id, rows, k, n, { transposeB: true, alpha: 1 / k }), size: rows * n, wanted };
    }
    default: {
      const other = pick(
        values.filter(({ size }) => size === x.size),
        b,
      );
      const wanted = (): number[] => {
        const right = other.wanted();
        return [x.wanted().reduce((sum, value, i) => sum + value * (right[i] ?? 0), 0)];
      };
      return { id: batch.dot(x.id, other.id), size: 1, wanted };
    }
  }
}

async function expectHeld(batch: GpuCommandBatch, values: readonly Value[]): Promise<void> {
  const got = await batch.readMany(values.map(({ id }) => id));
  values.forEach(({ wanted }, index) => {
    const want = wanted();
    expect(got[index]?.length).toBe(want.length);
    const largest = want.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    for (const [i, value] of want.entries()) expect(Math.abs((got[index]?.[i] ?? Number.NaN) - value)).toBeLessThanOrEqual(1e-4 * largest);
  });
}

/** Random programs of a batch, on any backend, against plain arithmetic in f64. */
export function batchProgramsSuite(name: string, open: () => Promise<Backend>, numRuns: number): void {
  describe(`GpuCommandBatch on ${name}`, () => {
    const backend = suiteBackend(open);

    test('any program computes what its operations mean, whatever is fused, kept, read, updated or added later', async () => {
      const program = fc.record({
        first: moves,
        more: moves,
        reads: fc.array(fc.nat(99), { minLength: 1, maxLength: 4 }),
        keeps: fc.array(fc.nat(99), { maxLength: 2 }),
      });
      await fc.assert(
        fc.asyncProperty(program, async ({ first, more, reads, keeps }) => {
          const batch = new GpuCommandBatch(backend());
          try {
            const uploads = [6, 12, 1, 24].map((size, seed) => ({ data: numbers(size, seed), id: batch.upload(numbers(size, seed)) }));
            const values: Value[] = uploads.map((upload) => ({ id: upload.id, size: upload.data.length, wanted: () => [...upload.data] }));
            const record = (list: readonly Move[]): void => {
              for (const move of list) {
                const value = step(batch, values, move);
                // Products grow: what is large is recorded and never looked at again.
                if (value.size <= 400) values.push(value);
              }
            };
            const chosen = (): Value[] => reads.map((index) => pick(values, index));
            record(first);
            for (const index of keeps) batch.keep(pick(values, index).id);
            await batch.execute();
            await expectHeld(batch, chosen());
            for (const upload of uploads.slice(0, 2)) {
              upload.data = numbers(upload.data.length, 31);
              batch.update(upload.id, upload.data);
            }
            await batch.execute();
            await expectHeld(batch, chosen());
            record(more);
            await batch.execute();
            await expectHeld(batch, [...chosen(), ...values.slice(-2)]);
          } finally {
            batch.dispose();
          }
        }),
        { numRuns },
      );
    });
  });
}
