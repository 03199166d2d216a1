/**
 * Attention of one token alone, by the device's clock, over caches of growing length: the fused kernels of a decode step. Every kernel is compared with f64 before it is timed. Arguments:
 * --contexts=N,...; --shapes=NAME,... of shapes.ts; --sweep: other shapes of the kernels too; --warm=MS before each figure (default 50); --checked. Prompts: see attention-prefill.ts.
 */

import { GpuDevice } from '../../src/gpu/device.js';
import { BenchArgs } from '../support/args.js';
import type { BenchResult, Figure } from '../support/result.js';
import { decodeFigures } from './decode.js';
import { attentionShapes } from './shapes.js';

export const summary = 'attention of one token over 128 to 131,072 positions';

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['sweep', 'checked'], values: ['contexts', 'shapes', 'warm'] });
  const gpu = await GpuDevice.request({ checked: known.flag('checked') });
  const wanted = known.list('shapes');
  const options = { sweep: known.flag('sweep'), warmMs: known.count('warm', 50) };
  const figures: Figure[] = [];
  for (const shape of attentionShapes.filter(({ name }) => wanted.length === 0 || wanted.includes(name))) {
    for (const context of known.counts('contexts', [128, 256, 384, 512, 640, 768, 1024, 4096, 8192, 32_768, 131_072])) {
      figures.push(...(await decodeFigures(gpu, shape, context, options)));
    }
  }
  return { adapter: gpu.adapterInfo.name, figures };
}
