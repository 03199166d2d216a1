/** `npm run bench -- NAME [arguments]`: runs one of the benchmarks beside this file. Alone, it lists them. */

import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** What each benchmark's module exports. */
interface Benchmark {
  /** One line for the list. */
  readonly summary?: string;
  run(args: readonly string[]): Promise<void>;
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
  await benchmark.run(rest);
  return 0;
}

// Dawn keeps the process alive: the end is said, not awaited.
process.exit(await main(process.argv.slice(2)));
