import { describe, expect, it } from 'vitest';
import { type GgufValue, ggufValue } from '../../src/formats/gguf/values.js';
import { writeGguf } from '../../src/formats/gguf/writer.js';
import { openGguf } from '../../src/gguf.js';
import { checkVocabulary, loadTokenizer } from '../../src/text/index.js';
import { byteBpeKeys, type Keys, sentencePieceKeys, vocabularyFile } from './vocabulary-file.js';

const { i32s, f32s, strings, string, u32, bool } = ggufValue;
const two: Keys = { tokens: strings(['a', 'b']) };
const u8s: GgufValue = { type: 'array', elementType: 'u8', values: Uint8Array.of(1, 2) };

const malformed: [what: string, keys: Keys, key: string][] = [
  ['scores as bytes', { ...two, scores: u8s }, 'scores'],
  ['tokens that are no strings', { tokens: ggufValue.u32s([1, 2]) }, 'tokens'],
  ['an EOS id beyond the tokens', { ...two, eos_token_id: u32(999_999) }, 'eos_token_id'],
  ['an unknown id beyond the tokens', { ...two, unknown_token_id: u32(2) }, 'unknown_token_id'],
  ['a negative padding id', { ...two, padding_token_id: ggufValue.i32(-1) }, 'padding_token_id'],
  ['a BOS id that is a string', { ...two, bos_token_id: string('0') }, 'bos_token_id'],
  ['no tokens', { tokens: strings([]) }, 'tokens'],
  ['types without tokens', { token_type: i32s([1]) }, 'token_type'],
  ['fewer types than tokens', { ...two, token_type: i32s([1]) }, 'token_type'],
  ['a type that is none', { ...two, token_type: i32s([1, 7]) }, 'token_type'],
  ['a negative type', { ...two, token_type: i32s([1, -1]) }, 'token_type'],
  ['types as floats', { ...two, token_type: f32s([1, 1]) }, 'token_type'],
  ['more scores than tokens', { ...two, scores: f32s([0, 0, 0]) }, 'scores'],
  ['a score that is no number', { ...two, scores: f32s([0, Number.NaN]) }, 'scores'],
  ['a byte token with a wrong text', { tokens: strings(['<0x-1>', 'b']), token_type: i32s([6, 1]) }, 'tokens'],
  ['a merge of one text', { ...two, merges: strings(['ab']) }, 'merges'],
  ['a merge with nothing on the left', { ...two, merges: strings([' ab']) }, 'merges'],
  ['a merge with nothing on the right', { ...two, merges: strings(['ab ']) }, 'merges'],
  ['merges that are no strings', { ...two, merges: i32s([1]) }, 'merges'],
  ['a model that is a number', { ...two, model: u32(1) }, 'model'],
  ['a pre-tokenizer that is a number', { ...two, pre: u32(1) }, 'pre'],
  ['a BOS switch that is a number', { ...two, add_bos_token: u32(1) }, 'add_bos_token'],
  ['BOS wanted and not there', { ...two, add_bos_token: bool(true) }, 'add_bos_token'],
  ['EOS wanted and not there', { ...two, add_eos_token: bool(true) }, 'add_eos_token'],
];

describe('checkVocabulary', () => {
  it.each(malformed)('refuses %s', async (_what, keys, key) => {
    const file = await vocabularyFile(keys);
    const refusal = expect.objectContaining({ name: 'FormatError', code: 'E_VOCAB', key: `tokenizer.ggml.${key}` });
    expect(() => checkVocabulary(file)).toThrow(refusal);
    expect(() => loadTokenizer(file)).toThrow(refusal);
  });

  it('has nothing to say of a file without a tokenizer', async () => {
    expect(checkVocabulary(await vocabularyFile({}))).toBeUndefined();
    expect(checkVocabulary(await vocabularyFile({ model: string('none') }))).toBeUndefined();
  });

  it('sums up what it finds, also kinds that cannot be run', async () => {
    expect(checkVocabulary(await vocabularyFile(byteBpeKeys(['a b'], [{ text: '<s>' }], { bos_token_id: u32(257) })))).toEqual({
      model: 'gpt2',
      pre: 'gpt-2',
      vocabSize: 258,
      merges: 1,
      special: { bos: 257 },
    });
    expect(checkVocabulary(await vocabularyFile(sentencePieceKeys([['a', 0]])))).toMatchObject({ model: 'llama', vocabSize: 260, merges: 0 });
    expect(checkVocabulary(await vocabularyFile({ ...two, model: string('bert') }))).toMatchObject({ model: 'bert', vocabSize: 2 });
  });

  it('loads a token that is no UTF-8', async () => {
    const bytes = writeGguf({
      metadata: Object.entries(byteBpeKeys([], [{ text: 'BAD' }])).map(([key, value]) => [`tokenizer.ggml.${key}`, value]),
      tensors: [],
    });
    const at = bytes.findIndex((byte, i) => byte === 0x42 && bytes[i + 1] === 0x41 && bytes[i + 2] === 0x44);
    bytes[at + 1] = 0xff;
    const tokenizer = loadTokenizer(await openGguf(bytes));
    expect(tokenizer.tokenText(256)).toBe('B\uFFFDD');
    expect(tokenizer.decode(tokenizer.encode('BAD'))).toBe('BAD');
  });
});
