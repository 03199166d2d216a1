import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ArgumentError, DisposedError, OutOfMemoryError } from '../../src/core/errors.js';
import type { TensorType } from '../../src/core/tensor.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { ExecutionPlan } from '../../src/plan/execution-plan.js';
import { Arena, allocateBanks } from '../../src/runtime/arena.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { storingBackend } from './support.js';

const f32 = (...shape: number[]): TensorType => ({ dtype: 'f32', shape });

describe('Arena', () => {
  let backend: CpuBackend;
  let plan: ExecutionPlan<unknown>;
  let arena: Arena;
  let ids: { x: number; y: number; view: number; w: number; sum: number };

  beforeEach(async () => {
    backend = new CpuBackend();
    const g = new GraphBuilder();
    const x = g.input('x', f32(40));
    const y = g.input('y', f32(5));
    const w = g.param('w', f32(5));
    const view = g.narrow(x, 16, 5);
    const sum = g.binary('add', view, g.binary('add', y, w));
    g.output('sum', sum);
    ids = { x, y, view, w, sum };
    plan = backend.program(g.build()).plan;
    arena = await Arena.fromPlan(backend, plan);
  });
  afterEach(() => backend.dispose());

  test('has the values of its plan: not weights, not strangers', () => {
    expect([ids.x, ids.y, ids.view, ids.sum].map((id) => arena.has(id))).toEqual([true, true, true, true]);
    expect([ids.w, 99, -1].map((id) => arena.has(id))).toEqual([false, false, false]);
    for (const call of [() => arena.offset(ids.w), () => arena.lenOf(99), () => arena.location(99), () => arena.setActualLen(99, 0), () => arena.region(99)]) {
      expect(call).toThrow(ArgumentError);
    }
  });

  test('places a view inside its base', () => {
    expect(arena.offset(ids.view)).toBe(arena.offset(ids.x) + 64);
    expect(arena.location(ids.view)).toEqual({ bank: arena.location(ids.x).bank, byteOffset: arena.offset(ids.x) + 64, byteLength: 20 });
    expect(arena.byteLength).toBe(plan.memory.banks.reduce((sum, bytes) => sum + bytes, 0));
  });

  test('reads back what was written, through views too', async () => {
    const values = Float32Array.from({ length: 40 }, (_, i) => i - 0.5);
    await arena.writeF32(ids.x, values);
    expect(await arena.readF32(ids.x)).toEqual(values);
    expect(await arena.readF32(ids.view)).toEqual(values.slice(16, 21));
    await arena.writeF32(ids.view, Float32Array.of(9, 8));
    expect((await arena.readF32(ids.x)).slice(15, 19)).toEqual(Float32Array.of(14.5, 9, 8, 17.5));
  });

  test('five floats are five, whatever the slot is padded to', async () => {
    await arena.writeF32(ids.y, Float32Array.of(1, 2, 3, 4, 5));
    expect(await arena.readF32(ids.y)).toEqual(Float32Array.of(1, 2, 3, 4, 5));
    await arena.writeF32(ids.x, new Float32Array(40).fill(7));
    arena.setActualLen(ids.x, 20);
    expect(arena.lenOf(ids.x)).toBe(20);
    expect(await arena.readF32(ids.x)).toEqual(new Float32Array(5).fill(7));
    arena.setActualLen(ids.x, 160);
    expect(await arena.readF32(ids.x)).toHaveLength(40);
    for (const wrong of [161, -1, 2.5, Number.NaN]) expect(() => arena.setActualLen(ids.x, wrong)).toThrow(ArgumentError);
  });

  test('reads and writes ranges of words inside a value, nothing beyond', async () => {
    await arena.writeF32(ids.y, Float32Array.of(1, 2, 3, 4, 5));
    await arena.writeBytesRange(ids.y, 8, new Uint8Array(Float32Array.of(30).buffer));
    const range = await arena.readBytesRange(ids.y, 4, 12);
    expect(new Float32Array(range.buffer)).toEqual(Float32Array.of(2, 30, 4));
    expect(await arena.readBytesRange(ids.y, 20, 0)).toHaveLength(0);
    await arena.writeBytesRange(ids.y, 20, new Uint8Array());
    for (const [start, length] of [
      [16, 8],
      [-4, 4],
      [2, 4],
      [0, 3],
      [24, 0],
    ] as const) {
      await expect(arena.readBytesRange(ids.y, start, length)).rejects.toThrow(ArgumentError);
      await expect(arena.writeBytesRange(ids.y, start, new Uint8Array(length))).rejects.toThrow(ArgumentError);
    }
    await expect(arena.writeF32(ids.y, new Float32Array(6))).rejects.toThrow('has 20 bytes, got 24 bytes at 0');
    expect(await arena.readF32(ids.y)).toEqual(Float32Array.of(1, 2, 30, 4, 5));
  });

  test('gives its banks back, and cannot be used then', async () => {
    arena.free();
    expect(backend.ledger().bytes).toBe(0);
    await expect(arena.readF32(ids.y)).rejects.toThrow(DisposedError);
  });
});

describe('banks', () => {
  const plans = (...banks: (readonly number[])[]): readonly ExecutionPlan<unknown>[] =>
    banks.map((sizes) => ({ memory: { banks: sizes } }) as unknown as ExecutionPlan<unknown>);

  test('shared by plans are as large as the largest wants them', async () => {
    const { backend } = storingBackend();
    const banks = await allocateBanks(backend, plans([64, 128], [256, 0, 32]));
    expect(banks.map(({ byteLength }) => byteLength)).toEqual([256, 128, 32]);
    expect(await allocateBanks(backend, [])).toEqual([]);
  });

  test('are given back where one of them finds no room', async () => {
    const storing = storingBackend();
    storing.remaining = 2;
    await expect(allocateBanks(storing.backend, plans([4, 4, 4]))).rejects.toThrow('no room');
    expect(storing.live.size).toBe(0);
    const backend = new CpuBackend({ budgetBytes: 1000 });
    await expect(allocateBanks(backend, plans([512, 512]))).rejects.toThrow(OutOfMemoryError);
    expect(backend.ledger().bytes).toBe(0);
    backend.dispose();
  });
});

describe('CPU memory', () => {
  test('a storage is read and written inside its own bytes, until it is freed', async () => {
    const backend = new CpuBackend();
    const [first, second] = [await backend.allocate('first', 64, 'arena'), await backend.allocate('second', 64, 'arena')];
    await expect(backend.write(first, 32, new Uint8Array(64).fill(1))).rejects.toThrow('"first" has 64 bytes, got 64 bytes at 32');
    await expect(backend.read({ storage: first, offset: 64, byteLength: 4 })).rejects.toThrow(ArgumentError);
    expect(await backend.read({ storage: second, offset: 0, byteLength: 64 })).toEqual(new Uint8Array(64));
    first.free();
    await expect(backend.write(first, 0, new Uint8Array(4))).rejects.toThrow(DisposedError);
    backend.dispose();
  });
});
