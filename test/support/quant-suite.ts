import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { Backend } from '../../src/runtime/backend.js';
import { CompiledGraph } from '../../src/runtime/compiled-graph.js';
import { fixture } from './fixtures.js';

/** Types whose blocks the kernels read, by the fixtures' names. */
const types = [
  ['f16', 'f16'],
  ['bf16', 'bf16'],
  ['q8_0', 'q8_0'],
  ['q4_0', 'q4_0'],
  ['q4_1', 'q4_1'],
  ['q5_0', 'q5_0'],
  ['q5_1', 'q5_1'],
  ['q4_K', 'q4_k'],
  ['q5_K', 'q5_k'],
  ['q6_K', 'q6_k'],
] as const;

const [rows, columns] = [4, 512];

/** Steps between two f32 in their order. */
function ulps(a: number, b: number): number {
  const ordered = (x: number): number => {
    const bits = new Int32Array(Float32Array.of(x).buffer)[0] ?? 0;
    return bits < 0 ? -(bits & 0x7fffffff) : bits;
  };
  return Math.abs(ordered(a) - ordered(b));
}

/** ggml's own blocks, decoded by gathering their rows on a backend, against what ggml says that they mean. */
export function quantSuite(name: string, open: () => Promise<Backend>): void {
  describe(`ggml's blocks on ${name}`, () => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await open();
    });
    afterAll(() => backend.dispose());

    test.each(types)('%s decodes within 1 ulp of ggml', async (file, dtype) => {
      const g = new GraphBuilder();
      const ids = g.input('ids', { dtype: 'u32', shape: [rows] });
      g.output('y', g.gatherRows(g.param('table', { dtype, shape: [rows, columns] }), ids));
      const graph = await CompiledGraph.compile(g.build(), backend);
      try {
        await graph.setParam('table', new Uint8Array(await readFile(fixture(`quant/${file}.bin`))));
        const got = (await graph.run({ ids: Uint32Array.of(0, 1, 2, 3) })).get('y') ?? [];
        const wanted = new Float32Array(Uint8Array.from(await readFile(fixture(`quant/${file}.f32`))).buffer);
        expect(wanted).toHaveLength(rows * columns);
        expect(Math.max(...wanted.map((value, i) => ulps(value, got[i] ?? Number.NaN)))).toBeLessThanOrEqual(1);
      } finally {
        graph.dispose();
      }
    });
  });
}
