import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GpuCommandBatch } from '../../src/compute/batch.js';
import { GpuBackend } from '../../src/compute/gpu-backend.js';
import { tiledMax2d, tiledMin2d, tiledReducePartial, tiledSum2d } from '../../src/compute/tiled/reduce.js';
import { MaxOp, MinOp, SumOp } from '../../src/compute/tiled/reduce-op.js';
import { ArgumentError, DisposedError, ShapeError } from '../../src/core/errors.js';
import { TensorView } from '../../src/core/views/tensor-view.js';
import { unaryFunctions } from '../../src/ops/elementwise.js';
import type { UnaryFunction } from '../../src/ops/params.js';
import type { Backend } from '../../src/runtime/backend.js';

const floats = (...values: number[]): Float32Array => Float32Array.from(values);
const ramp = (n: number, scale = 1): Float32Array => Float32Array.from({ length: n }, (_, i) => i * scale);
/** Reproducible numbers in [-1, 1). */
const noise = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 8) / 2 ** 23 - 1);

function expectClose(got: ArrayLike<number>, wanted: ArrayLike<number>, absolute: number): void {
  expect(got.length).toBe(wanted.length);
  for (let i = 0; i < wanted.length; i++) expect(Math.abs((got[i] ?? Number.NaN) - (wanted[i] ?? Number.NaN)), `element ${i}`).toBeLessThanOrEqual(absolute);
}

/** What one-call operations promise on any backend. */
export function gpuBackendSuite(name: string, open: () => Promise<Backend>): void {
  describe(`GpuBackend on ${name}`, () => {
    let backend: Backend;
    let gpu: GpuBackend;
    beforeAll(async () => {
      backend = await open();
      gpu = new GpuBackend({ device: backend });
    });
    afterAll(async () => {
      await gpu.dispose();
      expect(backend.ledger().byClass.arena.bytes).toBe(0);
      backend.dispose();
    });

    test('says which backend ran', async () => {
      expect(await gpu.info()).toEqual({ kind: backend.kind, name: backend.name, reason: backend.reason });
    });

    test('vecAdd: basic, 10,000 elements, mismatch, empty', async () => {
      expect([...(await gpu.vecAdd(floats(1, 2, 3), floats(4, 5, 6)))]).toEqual([5, 7, 9]);
      const [a, b] = [ramp(10_000), ramp(10_000, 2)];
      expect(await gpu.vecAdd(a, b)).toEqual(a.map((x, i) => x + (b[i] ?? 0)));
      await expect(gpu.vecAdd(floats(1), floats(1, 2))).rejects.toThrow(ShapeError);
      await expect(gpu.vecAdd(floats(), floats())).rejects.toThrow(ArgumentError);
    });

    test('addition and multiplication commute bit for bit; NaN and infinities go through', async () => {
      const [a, b] = [noise(500), noise(700).subarray(200)];
      expect(await gpu.vecAdd(a, b)).toEqual(await gpu.vecAdd(b, a));
      expect(await gpu.binary('mul', a, b)).toEqual(await gpu.binary('mul', b, a));
      expect(await gpu.dot(a, b)).toBe(await gpu.dot(b, a));
      const special = floats(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0);
      expect([...(await gpu.vecAdd(special, floats(1, 1, 1, -0)))]).toEqual([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0]);
      expect([...(await gpu.relu(special))]).toEqual(
        [Number.NaN, Number.POSITIVE_INFINITY, 0, 0].map((x) => expect.toSatisfy((y: number) => Object.is(y, x) || y === x)),
      );
    });

    test('dot: 70, the 10,000-element ramp, beyond 256 elements, mismatch, empty', async () => {
      expect(await gpu.dot(floats(1, 2, 3, 4), floats(5, 6, 7, 8))).toBe(70);
      expect(Math.abs((await gpu.dot(ramp(10_000), new Float32Array(10_000).fill(1))) - 49_995_000)).toBeLessThanOrEqual(1);
      for (const n of [1, 255, 256, 257, 100_000]) {
        const [x, y] = [noise(n), noise(n + 3).subarray(3)];
        const wanted = x.reduce((sum, value, i) => sum + value * (y[i] ?? 0), 0);
        const terms = x.reduce((sum, value, i) => sum + Math.abs(value * (y[i] ?? 0)), 0);
        expect(Math.abs((await gpu.dot(x, y)) - wanted)).toBeLessThanOrEqual(1e-6 * terms);
        const sum = await gpu.reduce('sum', x);
        expect(Math.abs(sum - x.reduce((total, value) => total + value, 0))).toBeLessThanOrEqual(1e-6 * x.reduce((total, value) => total + Math.abs(value), 0));
      }
      expect(await gpu.dot(floats(), floats())).toBe(0);
      await expect(gpu.dot(floats(1), floats(1, 2))).rejects.toThrow(ShapeError);
    });

    test.each([
      ['relu', {}, 0],
      ['clip', { a: -1, b: 1 }, 0],
      ['leakyRelu', { a: 0.01 }, 1e-7],
      ['sigmoid', {}, 1e-6],
      ['silu', {}, 1e-6],
      ['elu', { a: 1 }, 1e-6],
      ['gelu', {}, 1e-6],
      ['geluErf', {}, 1e-6],
      ['tanh', {}, 1e-6],
    ] as const)('%s agrees with the reference on [-3, 3]', async (fn: UnaryFunction, scalars: { a?: number; b?: number }, tolerance) => {
      const x = Float32Array.from({ length: 61 }, (_, i) => (i - 30) / 10);
      expectClose(
        await gpu.unary(fn, x, scalars),
        Float64Array.from(x, (value) => unaryFunctions[fn](value, scalars.a ?? 0, scalars.b ?? 0)),
        tolerance,
      );
    });

    test('tanh and elu keep their digits near zero', async () => {
      const x = floats(1e-4, -1e-4, 3e-8, -1e-10);
      for (const [fn, got] of [
        ['tanh', await gpu.tanh(x)],
        ['elu', await gpu.elu(x, 1)],
      ] as const) {
        for (const [i, value] of x.entries()) expect(Math.abs((got[i] ?? 0) / unaryFunctions[fn](value, 1, 0) - 1)).toBeLessThan(1e-6);
      }
    });

    test('empty input gives the identity of each operation', async () => {
      expect(await gpu.relu(floats())).toEqual(floats());
      expect(await gpu.softmax(floats())).toEqual(floats());
      expect([await gpu.reduce('sum', floats()), await gpu.reduce('max', floats()), await gpu.reduce('min', floats())]).toEqual([0, -Infinity, Infinity]);
      expect([await gpu.tiledSum2d(floats(), 0, 0), await gpu.tiledMax2d(floats(), 0, 4), await gpu.tiledMin2d(floats(), 4, 0)]).toEqual([
        0,
        -Infinity,
        Infinity,
      ]);
    });

    test('has every operation of a batch', async () => {
      const upkeep = [
        'constructor',
        'upload',
        'update',
        'importBuffer',
        'materialize',
        'keep',
        'warm',
        'execute',
        'executeWithCache',
        'read',
        'readMany',
        'reset',
        'dispose',
      ];
      const operations = Object.getOwnPropertyNames(GpuCommandBatch.prototype).filter(
        (name) => !upkeep.includes(name) && typeof Object.getOwnPropertyDescriptor(GpuCommandBatch.prototype, name)?.value === 'function',
      );
      expect(operations.length).toBeGreaterThan(20);
      expect(operations.filter((name) => !(name in GpuBackend.prototype))).toEqual([]);
      const [x, y] = [floats(1, -2, 3, 4), floats(2, 4, -1, 8)];
      expect([...(await gpu.add(x, y))]).toEqual([3, 2, 2, 12]);
      expect([...(await gpu.sub(x, y))]).toEqual([-1, -6, 4, -4]);
      expect([...(await gpu.mul(x, y))]).toEqual([2, -8, -3, 32]);
      expect([...(await gpu.div(x, y))]).toEqual([0.5, -0.5, -3, 0.5]);
      expect([...(await gpu.scale(x, -2))]).toEqual([-2, 4, -6, -8]);
      expect([...(await gpu.slice(x, 1, 2))]).toEqual([-2, 3]);
      expect(await gpu.sum(x)).toBe(6);
      expect([...(await gpu.sum(x, { rows: 2 }))]).toEqual([-1, 7]);
      expect([...(await gpu.reduce('max', x, { rows: 2 }))]).toEqual([1, 4]);
      expectClose(await gpu.rmsNorm(x, floats(1, 2), 0), floats(1 / Math.sqrt(2.5), -4 / Math.sqrt(2.5), 3 / Math.sqrt(12.5), 8 / Math.sqrt(12.5)), 1e-6);
      expectClose(await gpu.layerNorm(x, floats(1, 2), floats(0, 1), 0), floats(1, -1, -1, 3), 1e-5);
      expect([...(await gpu.matmul(x, y, 2, 2, 2, { transposeA: true, transposeB: true, alpha: 2 }))]).toEqual([28, 46, 24, 68]);
    });

    test('the operations of a batch refuse what they cannot do', async () => {
      const x = floats(1, 2, 3, 4);
      await expect(gpu.slice(x, 2, 3)).rejects.toThrow(ArgumentError);
      await expect(gpu.sum(x, { rows: 3 })).rejects.toThrow(ArgumentError);
      await expect(gpu.rmsNorm(x, floats(1, 1, 1), 0)).rejects.toThrow(ArgumentError);
      await expect(gpu.rmsNorm(x, floats(), 0)).rejects.toThrow(ArgumentError);
      await expect(gpu.layerNorm(x, floats(1, 1), floats(1), 0)).rejects.toThrow(ShapeError);
      await expect(gpu.div(x, floats(1))).rejects.toThrow(ShapeError);
      await expect(gpu.matmul(x, x, 2, 3, 2, { transposeA: true })).rejects.toThrow(/a \[3, 2\] has 6 elements, got 4/);
      expect([await gpu.rmsNorm(floats(), floats(1), 0), await gpu.slice(x, 4, 0), await gpu.add(floats(), floats())]).toEqual([floats(), floats(), floats()]);
      expect(await gpu.sum(floats(), { rows: 2 })).toEqual(floats(0, 0));
    });

    test('softmax sums to 1, is positive and keeps the order; logSoftmax is its logarithm; rows', async () => {
      const x = noise(300);
      const p = await gpu.softmax(x, { rows: 3 });
      const logs = await gpu.logSoftmax(x, { rows: 3 });
      for (const row of [0, 1, 2]) expect(p.subarray(row * 100, row * 100 + 100).reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 6);
      for (const [i, value] of p.entries()) {
        expect(value).toBeGreaterThan(0);
        expect(logs[i]).toBeLessThanOrEqual(0);
        expect(Math.exp(logs[i] ?? 0)).toBeCloseTo(value, 6);
      }
      expect((x[1] ?? 0) > (x[0] ?? 0)).toBe((p[1] ?? 0) > (p[0] ?? 0));
      await expect(gpu.softmax(x, { rows: 7 })).rejects.toThrow(ArgumentError);
    });

    test('matmul: 2x2, identity, 2x3 by 3x2, wrong sizes, zero sizes', async () => {
      expect([...(await gpu.matmul(floats(1, 2, 3, 4), floats(5, 6, 7, 8), 2, 2, 2))]).toEqual([19, 22, 43, 50]);
      expect([...(await gpu.matmul(floats(1, 2, 3, 4), floats(1, 0, 0, 1), 2, 2, 2))]).toEqual([1, 2, 3, 4]);
      expect([...(await gpu.matmul(floats(1, 2, 3, 4, 5, 6), floats(7, 8, 9, 10, 11, 12), 2, 3, 2))]).toEqual([58, 64, 139, 154]);
      await expect(gpu.matmul(floats(1), floats(1, 2), 1, 2, 1)).rejects.toThrow(ShapeError);
      expect([...(await gpu.matmul(floats(), floats(), 2, 0, 2))]).toEqual([0, 0, 0, 0]);
    });

    test('convolve2d: diagonal 6, centre 5, average 3.5; stride, padding, channels; kernel larger than input', async () => {
      const image = floats(1, 2, 3, 4, 5, 6, 7, 8, 9);
      const three = { inRows: 3, inColumns: 3 };
      expect((await gpu.convolve2d(image, floats(1, 0, 0, 1), { ...three, kernelRows: 2, kernelColumns: 2 }))[0]).toBe(6);
      expect([...(await gpu.convolve2d(image, floats(0, 0, 0, 0, 1, 0, 0, 0, 0), { ...three, kernelRows: 3, kernelColumns: 3 }))]).toEqual([5]);
      const four = await gpu.convolve2d(ramp(16, 1), new Float32Array(4).fill(0.25), { inRows: 4, inColumns: 4, kernelRows: 2, kernelColumns: 2 });
      expectClose(four.subarray(0, 2), floats(2.5, 3.5), 1e-6);
      expect([...(await gpu.convolve2d(image, floats(1), { ...three, kernelRows: 1, kernelColumns: 1, stride: 2 }))]).toEqual([1, 3, 7, 9]);
      expect([...(await gpu.convolve2d(image, floats(0, 0, 0, 0, 1, 0, 0, 0, 0), { ...three, kernelRows: 3, kernelColumns: 3, padding: 'same' }))]).toEqual([
        ...image,
      ]);
      expect(await gpu.convolve2d(image, floats(1, 1), { ...three, kernelRows: 1, kernelColumns: 2, padding: 'full' })).toHaveLength(12);
      const two = await gpu.convolve2d(floats(1, 2, 10, 20), floats(1, 2), { channels: 2, inRows: 1, inColumns: 2, kernelRows: 1, kernelColumns: 1 });
      expect([...two]).toEqual([21, 42]);
      await expect(gpu.convolve2d(floats(1), floats(1, 1), { inRows: 1, inColumns: 1, kernelRows: 1, kernelColumns: 2 })).rejects.toThrow(ShapeError);
      await expect(gpu.convolve2d(image, floats(1), { ...three, kernelRows: 2, kernelColumns: 2 })).rejects.toThrow(ShapeError);
      await expect(gpu.convolve2d(floats(1), floats(1), { ...three, kernelRows: 1, kernelColumns: 1 })).rejects.toThrow(ShapeError);
      await expect(gpu.convolve2d(image, floats(1), { ...three, kernelRows: 1, kernelColumns: 1, stride: 0 })).rejects.toThrow(ShapeError);
    });

    test('symmetricEigen: [[3, 1], [1, 3]] has 4 and 2', async () => {
      const { values, converged } = await gpu.symmetricEigen(floats(3, 1, 1, 3), 2, { sorted: 'descending' });
      expectClose(values, [4, 2], 1e-5);
      expect(converged).toBe(true);
    });

    test.each([
      [4, 4],
      [16, 16],
      [20, 20],
      [32, 32],
      [64, 64],
      [100, 5],
      [5, 100],
      [9, 11],
      [1, 1],
    ])('tiled reductions of %i x %i are bit for bit those of the CPU tree', async (width, height) => {
      const data = noise(width * height);
      expect(await gpu.tiledSum2d(data, width, height)).toBe(tiledSum2d(data, width, height));
      expect(await gpu.tiledMax2d(data, width, height)).toBe(tiledMax2d(data, width, height));
      expect(await gpu.tiledMin2d(data, width, height)).toBe(tiledMin2d(data, width, height));
      expect(await gpu.tiledReducePartial(SumOp, data, width, height)).toEqual(tiledReducePartial(SumOp, data, width, height));
      await expect(gpu.tiledSum2d(data, width, height + 1)).rejects.toThrow(ArgumentError);
    });

    test('tiled reductions take what their CPU twins take, and refuse what those refuse', async () => {
      const matrix = TensorView.over(noise(320), [16, 20]);
      // Shapes of the cases above: nothing new is compiled.
      for (const view of [
        matrix.reshape([20, 16]).transpose(0, 1),
        TensorView.over(noise(400), [20, 20]).flip(1),
        TensorView.over(noise(20), [1, 20]).broadcastTo([20, 20]),
      ]) {
        expect(await gpu.tiledSum2d(view)).toBe(tiledSum2d(view));
        expect(await gpu.tiledReducePartial(MinOp, view)).toEqual(tiledReducePartial(MinOp, view));
      }
      expect(await gpu.tiledReduce2d(MaxOp, [3, 9, 7, 1, 5], 2, 2)).toBe(9);
      expect([await gpu.tiledReduce2d(SumOp, floats(), 3, 3), await gpu.tiledReducePartial(SumOp, floats(), 3, 3)]).toEqual([0, floats()]);
      for (const sizes of [[Number.NaN, 2], [-1, -2], [1.5, 1], []]) await expect(gpu.tiledSum2d(floats(1, 2), ...sizes)).rejects.toThrow(ArgumentError);
      await expect(gpu.tiledReduce2d({ ...SumOp }, floats(1), 1, 1)).rejects.toThrow(/SumOp, MaxOp or MinOp/);
    });

    test('tiled maxima of negative numbers alone are not the padding, nor those of -Infinity alone', async () => {
      const negative = noise(99).map((x) => -1 - Math.abs(x));
      expect(await gpu.tiledMax2d(negative, 9, 11)).toBe(Math.max(...negative));
      expect(await gpu.tiledMax2d(negative.fill(Number.NEGATIVE_INFINITY), 9, 11)).toBe(Number.NEGATIVE_INFINITY);
      expect(await gpu.tiledMin2d(negative.fill(Number.POSITIVE_INFINITY), 9, 11)).toBe(Number.POSITIVE_INFINITY);
    });

    // 61 elements, as above: nothing new is compiled.
    test.each([
      ['relu', {}],
      ['leakyRelu', { a: 0.01 }],
      ['sigmoid', {}],
      ['silu', {}],
      ['elu', { a: 1 }],
      ['gelu', {}],
      ['geluErf', {}],
      ['tanh', {}],
    ] as const)('%s has its limits: 0 where a gate closes, bounds that hold, NaN for NaN', async (fn: UnaryFunction, scalars: { a?: number }) => {
      const hard = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, Number.NaN, -3e38, 3e38, -1e4, 1e4, -105, 105, -88, 88, -20.5, 20.5, 0];
      const x = Float32Array.from({ length: 61 }, (_, i) => hard[i % hard.length] ?? 0);
      for (const [i, got] of (await gpu.unary(fn, x, scalars)).entries()) {
        const wanted = Math.fround(unaryFunctions[fn](x[i] ?? 0, scalars.a ?? 0, 0));
        if (Number.isFinite(wanted)) expect(Math.abs(got - wanted), `${fn}(${x[i]})`).toBeLessThanOrEqual(1e-6 * Math.abs(wanted) + 2e-36);
        else expect(got, `${fn}(${x[i]})`).toBe(wanted);
        if (fn === 'sigmoid' && !Number.isNaN(wanted)) expect(got >= 0 && got <= 1).toBe(true);
        if (fn === 'tanh' && !Number.isNaN(wanted)) expect(got >= -1 && got <= 1).toBe(true);
      }
    });

    test('NaN in a row is NaN in its logSoftmax, not a finite number; other rows do not see it', async () => {
      const x = noise(300);
      x[150] = Number.NaN;
      const logs = await gpu.logSoftmax(x, { rows: 3 });
      expect(logs.subarray(100, 200).every(Number.isNaN)).toBe(true);
      expect(logs.every((value, i) => Number.isNaN(value) === (i >= 100 && i < 200))).toBe(true);
    });

    test('a maximum of -Infinity alone is -Infinity at any length, and NaN wins', async () => {
      const x = new Float32Array(257).fill(Number.NEGATIVE_INFINITY);
      expect(await gpu.reduce('max', x)).toBe(Number.NEGATIVE_INFINITY);
      x[256] = Number.NaN;
      expect(await gpu.reduce('max', x)).toBeNaN();
    });

    test('the same call gives the same bits again, other data another result', async () => {
      const [x, y] = [noise(300), noise(600).subarray(300)];
      const calls = async (data: Float32Array) => [await gpu.softmax(data, { rows: 3 }), await gpu.reduce('sum', data), await gpu.dot(data, x)] as const;
      const first = await calls(x);
      expect(await calls(x)).toEqual(first);
      const other = await calls(y);
      for (const [i, result] of first.entries()) expect(other[i]).not.toEqual(result);
      expect(await gpu.reduce('sum', floats(1, 2, 3, 4, 5))).toBe(15);
    });

    test('addition associates within 1e-6, and a vector times itself is not negative', async () => {
      const [a, b, c] = [noise(500), noise(700).subarray(200), noise(900).subarray(400)];
      expectClose(await gpu.vecAdd(await gpu.vecAdd(a, b), c), await gpu.vecAdd(a, await gpu.vecAdd(b, c)), 1e-6);
      expect(await gpu.dot(a, a)).toBeGreaterThan(0);
    });

    test('calls at once do not end each other where the cache holds one operation', async () => {
      const narrow = new GpuBackend({ device: backend, cachedGraphs: 1 });
      const lengths = [61, 500, 61, 500];
      const results = await Promise.all(lengths.map((n) => narrow.binary('add', ramp(n), ramp(n))));
      for (const [i, n] of lengths.entries()) expect(results[i]).toEqual(ramp(n, 2));
      await narrow.dispose();
      await expect(narrow.relu(floats(1))).rejects.toThrow(DisposedError);
    });

    test('forty calls at once all give their results', async () => {
      const results = await Promise.all(Array.from({ length: 40 }, (_, i) => gpu.binary('add', ramp(61, i), ramp(61))));
      for (const [i, result] of results.entries()) expect(result).toEqual(ramp(61, i + 1));
    });

    test('memory that threads share is read like any other', async () => {
      const shared = new Float32Array(new SharedArrayBuffer(61 * 4)).fill(2);
      expect(await gpu.binary('add', shared, shared)).toEqual(new Float32Array(61).fill(4));
    });

    test('parameters that no kernel can have are typed errors, on every backend alike', async () => {
      const x = floats(1, 2);
      const wrong = (value: unknown): never => value as never;
      const refuses = (call: Promise<unknown>, argument: string) => expect(call).rejects.toMatchObject({ code: 'E_ARGUMENT', argument });
      for (const eps of [Number.NaN, -1, Number.POSITIVE_INFINITY]) await refuses(gpu.rmsNorm(x, x, eps), 'eps');
      await refuses(gpu.layerNorm(x, x, x, wrong(undefined)), 'eps');
      await refuses(gpu.matmul(x, x, 1, 2, 1, { alpha: Number.NaN }), 'alpha');
      await refuses(gpu.matmul(floats(), floats(), 2 ** 40, 0, 2 ** 40), 'm');
      await refuses(gpu.convolve2d(x, floats(1), { inRows: 1, inColumns: 2, kernelRows: 1, kernelColumns: 1, padding: wrong('mirror') }), 'padding');
      await refuses(gpu.convolve2d(x, x, wrong(undefined)), 'inRows');
      await refuses(gpu.convolve2d(floats(), x, { inRows: 0, inColumns: 3, kernelRows: 1, kernelColumns: 2 }), 'inRows');
      await refuses(gpu.leakyRelu(x, wrong(undefined)), 'a');
      await refuses(gpu.reduce(wrong('median'), floats()), 'fn');
      for (const other of [[1, 2], Float64Array.of(1), undefined, TensorView.create([2])]) await expect(gpu.relu(wrong(other))).rejects.toThrow(ArgumentError);
      await refuses(gpu.add(x, wrong([1, 2])), 'b');
      for (const cachedGraphs of [0, -1, 0.5, Number.NaN]) expect(() => new GpuBackend({ device: backend, cachedGraphs })).toThrow(ArgumentError);
    });

    test('misuse is a typed error that names the argument', async () => {
      const wrong = (call: Promise<unknown>, argument: string) => expect(call).rejects.toMatchObject({ code: 'E_ARGUMENT', argument });
      await wrong(gpu.clip(floats(1), 2, 1), 'min');
      await wrong(gpu.clip(floats(1), Number.NaN, 1), 'min');
      await wrong(gpu.matmul(floats(1, 2, 3, 4), floats(1, 2, 3, 4), -2, -2, -2), 'm');
      await wrong(gpu.matmul(floats(1, 2, 3), floats(1, 2), 1.5, 2, 1), 'm');
      await wrong(gpu.relu([1, 2] as unknown as Float32Array), 'x');
      await wrong(gpu.unary('nothing' as UnaryFunction, floats(1)), 'fn');
      await wrong(gpu.reduce('nothing' as 'sum', floats(1)), 'fn');
    });

    test('takes views', async () => {
      const view = TensorView.over(floats(1, 2, 3, 4, 5, 6), [2, 3]).transpose(0, 1);
      expect([...(await gpu.unary('neg', view))]).toEqual([-1, -4, -2, -5, -3, -6]);
    });
  });
}
