import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { CpuDevice } from '../../src/cpu/executor.js';
import type { CpuKernel } from '../../src/cpu/kernel.js';
import { i32, plus, v128, type WasmProgram } from '../../src/cpu/wasm/assembler.js';
import { expOfNonPositive, finiteHalfDecoder, halfDecoder } from '../../src/cpu/wasm/math.js';
import { halfToFloat } from '../../src/quant/index.js';

const device = new CpuDevice();
afterAll(() => device.dispose());

/** Runs a program with the parameters (input, output, vectors of output). */
async function map(program: WasmProgram, input: Uint8Array, outputs: number): Promise<Float32Array> {
  const [x, y] = [device.allocate('x', 'arena', input.byteLength), device.allocate('y', 'arena', outputs * 4)];
  device.write(x.offset, input);
  const kernel: CpuKernel = {
    key: program.key,
    family: 'test',
    programs: [program],
    bind: (context) => () => context.compiled(program)(x.offset, y.offset, outputs / 4),
  };
  (await device.prepare([{ kernel, args: [] }])).run();
  const result = new Float32Array(device.read(y.offset, outputs * 4).buffer);
  x.free();
  y.free();
  return result;
}

const exponential = (underflow: 'flush' | 'gradual'): WasmProgram => ({
  key: `exp ${underflow}`,
  parameters: 3,
  body(f) {
    const [x, y, vectors] = [f.parameter(0), f.parameter(1), f.parameter(2)];
    const value = f.local('v128');
    const exp = expOfNonPositive(f, underflow);
    return f.repeat(vectors.get, value.set(v128.load(x.get)), exp(value), v128.store(y.get, value.get), x.set(plus(x.get, 16)), y.set(plus(y.get, 16)));
  },
});

function halves(decoder: typeof halfDecoder): WasmProgram {
  return {
    key: decoder.name,
    parameters: 3,
    body(f) {
      const [x, y, vectors] = [f.parameter(0), f.parameter(1), f.parameter(2)];
      const decode = decoder(f);
      return f.repeat(vectors.get, v128.store(y.get, decode(v128.load16x4s(x.get))), x.set(plus(x.get, 8)), y.set(plus(y.get, 16)));
    },
  };
}

describe('vector mathematics', () => {
  it('e^x is within 2 ulp down to the smallest normal number', async () => {
    const x = Float32Array.from({ length: 40_000 }, (_, i) => (-87.3 * i) / 40_000);
    const y = await map(exponential('flush'), new Uint8Array(x.buffer), x.length);
    const worst = x.reduce((most, value, i) => Math.max(most, Math.abs((y[i] ?? 0) / Math.exp(value) - 1)), 0);
    expect(worst).toBeLessThan(2 * 2 ** -23);
  });

  it('e^x underflows to 0 at once, or by way of subnormal numbers', async () => {
    const x = Float32Array.of(0, -88, -100, -103, -104, -1e30, Number.NEGATIVE_INFINITY, Number.NaN);
    expect([...(await map(exponential('flush'), new Uint8Array(x.buffer), 8))]).toEqual([1, 0, 0, 0, 0, 0, 0, Number.NaN]);
    const gradual = await map(exponential('gradual'), new Uint8Array(x.buffer), 8);
    for (const i of [0, 1, 2, 3]) expect(Math.abs((gradual[i] ?? Number.NaN) - Math.exp(x[i] ?? 0))).toBeLessThanOrEqual(2 ** -149);
    expect([...gradual.subarray(4)]).toEqual([0, 0, 0, Number.NaN]);
  });

  it.each([
    [halfDecoder, 'infinities and NaN too', () => true],
    [finiteHalfDecoder, 'of the finite ones', (half: number) => (half & 0x7c00) !== 0x7c00],
  ] as const)('%o decodes every half exactly, %s', async (decoder, _which, counts) => {
    const bits = Uint16Array.from({ length: 65_536 }, (_, i) => i);
    const got = await map(halves(decoder), new Uint8Array(bits.buffer), bits.length);
    const wrong = [...bits].filter((half) => counts(half) && !Object.is(got[half], halfToFloat(half)));
    expect(wrong).toEqual([]);
  });
});

describe('the assembler', () => {
  it('encodes any i32 constant and any offset', async () => {
    const sample = fc.sample(fc.tuple(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), fc.nat(2 ** 20)), 60);
    for (const [value, offset] of [[0, 0], [63, 127], [64, 128], [-64, 16_383], [-65, 16_384], [2 ** 31 - 1, 1], [-(2 ** 31), 2], ...sample] as const) {
      const program: WasmProgram = { key: `${value} at ${offset}`, parameters: 1, body: (f) => i32.store(f.parameter(0).get, i32.const(value), offset) };
      const kernel: CpuKernel = { key: program.key, family: 'test', programs: [program], bind: (context) => () => context.compiled(program)(target.offset) };
      const target = device.allocate('target', 'arena', 2 ** 20 + 4);
      (await device.prepare([{ kernel, args: [] }])).run();
      expect(new Int32Array(device.read(target.offset + offset, 4).buffer)[0]).toBe(value);
      target.free();
    }
  });
});
