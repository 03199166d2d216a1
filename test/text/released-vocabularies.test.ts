import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { beforeAll, expect, it } from 'vitest';
import { openGguf } from '../../src/formats/gguf/open.js';
import { loadTokenizer, type Tokenizer } from '../../src/text/index.js';
import { describeExternal } from '../support/fixtures.js';

/** First bytes of characters that a vocabulary has no tokens for: rare control characters, and planes where nothing is assigned. */
const LACKING: Readonly<Record<string, readonly number[]>> = {
  falcon: [0x03, 0x04, 0x05, 0x0b, 0x11, 0x13, 0x14, 0x15, 0x16, 0x17, 0x19, 0x1c, 0x1d, 0x1e, 0xf2],
  starcoder: [0xf1],
};
const utf8 = new TextEncoder();
const keep = (text: string, lacking: readonly number[]): string =>
  Array.from(text, (character) => (lacking.includes(utf8.encode(character)[0] ?? 0) ? '\uFFFD' : character)).join('');

const SEPARATOR = '\n__ggml_vocab_test__\n';

for (const name of ['deepseek-coder', 'falcon', 'gpt-2', 'llama-spm', 'phi-3', 'starcoder']) {
  const path = `vocab/ggml-vocab-${name}.gguf`;
  describeExternal(`the vocabulary of ${name}`, [`fixtures/${path}`, `fixtures/${path}.inp`, `fixtures/${path}.out`], (model, input, output) => {
    let tokenizer: Tokenizer;
    /** Each text is followed by the separator. */
    let inputs: string[];
    beforeAll(async () => {
      const file = await openGguf(model ?? '');
      tokenizer = loadTokenizer(file);
      await file.close();
      inputs = (await readFile(input ?? '', 'utf8')).split(SEPARATOR).slice(0, -1);
    });

    it('gives the published ids for every text', async () => {
      const lines = (await readFile(output ?? '', 'utf8')).split('\n').slice(0, -1);
      expect(inputs).toHaveLength(46);
      expect(inputs.map((text) => tokenizer.encode(text).join(' '))).toEqual(lines.map((line) => line.trim()));
    });

    it('gives the texts back, whole and token by token', () => {
      for (const text of inputs) {
        const ids = tokenizer.encode(text);
        expect(tokenizer.decode(ids)).toBe(text);
        const decoder = tokenizer.createDecoder();
        expect(ids.map((id) => decoder.push(id)).join('') + decoder.flush()).toBe(text);
      }
    });

    it('gives any text back', () => {
      fc.assert(
        fc.property(fc.string({ unit: 'grapheme', maxLength: 80 }), fc.string({ unit: 'binary', maxLength: 20 }), (start, end) => {
          const text = `${start}${end}`;
          fc.pre(tokenizer.kind === 'gpt2' || !text.includes('\u2581'));
          expect(tokenizer.decode(tokenizer.encode(text, { bos: tokenizer.addBos }))).toBe(keep(text, LACKING[name] ?? []));
        }),
      );
    });
  });
}
