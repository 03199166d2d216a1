import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { beforeAll, expect, it } from 'vitest';
import { openGguf } from '../../src/formats/gguf/open.js';
import { loadTokenizer, type Tokenizer } from '../../src/text/index.js';
import { describeExternal } from '../support/fixtures.js';

/** Characters whose bytes a vocabulary lacks: planes without assigned characters, and rare control characters. */
const LACKING: Readonly<Record<string, RegExp>> = {
  falcon: /[\u{80000}-\u{BFFFF}\x03-\x05\x0b\x11\x13-\x17\x19\x1c-\x1e]/gu,
  starcoder: /[\u{40000}-\u{7FFFF}]/gu,
};
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
          const lacking = LACKING[name];
          const kept = lacking === undefined ? text : text.replace(lacking, '\uFFFD');
          expect(tokenizer.decode(tokenizer.encode(text, { bos: tokenizer.addBos }))).toBe(kept);
        }),
      );
    });
  });
}
