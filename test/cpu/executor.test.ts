import { afterEach, describe, expect, it } from 'vitest';
import { DeviceError, DisposedError, OutOfMemoryError, PlanError } from '../../src/core/errors.js';
import { CpuDevice } from '../../src/cpu/executor.js';
import type { CpuKernel } from '../../src/cpu/kernel.js';
import { cpuAlignment } from '../../src/cpu/memory.js';
import { cpuTarget } from '../../src/cpu/target.js';
import { i32, type WasmProgram } from '../../src/cpu/wasm/assembler.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { planGraph } from '../../src/plan/plan.js';

const devices: CpuDevice[] = [];
function open(budgetBytes?: number): CpuDevice {
  const device = new CpuDevice(budgetBytes === undefined ? {} : { budgetBytes });
  devices.push(device);
  return device;
}
afterEach(() => {
  for (const device of devices.splice(0)) device.dispose();
});

/** Adds 1 to a word, in TypeScript. */
const increment: CpuKernel = {
  key: 'increment',
  family: 'increment',
  programs: [],
  bind(context) {
    const words = context.u32(0);
    return () => {
      words[0] = (words[0] ?? 0) + 1;
    };
  },
};

function wordOf(device: CpuDevice, offset: number): number | undefined {
  return new Uint32Array(device.read(offset, 4).buffer)[0];
}

describe('memory of a CPU device', () => {
  it('counts by class and comes back to zero', () => {
    const device = open();
    const weights = device.allocate('w', 'weights', 100);
    const cache = device.allocate('k', 'kv', 64);
    expect([weights.offset % cpuAlignment, weights.size, cache.size]).toEqual([0, 128, 64]);
    expect(device.ledger()).toMatchObject({ bytes: 192, count: 2, byClass: { weights: { bytes: 128, count: 1 }, kv: { bytes: 64, count: 1 } } });
    weights.free();
    weights.free();
    expect(device.ledger()).toMatchObject({ bytes: 64, count: 1, peakBytes: 192 });
    device.dispose();
    expect(device.ledger()).toMatchObject({ bytes: 0, count: 0, byClass: { weights: { bytes: 0 }, kv: { bytes: 0 } } });
  });

  it('gives freed bytes out again, zeroed, and joins neighbours', () => {
    const device = open();
    const [a, b, c] = [device.allocate('a', 'arena', 64), device.allocate('b', 'arena', 64), device.allocate('c', 'arena', 64)];
    device.write(a.offset, new Uint8Array(64).fill(7));
    b.free();
    a.free();
    const joined = device.allocate('d', 'arena', 128);
    expect(joined.offset).toBe(a.offset);
    expect(device.read(joined.offset, 128).every((byte) => byte === 0)).toBe(true);
    expect(c.offset).toBe(joined.offset + 128);
  });

  it('says what was wanted and what is left', () => {
    const device = open(1024);
    device.allocate('a', 'arena', 512);
    const attempt = (): unknown => device.allocate('too much', 'weights', 600);
    expect(attempt).toThrow(OutOfMemoryError);
    expect(attempt).toThrow(/"too much" needs 640 bytes.*512 are left/);
    expect(device.ledger().bytes).toBe(512);
    expect(() => open().allocate('beyond', 'weights', 2 ** 33)).toThrow(OutOfMemoryError);
  });

  it('refuses bytes outside it, and everything after dispose', () => {
    const device = open();
    expect(() => device.read(device.ledger().committedBytes, 1)).toThrow(/not inside/);
    device.dispose();
    expect(() => device.allocate('a', 'arena', 4)).toThrow(DisposedError);
    expect(() => device.read(0, 1)).toThrow(DisposedError);
  });
});

describe('an executable', () => {
  it('replays its steps, also after the memory has grown', async () => {
    const device = open();
    const { offset } = device.allocate('word', 'state', 4);
    const executable = await device.prepare([increment, increment].map((kernel) => ({ kernel, args: [{ offset, byteLength: 4 }] })));
    executable.run();
    const before = device.ledger().committedBytes;
    device.allocate('large', 'arena', 4 << 20);
    expect(device.ledger().committedBytes).toBeGreaterThan(before);
    executable.run();
    expect(wordOf(device, offset)).toBe(4);
    expect(executable.profile()).toHaveLength(2);
    expect(wordOf(device, offset)).toBe(6);
    device.dispose();
    expect(() => executable.run()).toThrow(DisposedError);
  });

  it('compiles a program once a device and calls it', async () => {
    let built = 0;
    const program: WasmProgram = {
      key: 'store 42',
      parameters: 1,
      body: (f) => {
        built++;
        return i32.store(f.parameter(0).get, i32.const(42));
      },
    };
    const kernel: CpuKernel = {
      key: 'k',
      family: 'k',
      programs: [program],
      bind: (context) => {
        const [compiled, address] = [context.compiled(program), context.address(0)];
        return () => compiled(address);
      },
    };
    const device = open();
    const { offset } = device.allocate('word', 'state', 4);
    const step = { kernel, args: [{ offset, byteLength: 4 }] };
    (await device.prepare([step, step])).run();
    await device.prepare([step]);
    expect([wordOf(device, offset), built]).toEqual([42, 1]);
    await expect(device.prepare([{ kernel, args: [] }])).rejects.toThrow(PlanError);
  });

  it('reports a module that the engine refuses', async () => {
    const program: WasmProgram = { key: 'unbalanced', parameters: 0, body: () => ({ type: 'none', bytes: [0x1a] }) };
    const kernel: CpuKernel = { key: 'k', family: 'k', programs: [program], bind: () => () => {} };
    await expect(open().prepare([{ kernel, args: [] }])).rejects.toThrow(DeviceError);
  });
});

describe('the target', () => {
  it('names the types that it can read where a weight has another', () => {
    const g = new GraphBuilder();
    g.output('y', g.linear(g.input('x', { dtype: 'f32', shape: [1, 256] }), g.param('w', { dtype: 'q2_k', shape: [4, 256] }), {}, 'y'));
    expect(() => planGraph(g.build(), cpuTarget())).toThrow(/f32, f16, bf16, q8_0.*got q2_k/);
  });
});
