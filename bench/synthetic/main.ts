/**
 * Writes model files with real shapes and random weights, for benchmarks here and elsewhere, and prints their paths. Arguments: NAME:MIX, several; --folder=PATH (default: a
 * folder for temporary files).
 */

import { BenchArgs } from '../support/args.js';
import { syntheticFile } from './model.js';

export const summary = 'writes model files with real shapes and random weights: llama-3.1-8b:q4_k_m and others';

export async function run(args: readonly string[]): Promise<void> {
  const known = new BenchArgs(args, { values: ['folder'] });
  if (known.rest.length === 0) throw new Error('no model named: give llama-3.2-1b:q4_k_m, or another NAME:MIX');
  for (const text of known.rest) {
    const started = performance.now();
    const { path, bytes, written } = await syntheticFile(text, known.text('folder'));
    const seconds = (performance.now() - started) / 1e3;
    console.error(`${text}: ${(bytes / 1e9).toFixed(2)} GB ${written ? `written in ${seconds.toFixed(1)} s` : 'there already'}`);
    console.log(path);
  }
}
