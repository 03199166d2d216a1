/**
 * Every figure of docs/performance.md, one benchmark after the other, each in a process of its own. Arguments: --save=FILE (default: bench/results/last.json), --compare=FILE, --only=NAME,...,
 * --peers: beside the peers that are installed (NLC, COMPUTE_PEERS), --tiny: small enough for a rasteriser, to see that all of it runs.
 */

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { BenchArgs } from './support/args.js';

export const summary = 'every figure of docs/performance.md, one benchmark after the other';

const models = ['llama-3.1-8b:q4_k_m', 'llama-3.2-1b:q4_k_m', 'qwen3-0.6b:q8_0', 'qwen2.5-1.5b:q4_k_m'];

interface Part {
  readonly bench: string;
  readonly args: readonly string[];
  /** Instead of `args` with --tiny; absent where a rasteriser has nothing to measure in seconds. */
  readonly tiny?: readonly string[];
  /** Whether it knows --peers. */
  readonly peers?: true;
}

const parts: readonly Part[] = [
  { bench: 'overhead', args: [], tiny: ['--rounds=10'] },
  {
    bench: 'decode',
    args: [`--synthetic=${models.join(',')}`, '--context=128,512'],
    tiny: ['--synthetic=tiny', '--context=8', '--tokens=4', '--runs=1'],
    peers: true,
  },
  { bench: 'decode', args: [`--synthetic=${models.join(',')}`, '--checked'] },
  { bench: 'prefill', args: [`--synthetic=${models.join(',')}`], tiny: ['--synthetic=tiny', '--rows=32', '--runs=1'], peers: true },
  { bench: 'prefill', args: [`--synthetic=${models.join(',')}`, '--checked'] },
  { bench: 'load', args: [`--synthetic=${models.slice(0, 2).join(',')}`], tiny: ['--synthetic=tiny', '--prompt=8', '--runs=1'] },
  { bench: 'matvec', args: [], tiny: ['--size=256x1024', '--type=q4_k'] },
  { bench: 'gemm', args: ['--selected'] },
  { bench: 'gemm', args: ['--selected', '--checked'] },
  { bench: 'tensor', args: [] },
  { bench: 'tensor', args: ['--checked'] },
  { bench: 'attention', args: [] },
  { bench: 'attention-prefill', args: [] },
  { bench: 'sampling', args: [] },
  { bench: 'matmul-cache', args: ['--only=time'] },
  { bench: 'compute', args: [], peers: true },
];

export async function run(args: readonly string[]): Promise<void> {
  const known = new BenchArgs(args, { flags: ['peers', 'tiny'], values: ['only'] });
  const [only, tiny] = [known.list('only'), known.flag('tiny')];
  const main = fileURLToPath(new URL('./main.js', import.meta.url));
  const failed: string[] = [];
  for (const { bench, args: full, tiny: small, peers } of parts) {
    if ((only.length > 0 && !only.includes(bench)) || (tiny && small === undefined)) continue;
    const compare = known.text('compare');
    const shared = [`--save=${known.text('save') ?? 'bench/results/last.json'}`, ...(compare === undefined ? [] : [`--compare=${compare}`])];
    const own = [...((tiny ? small : undefined) ?? full), ...(peers && known.flag('peers') ? ['--peers'] : [])];
    console.error(`\n${bench} ${own.join(' ')}`);
    if (spawnSync(process.execPath, [main, bench, ...own, ...shared], { stdio: 'inherit' }).status !== 0) failed.push(bench);
  }
  if (failed.length > 0) throw new Error(`${failed.join(', ')} failed`);
}
