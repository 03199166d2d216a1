import { afterAll, describe, expect, it } from 'vitest';
import { bytesOf } from '../../src/core/bytes.js';
import type { DType } from '../../src/core/dtype.js';
import { CpuDevice } from '../../src/cpu/executor.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { randomFloats, randomWeight, seededRandom } from '../../src/ops/cases/weight-data.js';
import { stateWord, stateWords } from '../../src/ops/state.js';
import { CpuRun } from './support/run-case.js';

const device = new CpuDevice();
afterAll(() => device.dispose());

const [columns, rows, tokens] = [512, 21, 7];

/** The products of `x`, `count` rows at a time. */
async function products(dtype: DType, weight: Uint8Array, x: Float32Array, count: number): Promise<Float32Array> {
  const g = new GraphBuilder();
  const input = g.input('x', { dtype: 'f32', shape: [count, columns] });
  const y = g.add('linear', { bias: false, residual: false }, [input, g.param('w', { dtype, shape: [rows, columns] })], 'y');
  g.output('y', y);
  const run = new CpuRun(device, g.build());
  run.write('w', weight);
  const out = new Float32Array((x.length / columns) * rows);
  for (let t = 0; t < x.length / columns; t += count) {
    run.write('x', new Uint8Array(x.slice(t * columns, (t + count) * columns).buffer));
    await run.run();
    out.set(new Float32Array(run.read(2).buffer, 0, count * rows), t * rows);
  }
  run.free();
  return out;
}

describe('one row gives the same bits in every tiling', () => {
  it.each(['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q5_1', 'q4_k', 'q6_k'] as const)('linear %s', async (dtype) => {
    const random = seededRandom(5);
    const { bytes } = randomWeight(dtype, rows, columns, random);
    const x = randomFloats(tokens * columns, random);
    expect(await products(dtype, bytes, x, tokens)).toEqual(await products(dtype, bytes, x, 1));
  });

  it.each(['f32', 'f16'] as const)('attention over an %s cache', async (dtype) => {
    const [heads, kvHeads, width, capacity, live] = [4, 2, 32, 16, 3];
    const random = seededRandom(6);
    const q = randomFloats(live * heads * width, random);
    const caches = [0, 1].map(() => randomWeight(dtype, kvHeads * capacity, width, random).bytes);
    const attend = async (queries: Float32Array, position: number, count: number): Promise<Float32Array> => {
      const g = new GraphBuilder();
      const input = g.input('q', { dtype: 'f32', shape: [count, heads, width] });
      const [k, v] = [g.state('k', { dtype, shape: [kvHeads, capacity, width] }), g.state('v', { dtype, shape: [kvHeads, capacity, width] })];
      g.output('y', g.add('attention', { scale: 0.2 }, [input, k, v, g.state('s', { dtype: 'u32', shape: [stateWords(count)] })], 'y'));
      const run = new CpuRun(device, g.build());
      const state = new Uint32Array(stateWords(count));
      state[stateWord.position] = position;
      state[stateWord.rows] = count;
      for (const [name, bytes] of [
        ['q', queries],
        ['k', caches[0]],
        ['v', caches[1]],
        ['s', state],
      ] as const) {
        run.write(name, bytes === undefined ? new Uint8Array() : bytesOf(bytes));
      }
      await run.run();
      const y = new Float32Array(run.read(4).buffer, 0, queries.length);
      run.free();
      return y;
    };
    const row = heads * width;
    const single = await Promise.all([0, 1, 2].map((t) => attend(q.slice(t * row, (t + 1) * row), 5 + t, 1)));
    expect(await attend(q, 5, live)).toEqual(Float32Array.from(single.flatMap((y) => [...y])));
  });
});
