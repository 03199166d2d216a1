/**
 * `npm run bench -- NAME [arguments]`: runs one of the benchmarks beside this file. Alone, it lists them. For those that return their figures:
 * --json prints them with machine and versions, --save=FILE puts them into a file of results, --compare=FILE prints the ratios to the figures of that file (above 1 is better).
 */

import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { BenchResult } from './support/result.js';
import { checkSavePath, comparisonText, readComparison, reportOf, saveReport } from './support/results-file.js';

/** What each benchmark's module exports. */
interface Benchmark {
  /** One line for the list. */
  readonly summary?: string;
  /** Measures and prints; what it resolves with is reported where it is a `BenchResult`. */
  run(args: readonly string[]): Promise<unknown>;
}

const folder = new URL('./', import.meta.url);

/** A benchmark is a module of this folder: `NAME.ts`, or `NAME/main.ts` where it has several files. */
function benchmarkFiles(): Map<string, string> {
  const files = new Map<string, string>();
  for (const entry of readdirSync(fileURLToPath(folder), { withFileTypes: true })) {
    if (entry.isDirectory()) {
      const inside = readdirSync(fileURLToPath(new URL(entry.name, folder)));
      if (inside.includes('main.js')) files.set(entry.name, `./${entry.name}/main.js`);
    } else if (entry.name.endsWith('.js') && entry.name !== 'main.js') files.set(entry.name.slice(0, -3), `./${entry.name}`);
  }
  return files;
}

function isBenchmark(module: object): module is Benchmark {
  return 'run' in module && typeof module.run === 'function';
}

function isResult(value: unknown): value is BenchResult {
  return typeof value === 'object' && value !== null && 'figures' in value;
}

async function load(file: string): Promise<Benchmark | undefined> {
  const module: object = await import(new URL(file, folder).href);
  return isBenchmark(module) ? module : undefined;
}

async function list(files: Map<string, string>): Promise<void> {
  for (const [name, file] of files) {
    const benchmark = await load(file);
    if (benchmark !== undefined) console.error(`  ${name.padEnd(12)} ${benchmark.summary ?? ''}`);
  }
}

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  const files = benchmarkFiles();
  const file = name === undefined ? undefined : files.get(name);
  const benchmark = file === undefined ? undefined : await load(file);
  if (benchmark === undefined) {
    console.error(name === undefined ? 'usage: npm run bench -- NAME [arguments]' : `no benchmark is called '${name}'`);
    await list(files);
    return 2;
  }
  const [save, compare] = ['save', 'compare'].map((option) => optionValue(rest, option));
  // Before anything is measured: a file that cannot be used must not cost the figures.
  if (save !== undefined) checkSavePath(save);
  const before = compare === undefined ? undefined : readComparison(compare);
  const result = await benchmark.run(rest);
  if (!isResult(result)) return 0;
  const made = reportOf(name ?? '', rest, result);
  if (rest.includes('--json')) console.log(JSON.stringify(made));
  if (compare !== undefined && before !== undefined) console.error(comparisonText(compare, before, made));
  if (save !== undefined) saveReport(save, made);
  return 0;
}

/** What was asked for and cannot be is one line, here as in `centella`; the stack is for whoever asks for it. */
function failed(error: unknown): number {
  const stack = process.env['CENTELLA_DEBUG'] === '1' || !(error instanceof Error) || (error.constructor !== Error && !('code' in error));
  console.error(stack ? error : `bench: ${error.message}`);
  return 1;
}

function optionValue(args: readonly string[], name: string): string | undefined {
  const at = args.findIndex((arg) => arg === `--${name}` || arg.startsWith(`--${name}=`));
  if (at < 0) return undefined;
  const [, inline] = /=(.*)$/.exec(args[at] ?? '') ?? [];
  return inline ?? args[at + 1];
}

// Dawn keeps the process alive: the end is said, not awaited.
process.exit(await main(process.argv.slice(2)).catch(failed));
