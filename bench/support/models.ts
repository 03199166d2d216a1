/** The models that a benchmark is given: files, and synthetic ones by `--synthetic NAME:MIX`. */

import { basename } from 'node:path';
import { syntheticFile } from '../synthetic/model.js';
import type { BenchArgs } from './args.js';

export interface BenchModel {
  /** What figures call it. */
  readonly name: string;
  readonly path: string;
}

/** Options that `modelsOf` reads. */
export const modelOptions = ['synthetic'] as const;

/** @throws Error where no model is given. */
export async function modelsOf(args: BenchArgs): Promise<readonly BenchModel[]> {
  const models: BenchModel[] = args.rest.map((path) => ({ name: basename(path), path }));
  for (const name of args.list('synthetic')) models.push({ name, path: (await syntheticFile(name)).path });
  if (models.length === 0) throw new Error('no model: give GGUF files, or --synthetic=llama-3.2-1b:q4_k_m for one with random weights');
  return models;
}

/** A prompt of ids that every vocabulary has, and that differ. */
export function promptIds(length: number): number[] {
  return Array.from({ length }, (_, i) => (i * 7919 + 13) % 250);
}
