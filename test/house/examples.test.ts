import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const run = promisify(execFile);

/** What each example prints, in part: one that is not listed here fails. */
const printed: Record<string, readonly string[]> = {
  'batch.mjs': ['relu(x) * 2 + 0.5 = [ 2.5, 4.5, 0.5, 8.5 ]', 'with new data      = [ 0.5, 0.5, 2.5, 4.5 ]'],
  'graph.mjs': ['swiglu at gated: fused', 'linear residual at residual: fused', 'y[0..3] =', 'bytes of trace'],
  'matmul-cache.mjs': ['2 weights in', '3 rows of 10:'],
  'pool.mjs': [''],
  'views.mjs': ['middle: [ 10, 10 ] starts at element 105', 'partial sums:', 'at the edge'],
};

test.each(readdirSync(`${root}examples`).filter((name) => name.endsWith('.mjs')))('examples/%s runs', async (name) => {
  const { stdout } = await run(process.execPath, [`examples/${name}`], { cwd: root });
  expect(Object.keys(printed)).toContain(name);
  for (const line of printed[name] ?? []) expect(stdout).toContain(line);
});

/** What the programs of README.md print, in part, in their order; the model is the embedded one. */
const shown: readonly string[] = ['generatedTokens: 8', 'Float32Array(4) [ 3, 6, -3, 12 ]'];
const programs = [...readFileSync(`${root}README.md`, 'utf8').matchAll(/```ts\n([\s\S]*?)```/g)].map(([, program = '']) => program);

test.each(shown.map((line, index) => [line, index] as const))('a program of README.md prints %s', async (line, index) => {
  expect(programs).toHaveLength(shown.length);
  const program = (programs[index] ?? '').replace("'model.gguf'", "'models/tales-7m.Q8_0.gguf'").replace('maxTokens: 100', 'maxTokens: 8');
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', `${program}process.exit(0);`], { cwd: root });
  expect(stdout).toContain(line);
});
