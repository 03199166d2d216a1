/**
 * Attention alone, by the device's clock: one token over caches of growing length (the fused kernels of a decode step), and prompts. Every kernel is compared with f64 before it is timed.
 * Arguments: decode, prefill (default: both); --contexts=N,..., --rows=N,...; --shapes=NAME,... of the list below; --sweep: other shapes of the decode kernels too; --warm=MS before each
 * figure (default 50).
 */

import { GpuDevice } from '../../src/gpu/device.js';
import { BenchArgs } from '../support/args.js';
import type { BenchResult, Figure } from '../support/result.js';
import { decodeFigures } from './decode.js';
import { prefillFigures } from './prefill.js';
import { attentionShapes } from './shapes.js';

export const summary = 'attention alone: one token over 512 to 131,072 positions, and prompts';

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['sweep', 'checked'], values: ['contexts', 'rows', 'shapes', 'warm'] });
  const gpu = await GpuDevice.request({ checked: known.flag('checked') });
  const wanted = known.list('shapes');
  const shapes = attentionShapes.filter(({ name }) => wanted.length === 0 || wanted.includes(name));
  const parts = known.rest.length === 0 ? ['decode', 'prefill'] : known.rest;
  const warmMs = known.count('warm', 50);
  const figures: Figure[] = [];
  for (const shape of shapes) {
    if (parts.includes('decode')) {
      for (const context of known.counts('contexts', [512, 1024, 4096, 8192, 32_768, 131_072])) {
        figures.push(...(await decodeFigures(gpu, shape, context, { sweep: known.flag('sweep'), warmMs })));
      }
    }
    if (parts.includes('prefill')) {
      for (const rows of known.counts('rows', [128, 512, 2048, 8192])) figures.push(...(await prefillFigures(gpu, shape, rows, warmMs)));
    }
  }
  return { adapter: gpu.adapterInfo.name, figures };
}
