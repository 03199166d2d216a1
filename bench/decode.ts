/**
 * Greedy decoding of models by the clock: tokens a second of whole `generate` calls after a prompt, median and spread of the runs, the heap after
 * each of them (--expose-gc is not needed: what matters is that it does not grow), and the slowest steps of one decode run.
 * Arguments: model files; --context=N prompt tokens (default 512), --tokens=N (default 128), --runs=N (default 5), --device=webgpu or cpu, --checked, --json.
 */

import { loadModel } from '../src/engine/load.js';
import { profileRows } from '../src/runtime/profile.js';

export const summary = 'decode tokens a second of GGUF models, by the clock';

export async function run(args: readonly string[]): Promise<void> {
  const option = (name: string, otherwise: string): string => args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3) ?? otherwise;
  const [context, tokens, runs] = [Number(option('context', '512')), Number(option('tokens', '128')), Number(option('runs', '5'))];
  const device = option('device', 'auto') === 'cpu' ? 'cpu' : option('device', 'auto') === 'webgpu' ? 'webgpu' : 'auto';
  const results: object[] = [];
  for (const file of args.filter((arg) => !arg.startsWith('--'))) {
    results.push(await measure(file, { context, tokens, runs, device, checked: args.includes('--checked') }));
  }
  if (args.includes('--json')) console.log(JSON.stringify(results));
}

interface Options {
  readonly context: number;
  readonly tokens: number;
  readonly runs: number;
  readonly device: 'auto' | 'webgpu' | 'cpu';
  readonly checked: boolean;
}

async function measure(file: string, { context, tokens, runs, device, checked }: Options): Promise<object> {
  using model = await loadModel(file, { device, checked, contextLength: Math.max(1024, context + tokens) });
  // Ids that every vocabulary has; a random model may end early, so that the rates count what was generated.
  const prompt = Array.from({ length: context }, (_, i) => (i * 7919 + 13) % 250);
  const rates: number[] = [];
  const heaps: number[] = [];
  for (let i = 0; i < runs + 2; i++) {
    const { timings } = await model.generate(prompt, { maxTokens: tokens, temperature: 0 }).result;
    if (i < 2) continue;
    rates.push(timings.generationTokensPerSecond);
    heaps.push(process.memoryUsage().heapUsed / 2 ** 20);
  }
  rates.sort((a, b) => a - b);
  const median = rates[Math.floor(rates.length / 2)] ?? Number.NaN;
  const [least, most] = [rates[0] ?? Number.NaN, rates.at(-1) ?? Number.NaN];
  const rows = profileRows(await model.profile(), (label) => label.replace(/^blk\.\d+\./, '')).slice(0, 6);
  const { name, checks } = model.backend;
  console.error(
    `${file}  ${name} (${checks}), after ${context} tokens: ${median.toFixed(0)} tok/s (${least.toFixed(0)} to ${most.toFixed(0)}, ${runs} runs of ${tokens})`,
  );
  console.error(`  heap after each run: ${heaps.map((heap) => heap.toFixed(1)).join(', ')} MiB`);
  console.error(`  ${rows.map(({ label, microseconds }) => `${label} ${microseconds.toFixed(0)} us`).join(', ')}`);
  return {
    file: file.split('/').at(-1),
    adapter: name,
    checks,
    context,
    tokens,
    runs,
    tokensPerSecond: { median, least, most },
    heapMiB: heaps,
    load: model.loadTimings,
  };
}
