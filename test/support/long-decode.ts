import { describe, expect, test } from 'vitest';
import type { Backend } from '../../src/runtime/backend.js';
import { largestDifference, makeDecoder, referenceLogits } from './models.js';
import { syntheticModel } from './synthetic.js';

/** Software rasterisers take tens of milliseconds for a step where others want the processor too. */
const timeout = 400_000;

/** What every backend must hold over a long text: position, cache and angles far out, and nothing that adds up. */
export function longDecodeSuite(name: string, open: () => Promise<Backend>): void {
  describe(`a long text on ${name}`, () => {
    test(
      '2,000 tokens decoded one by one end with the logits of the f64 reference',
      async () => {
        const backend = await open();
        const model = syntheticModel();
        const decoder = await makeDecoder(backend, model, { contextLength: 4096, prefillChunk: 8 });
        const ids = [1];
        ids.push(await decoder.nextToken(ids));
        while (ids.length < 2000) {
          // Greedy texts of random weights run in circles: every so often a token of our own leads out.
          if (ids.length % 16 === 0) ids[ids.length - 1] = (ids.length * 29) % model.config.vocabulary;
          ids.push(ids.length % 16 === 0 ? await decoder.nextToken(ids.slice(-1)) : await decoder.continueGreedy());
        }
        expect(decoder.position).toBe(1999);
        const logits = await decoder.nextLogits(ids.slice(-1));
        const { vocabulary } = model.config;
        const wanted = referenceLogits(model, ids).subarray(-vocabulary);
        expect(new Set(ids).size).toBeGreaterThan(32);
        expect(Math.max(...wanted) - Math.min(...wanted)).toBeGreaterThan(0.5);
        expect(largestDifference(logits, wanted)).toBeLessThan(1e-3);
        decoder.dispose();
        backend.dispose();
      },
      timeout,
    );
  });
}
