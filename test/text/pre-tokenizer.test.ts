import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { makeSplitter, PRE_TOKENIZERS, UNNAMED_PRE_TOKENIZER } from '../../src/text/pre-tokenizer.js';
import { PRE_TOKENIZER_CUTS, PRE_TOKENIZER_TEXTS } from './pre-tokenizer.golden.js';

function split(name: string, text: string): string[] {
  const rule = PRE_TOKENIZERS.get(name);
  if (rule === undefined) throw new Error(`no rule ${name}`);
  return makeSplitter(rule)(text);
}

describe('pre-tokenizers', () => {
  it.each(Object.entries(PRE_TOKENIZER_CUTS))('%s cuts as the original engine does', (name, cuts) => {
    expect(PRE_TOKENIZER_TEXTS.map((text) => split(name, text).join('¦'))).toEqual(cuts);
  });

  it.each([...PRE_TOKENIZERS])('%s keeps every character', (_name, rule) => {
    const splitText = makeSplitter(rule);
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), (text) => {
        const pieces = splitText(text);
        expect(pieces.join('')).toBe(text);
        expect(pieces).not.toContain('');
      }),
      { numRuns: 30 },
    );
  });

  it('takes the end of white space as Unicode has it, not as JavaScript does', () => {
    expect(split('gpt-2', 'a\u0085\u0085b\uFEFFc')).toEqual(['a', '\u0085', '\u0085', 'b', '\uFEFF', 'c']);
  });

  it('splits files without a name as GPT-2 does, with a warning', () => {
    expect(makeSplitter(UNNAMED_PRE_TOKENIZER)("it's 12")).toEqual(['it', "'s", ' 12']);
    expect(UNNAMED_PRE_TOKENIZER.warning).toContain('tokenizer.ggml.pre is missing');
  });

  it.each([...PRE_TOKENIZERS.keys()])('%s gets through long runs', (name) => {
    for (const run of [' ', '\n', ' \n', 'A', 'a', '7', '!', '\u0301', '人', '𐐀']) {
      const text = `${run.repeat(20_000)}9人`;
      expect(split(name, text).join('')).toBe(text);
    }
  });
});
