import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GpuCommandBatch } from '../../src/compute/batch.js';
import type { BufferId } from '../../src/compute/batch-record.js';
import { ArgumentError } from '../../src/core/errors.js';
import { TensorView } from '../../src/core/views/tensor-view.js';
import { unaryFunctions } from '../../src/ops/elementwise.js';
import type { Backend } from '../../src/runtime/backend.js';

const floats = (...values: number[]): Float32Array => Float32Array.from(values);

/** What a batch promises, on any backend. */
export function batchSuite(name: string, open: () => Promise<Backend>): void {
  describe(`GpuCommandBatch on ${name}`, () => {
    let backend: Backend;
    let batch: GpuCommandBatch;
    beforeAll(async () => {
      backend = await open();
    });
    afterAll(() => {
      batch?.dispose();
      expect(backend.ledger().byClass.arena.bytes).toBe(0);
      backend.dispose();
    });
    const fresh = (): GpuCommandBatch => {
      batch?.dispose();
      batch = new GpuCommandBatch(backend);
      return batch;
    };

    test('gives distinct ids and counts three operations on five buffers', () => {
      const b = fresh();
      const [x, y] = [b.upload(floats(1, 2)), b.upload(floats(3, 4))];
      const sum = b.add(x, y);
      const scaled = b.scale(sum, 2);
      const out = b.relu(scaled);
      expect(new Set([x, y, sum, scaled, out].map((id) => id.index)).size).toBe(5);
      expect([b.numOperations, b.numBuffers]).toEqual([3, 5]);
    });

    test('relu, scale and add in a chain give [2.5, 4.5, 0.5, 8.5]', async () => {
      const b = fresh();
      const x = b.upload(floats(1, 2, -3, 4));
      const offset = b.upload(floats(0.5, 0.5, 0.5, 0.5));
      const y = b.add(b.scale(b.relu(x), 2), offset);
      await b.execute();
      expect([...(await b.read(y))]).toEqual([2.5, 4.5, 0.5, 8.5]);
    });

    test('an intermediate can be read although a chain swallowed it', async () => {
      const b = fresh();
      const x = b.upload(floats(-1, 2));
      const inner = b.relu(x);
      const outer = b.scale(inner, 3);
      await b.execute();
      expect([...(await b.read(inner))]).toEqual([0, 2]);
      expect([...(await b.read(outer))]).toEqual([0, 6]);
      expect((await b.readMany([x, inner, outer])).map((values) => [...values])).toEqual([
        [-1, 2],
        [0, 2],
        [0, 6],
      ]);
    });

    test('replays with new uploads', async () => {
      const b = fresh();
      const x = b.upload(floats(1, 2, 3));
      const y = b.sum(b.mul(x, x));
      await b.execute();
      expect([...(await b.read(y))]).toEqual([14]);
      b.update(x, floats(2, 3, 4));
      await b.execute();
      expect([...(await b.read(y))]).toEqual([29]);
      await b.execute();
      expect([...(await b.read(y))]).toEqual([29]);
    });

    test('an execute runs what was uploaded and recorded when it was called, whenever it gets its turn', async () => {
      const b = fresh();
      const x = b.upload(floats(1));
      const y = b.scale(x, 2);
      const first = b.execute();
      b.update(x, floats(10));
      const z = b.scale(y, 3);
      await expect(b.read(z)).rejects.toThrow(/after the last execute/);
      const results = [b.read(y)];
      const second = b.execute();
      results.push(b.read(y));
      results.push(b.read(z));
      b.update(x, floats(100));
      results.push(b.read(x));
      await Promise.all([first, second]);
      expect((await Promise.all(results)).map((values) => values[0])).toEqual([2, 20, 60, 10]);
      await b.execute();
      expect(await b.read(z)).toEqual(floats(600));
    });

    // Each turn of an update that could fall between what the execute sends and its end.
    test('an update while an execute is on its way is for the next one, and not lost', async () => {
      const b = fresh();
      const x = b.upload(floats(1));
      const y = b.scale(x, 2);
      await b.execute();
      const turn = (i: number): Promise<void> => (i < 8 ? Promise.resolve() : new Promise((resolve) => void setTimeout(resolve, 0)));
      for (let turns = 0; turns < 11; turns++) {
        b.update(x, floats(10));
        const run = b.execute();
        for (let i = 0; i < turns; i++) await turn(i);
        const before = b.read(y);
        b.update(x, floats(7));
        await run;
        await b.execute();
        expect([...(await before), ...(await b.read(y))], `after ${turns} turns`).toEqual([20, 14]);
      }
    });

    test('many values are read at once', async () => {
      const b = fresh();
      const x = b.upload(floats(1, 2));
      const ids = Array.from({ length: 20 }, (_, i) => b.scale(x, i));
      await b.execute();
      const wanted = ids.map((_, i) => floats(i, 2 * i));
      expect(await Promise.all(ids.map((id) => b.read(id)))).toEqual(wanted);
      expect(await b.readMany(ids)).toEqual(wanted);
      expect(await b.readMany([])).toEqual([]);
    });

    test('goes on after more was recorded', async () => {
      const b = fresh();
      const x = b.upload(floats(4, 9));
      const root = b.unary('sqrt', x);
      await b.execute();
      const total = b.sum(root);
      await b.execute();
      expect([...(await b.read(total))]).toEqual([5]);
      expect([...(await b.read(root))]).toEqual([2, 3]);
    });

    test('sub, mul, div, dot, matmul with transposes', async () => {
      const b = fresh();
      const [x, y] = [b.upload(floats(1, 2, 3, 4, 5, 6)), b.upload(floats(6, 5, 4, 3, 2, 1))];
      const results = [
        b.sub(x, y),
        b.mul(x, y),
        b.dot(x, y),
        b.matmul(x, y, 2, 3, 2),
        b.matmul(x, y, 3, 2, 3, { transposeA: true, transposeB: true, alpha: 2 }),
      ];
      await b.execute();
      const got = (await b.readMany(results)).map((values) => [...values]);
      expect(got).toEqual([
        [-5, -3, -1, 1, 3, 5],
        [6, 10, 12, 12, 10, 6],
        [56],
        [20, 14, 56, 41],
        // x as [2, 3] transposed times y as [3, 2] transposed, twice.
        [
          [1, 4],
          [2, 5],
          [3, 6],
        ].flatMap(([a = 0, c = 0]) =>
          [
            [6, 5],
            [4, 3],
            [2, 1],
          ].map(([p = 0, q = 0]) => 2 * (a * p + c * q)),
        ),
      ]);
    });

    test('dot adds up all of more than 256 elements', async () => {
      const b = fresh();
      const ramp = b.upload(Float32Array.from({ length: 1000 }, (_, i) => i + 1));
      const total = b.dot(ramp, b.upload(new Float32Array(1000).fill(1)));
      await b.execute();
      expect([...(await b.read(total))]).toEqual([500_500]);
    });

    test('a fused chain computes what its operations compute one by one', async () => {
      const values = Float32Array.from({ length: 60 }, (_, i) => Math.sin(i * i) * 3);
      const results: Float32Array[][] = [];
      for (const keeping of [false, true]) {
        const b = fresh();
        const x = b.upload(values);
        const steps = [b.sub(x, b.upload(values.toReversed()))];
        for (const next of [b.swish.bind(b), (id: BufferId) => b.mul(id, x), b.relu.bind(b), (id: BufferId) => b.scale(id, 0.3)]) {
          steps.push(next(steps.at(-1) ?? x));
        }
        if (keeping) for (const step of steps) b.keep(step);
        await b.execute();
        results.push(keeping ? await b.readMany(steps) : [await b.read(steps.at(-1) ?? x)]);
      }
      const [fused, single] = [results[0]?.[0], results[1]?.at(-1)];
      expect(fused).toHaveLength(60);
      for (const [i, value] of (fused ?? floats()).entries()) expect(value).toBeCloseTo(single?.[i] ?? Number.NaN, 6);
    });

    test('softmax and logSoftmax by rows; norms', async () => {
      const b = fresh();
      const x = b.upload(floats(1, 2, 3, -1, 0, 1));
      const [p, logP] = [b.softmax(x, { rows: 2 }), b.logSoftmax(x, { rows: 2 })];
      const gain = b.upload(floats(1, 1, 1));
      const norm = b.rmsNorm(x, gain, 0);
      const layer = b.layerNorm(x, gain, b.upload(floats(0, 0, 1)), 0);
      await b.execute();
      const [ps = floats(), logs = floats(), rms = floats(), centred = floats()] = await b.readMany([p, logP, norm, layer]);
      for (const row of [0, 3]) expect(ps.slice(row, row + 3).reduce((sum, value) => sum + value)).toBeCloseTo(1, 6);
      for (const [i, value] of logs.entries()) expect(Math.exp(value)).toBeCloseTo(ps[i] ?? Number.NaN, 6);
      expect(rms[0]).toBeCloseTo(1 / Math.sqrt(14 / 3), 5);
      expect([centred[0], centred[1], centred[2]]).toEqual([expect.closeTo(-Math.sqrt(1.5), 5), expect.closeTo(0, 5), expect.closeTo(1 + Math.sqrt(1.5), 5)]);
    });

    test('sigmoid, tanh, swish and gelu near the reference; chained outputs stay in [-1, 1]', async () => {
      const b = fresh();
      const values = floats(-3, -1, -0.5, 0, 0.5, 1, 3);
      const x = b.upload(values);
      const functions = [
        ['sigmoid', b.sigmoid(x)],
        ['tanh', b.tanh(x)],
        ['silu', b.swish(x)],
        ['gelu', b.gelu(x)],
        ['geluErf', b.gelu(x, { exact: true })],
      ] as const;
      const chained = b.tanh(b.swish(b.sigmoid(x)));
      await b.execute();
      for (const [fn, id] of functions) {
        const got = await b.read(id);
        for (const [i, value] of values.entries()) expect(got[i]).toBeCloseTo(unaryFunctions[fn](value, 0, 0), 5);
      }
      for (const value of await b.read(chained)) expect(Math.abs(value)).toBeLessThanOrEqual(1);
    });

    test('uploads views in their own order', async () => {
      const b = fresh();
      const view = TensorView.over(floats(1, 2, 3, 4, 5, 6), [2, 3]).transpose(0, 1);
      const y = b.scale(b.upload(view), 1);
      await b.execute();
      expect([...(await b.read(y))]).toEqual([1, 4, 2, 5, 3, 6]);
    });

    test('takes subnormal numbers for what they are or for zeros, not for NaN', async () => {
      const b = fresh();
      const x = b.upload(floats(1e-40, -1e-40));
      const [inverse, root] = [b.unary('reciprocal', x), b.unary('rsqrt', b.upload(floats(1e-40)))];
      await b.execute();
      expect([...(await b.read(inverse))]).toEqual([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]);
      expect((await b.read(root))[0]).toBeGreaterThan(9e19);
    });

    test('slices, and materializes views of buffers', async () => {
      const b = fresh();
      const x = b.scale(b.upload(floats(1, 2, 3, 4, 5, 6)), 10);
      const turned = b.materialize(TensorView.over(x, [2, 3]).transpose(0, 1));
      const middle = b.slice(x, 2, 3);
      await b.execute();
      expect([...(await b.read(turned))]).toEqual([10, 40, 20, 50, 30, 60]);
      expect([...(await b.read(middle))]).toEqual([30, 40, 50]);
      expect(() => b.slice(x, 4, 3)).toThrow(ArgumentError);
      expect(() => b.materialize(TensorView.over(x, [3, 3]))).toThrow(ArgumentError);
    });

    test('takes views of buffers: repeated and turned ones in place, others by a copy, and says which', async () => {
      const b = fresh();
      const x = b.upload(floats(1, 2, 3, 4, 5, 6));
      const row = b.upload(floats(10, 20, 30));
      const column = b.upload(floats(100, 200));
      const matrix = TensorView.over(x, [2, 3]);
      const rows = TensorView.over(row, [1, 3]).broadcastTo([2, 3]);
      const columns = TensorView.over(column, [2, 1]).broadcastTo([2, 3]);
      const results = [
        b.add(matrix, rows),
        b.mul(x, columns),
        b.add(rows, columns),
        b.add(rows, rows),
        b.div(rows, b.scale(b.upload(floats(1)), 2)),
        b.sub(b.upload(floats(1)), rows),
        b.sub(matrix.transpose(0, 1), b.upload(floats(0, 0, 0, 1, 1, 1))),
        b.matmul(matrix.transpose(0, 1), matrix, 3, 2, 3),
        b.sum(matrix.transpose(0, 1), { rows: 3 }),
        b.scale(matrix.sliceDim(1, 1, 3).flip(1), 2),
        b.dot(matrix, matrix),
      ];
      await b.execute();
      expect((await b.readMany(results)).map((values) => [...values])).toEqual([
        [11, 22, 33, 14, 25, 36],
        [100, 200, 300, 800, 1000, 1200],
        [110, 120, 130, 210, 220, 230],
        [20, 40, 60, 20, 40, 60],
        [5, 10, 15, 5, 10, 15],
        [-9, -19, -29, -9, -19, -29],
        [1, 4, 2, 4, 2, 5],
        [17, 22, 27, 22, 29, 36, 27, 36, 45],
        [5, 7, 9],
        [6, 4, 12, 10],
        [91],
      ]);
      const told = b.views.map(({ operation, shape, buffer, reading }) => `${operation} [${shape.join(', ')}] of ${buffer}: ${reading}`);
      expect(told).toEqual([
        'add [2, 3] of 0: in place',
        'add [2, 3] of 1: in place',
        'mul [2, 3] of 2: in place',
        'add [2, 3] of 1: in place',
        'add [2, 3] of 2: in place',
        'add [2, 3] of 1: copied',
        'add [2, 3] of 1: in place',
        'div [2, 3] of 1: copied',
        'sub [2, 3] of 1: copied',
        'sub [3, 2] of 0: copied',
        'matmul [3, 2] of 0: in place',
        'matmul [2, 3] of 0: in place',
        'sum [3, 2] of 0: copied',
        'scale [2, 2] of 0: copied',
        'dot [2, 3] of 0: in place',
        'dot [2, 3] of 0: in place',
      ]);
      for (const { reason } of b.views) expect(reason).not.toBe('');
      expect(() => b.add(matrix, matrix.transpose(0, 1))).toThrow(/one shape/);
      expect(() => b.relu(TensorView.over(x, [4, 3]))).toThrow(/reaches element 11/);
      expect(() => b.matmul(matrix, matrix, 3, 3, 2)).toThrow(ArgumentError);
      b.reset();
      expect(b.views).toEqual([]);
      expect(() => b.relu(matrix)).toThrow(/void since reset/);
    });

    test('copies views of tiled and scattered buffers in their order', async () => {
      const b = fresh();
      const values = Float32Array.from({ length: 24 }, (_, i) => i);
      const x = b.upload(values);
      const tiled = TensorView.over(x, [4, 6], { layout: { tiled: [2, 3] } });
      const strided = TensorView.over(x, [2, 3, 4]).permute(2, 0, 1).slice(1, 4).flip(0);
      const [y, z] = [b.scale(tiled, 1), b.scale(strided, 1)];
      await b.execute();
      expect(await b.read(y)).toEqual(Float32Array.from(TensorView.over(values, [4, 6], { layout: { tiled: [2, 3] } }).toArray()));
      expect(await b.read(z)).toEqual(Float32Array.from(TensorView.over(values, [2, 3, 4]).permute(2, 0, 1).slice(1, 4).flip(0).toArray()));
    });

    test('misuse is a typed error at the call that made it', async () => {
      const b = fresh();
      const other = new GpuCommandBatch(backend);
      const x = b.upload(floats(1, 2, 3));
      const short = b.upload(floats(1, 2));
      expect(() => b.relu(other.upload(floats(1)))).toThrow(ArgumentError);
      expect(() => b.add(x, short)).toThrow(/one size/);
      expect(() => b.mul(x, short)).toThrow(ArgumentError);
      expect(() => b.dot(x, short)).toThrow(ArgumentError);
      expect(() => b.matmul(x, short, 2, 2, 2)).toThrow(/4 elements, got 3/);
      expect(() => b.upload(floats())).toThrow(ArgumentError);
      expect(() => b.update(x, floats(1))).toThrow(ArgumentError);
      expect(() => b.softmax(x, { rows: 2 })).toThrow(ArgumentError);
      expect(() => b.clip(x, 1, 0)).toThrow(ArgumentError);
      const wrong = (value: unknown): never => value as never;
      expect(() => b.upload(wrong([1, 2]))).toThrow(/must be a Float32Array or a view of one, got a list of 2: 1, 2/);
      expect(() => b.update(x, wrong([1, 2, 3]))).toThrow(ArgumentError);
      expect(() => b.upload(wrong(TensorView.over(x, [3])))).toThrow(/not linked to an array/);
      expect(() => b.relu(wrong(3))).toThrow(/upload data first/);
      expect(() => b.unary(wrong('cube'), x)).toThrow(/knows silu/);
      expect(() => b.binary(wrong('atan2'), x, x)).toThrow(ArgumentError);
      expect(() => b.reduce(wrong('median'), x)).toThrow(ArgumentError);
      expect(() => b.scale(x, wrong(undefined))).toThrow(/must be a number, got undefined/);
      expect(() => b.leakyRelu(x, wrong('0.1'))).toThrow(ArgumentError);
      for (const eps of [Number.NaN, -1, wrong(undefined)]) {
        expect(() => b.rmsNorm(x, x, eps)).toThrow(/eps must be a finite number from 0/);
        expect(() => b.layerNorm(x, x, x, eps)).toThrow(ArgumentError);
      }
      expect(() => b.matmul(x, x, 1, 3, 1, { alpha: Number.NaN })).toThrow(/alpha must be a finite number/);
      expect(() => new GpuCommandBatch(wrong('webgpu'))).toThrow(/a backend \(see openBackend\) or a GpuDevice/);
      await expect(b.read(x)).rejects.toThrow(/execute\(\) first/);
      const y = b.relu(x);
      await b.execute();
      b.reset();
      await expect(b.read(y)).rejects.toThrow(/void since reset/);
      expect([b.numOperations, b.numBuffers]).toEqual([0, 0]);
      other.dispose();
      expect(() => other.upload(floats(1))).toThrow(/dispose/);
    });

    test('an id from before reset() is void for good, not the buffer that is now in its place', async () => {
      const b = fresh();
      const old = b.upload(floats(1, 2));
      b.reset();
      const now = b.upload(floats(3, 4));
      expect(() => b.relu(old)).toThrow(/void since reset/);
      expect(() => b.update(old, floats(5, 6))).toThrow(/void since reset/);
      await expect(b.read(old)).rejects.toThrow(/void since reset/);
      const y = b.relu(now);
      await b.execute();
      expect([...(await b.read(y))]).toEqual([3, 4]);
    });

    test('sizes beyond 32 bits do not wrap round', () => {
      const b = fresh();
      // 65,537 squared is 131,073 in 32 bits.
      const [a, x] = [b.upload(new Float32Array(131_073)), b.upload(new Float32Array(65_537))];
      expect(() => b.matmul(a, x, 65_537, 65_537, 1)).toThrow('a [65537, 65537] has 4295098369 elements, got 131073');
    });
  });
}
