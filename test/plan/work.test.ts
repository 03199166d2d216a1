import { expect, test } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { stateWords } from '../../src/ops/state.js';
import { planGraph } from '../../src/plan/plan.js';
import { planWork } from '../../src/plan/work.js';
import { fakeTarget } from './support.js';

const target = fakeTarget({ memory: { maxBindingBytes: 1 << 20, maxBankBytes: 1 << 20 } });
const f32 = (...shape: number[]) => ({ dtype: 'f32', shape }) as const;

test('a product moves its weight, its input and its output, and computes two operations a weight and live row', () => {
  const g = new GraphBuilder();
  g.output('y', g.linear(g.input('x', f32(8, 32)), g.param('w', { dtype: 'q8_0', shape: [16, 32] })));
  const plan = planGraph(g.build(), target);
  // This target's product takes a second step, whose flops are counted at the first.
  const [product, second] = planWork(plan);
  expect(product).toEqual({ bytes: 8 * 32 * 4 + 16 * 34 + 8 * 16 * 4, flops: 2 * 8 * 16 * 32 });
  expect(second?.flops).toBe(0);
  expect(planWork(plan, { rows: 3, positions: 3 })[0]?.flops).toBe(2 * 3 * 16 * 32);
});

test('a product of two matrices counts its depth, whichever way they are turned', () => {
  for (const transposeA of [false, true]) {
    const g = new GraphBuilder();
    g.output('y', g.matmul(g.input('a', transposeA ? f32(6, 4) : f32(4, 6)), g.input('b', f32(6, 5)), { transposeA }));
    expect(planWork(planGraph(g.build(), target)).map(({ flops }) => flops)).toEqual([2 * 4 * 6 * 5]);
  }
});

test('attention reads caches up to the position, and computes over what each row sees', () => {
  const [rows, heads, kvHeads, width, capacity] = [4, 4, 2, 8, 64];
  const g = new GraphBuilder();
  const state = g.state('session', { dtype: 'u32', shape: [stateWords(rows)] });
  const cache = (name: string) => g.state(name, f32(kvHeads, capacity, width));
  const q = g.input('q', f32(rows, heads, width));
  g.output('y', g.attention(q, cache('k'), cache('v'), state, { scale: 1 }));
  const plan = planGraph(g.build(), target);
  const [whole] = planWork(plan);
  const [live] = planWork(plan, { rows, positions: 16 });
  const caches = 2 * kvHeads * width * 4;
  expect((whole?.bytes ?? 0) - (live?.bytes ?? 0)).toBe(caches * (capacity - 16));
  // Rows see 13, 14, 15 and 16 positions.
  expect(live?.flops).toBe(4 * heads * width * (13 + 14 + 15 + 16));
});

test('gathering reads the rows that are gathered; operations without products count no flops', () => {
  const g = new GraphBuilder();
  g.output('y', g.unary('silu', g.gatherRows(g.param('table', f32(100, 16)), g.input('ids', { dtype: 'u32', shape: [4] }))));
  const plan = planGraph(g.build(), target);
  const [gather, silu] = planWork(plan, { rows: 4, positions: 4 });
  expect(gather).toEqual({ bytes: 2 * 4 * 16 * 4 + 4 * 4, flops: 0 });
  expect(silu).toEqual({ bytes: 2 * 4 * 16 * 4, flops: 0 });
});
