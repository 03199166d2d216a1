import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FormatError } from '../../src/core/errors.js';
import { openGguf } from '../../src/formats/gguf/open.js';
import { ggufValue } from '../../src/formats/gguf/values.js';
import { loadTokenizer } from '../../src/text/index.js';
import { fixture } from '../support/fixtures.js';
import { byteBpeKeys, type ExtraToken, sentencePieceKeys, texts, tokenizerOf } from './vocabulary-file.js';

const USER_DEFINED = 4;
const SPACE_AND_A = [
  ['▁', -1],
  ['a', -2],
] as const;
/** Any text, well-formed or not, with a taste for spaces and for what a vocabulary has. */
const anyText = fc
  .array(fc.oneof(fc.string({ unit: 'binary', maxLength: 4 }), fc.constantFrom(' ', '  ', 'the', 'hello', '\n', '\uD800', '\uDC00', '\uFEFF', '<s>', '</s>')), {
    maxLength: 12,
  })
  .map((parts) => parts.join(''));
const wellFormed = (text: string): string => new TextDecoder('utf-8', { ignoreBOM: true }).decode(new TextEncoder().encode(text));

describe('byte-level BPE', () => {
  const merges = ['t h', 'th e', 'Ġ the', 'h e', 'l l', 'he ll', 'hell o', 'Ġ hello'];

  it('merges by rank within words', async () => {
    const tokenizer = await tokenizerOf(byteBpeKeys(merges));
    expect(texts(tokenizer, tokenizer.encode('the hello thehe'))).toEqual(['the', 'Ġhello', 'Ġthe', 'he']);
    expect(tokenizer.encode('')).toEqual([]);
  });

  it('takes whole words where the pre-tokenizer says so', async () => {
    const extra = [{ text: 'shell', type: 1 }];
    const whole = await tokenizerOf(byteBpeKeys(merges, extra, { pre: ggufValue.string('tekken') }));
    const merged = await tokenizerOf(byteBpeKeys(merges, extra, { pre: ggufValue.string('qwen2') }));
    expect(texts(whole, whole.encode('shell'))).toEqual(['shell']);
    expect(texts(merged, merged.encode('shell'))).toEqual(['s', 'hell']);
  });

  it('gives back any text', async () => {
    const tokenizer = await tokenizerOf(byteBpeKeys(merges, [{ text: '  ', type: USER_DEFINED }, { text: '<s>' }]));
    fc.assert(
      fc.property(anyText, (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(wellFormed(text));
      }),
    );
  });

  it('reads the model file of the fixtures', async () => {
    await using file = await openGguf(fixture('gguf/llama.gguf'));
    const tokenizer = loadTokenizer(file);
    const { model } = JSON.parse(await readFile(fixture('hf/llama/tokenizer.json'), 'utf8')) as { model: { vocab: Record<string, number> } };
    expect(tokenizer.kind).toBe('gpt2');
    expect(tokenizer.vocabSize).toBe(384);
    expect(Object.entries(model.vocab).filter(([text, id]) => tokenizer.tokenText(id) !== text)).toEqual([]);
    expect(tokenizer.addBos).toBe(false);
    expect(tokenizer.eogIds).toContain(tokenizer.eosId);
    const text = 'Once upon a time, the cat sat.';
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    expect(tokenizer.encode(text).length).toBeLessThan(text.length);
  });

  it('reads U+FFFD for a character that the vocabulary has no bytes for', async () => {
    const { tokens, ...keys } = byteBpeKeys([], [{ text: '<end>' }], { unknown_token_id: ggufValue.u32(256) });
    if (tokens?.type !== 'array' || tokens.elementType !== 'string') throw new Error('wanted the tokens');
    const tokenizer = await tokenizerOf({ ...keys, tokens: ggufValue.strings(tokens.values.with(0xf1, 'none')) });
    expect(tokenizer.decode(tokenizer.encode('a\u{50000}é😀'))).toBe('a\uFFFDé😀');
  });

  it('names a byte that the vocabulary lacks, or uses the unknown token', async () => {
    const keys = { ...byteBpeKeys([]), tokens: ggufValue.strings(['a', '<unk>']), token_type: ggufValue.i32s([1, 2]) };
    const without = await tokenizerOf(keys);
    expect(() => without.encode('ab')).toThrow(expect.objectContaining({ code: 'E_VOCAB', key: 'tokenizer.ggml.tokens' }));
    const withUnknown = await tokenizerOf({ ...keys, unknown_token_id: ggufValue.u32(1) });
    // The three bytes of U+FFFD.
    expect(withUnknown.encode('aé')).toEqual([0, 1, 1, 1]);
  });

  it('does not let a merge make a control token', async () => {
    const twin = await tokenizerOf(byteBpeKeys(['< |', '<| >'], [{ text: '<|>' }]));
    expect(twin.encode('<|>')).toEqual([257]);
    expect([twin.isControl(257), twin.isControl(258)]).toEqual([false, true]);
    const keys = byteBpeKeys(['< |'], [{ text: '<|>' }]);
    const guarded = await tokenizerOf({ ...keys, merges: ggufValue.strings(['< |', '<| >']) });
    expect(texts(guarded, guarded.encode('<|>'))).toEqual(['<|', '>']);
    expect(texts(guarded, guarded.encode('<|>', { special: true }))).toEqual(['<|>']);
  });
});

describe('SentencePiece', () => {
  const pieces = [
    ['▁', -1],
    ['t', -2],
    ['h', -3],
    ['e', -4],
    ['▁t', -5],
    ['he', -6],
    ['▁the', -7],
    ['th', -8],
    ['the', -9],
  ] as const;

  it('merges by score, prefixes a space, falls back to bytes', async () => {
    const tokenizer = await tokenizerOf(sentencePieceKeys(pieces));
    expect(texts(tokenizer, tokenizer.encode('the thé'))).toEqual(['▁the', '▁t', 'h', '<0xC3>', '<0xA9>']);
    expect(tokenizer.encode('')).toEqual([]);
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.addBos, tokenizer.addEos, tokenizer.addSpacePrefix]).toEqual([1, 2, true, false, true]);
  });

  it('makes the leftmost of equal pairs first', async () => {
    const tokenizer = await tokenizerOf(
      sentencePieceKeys(
        [
          ['a', -1],
          ['aa', -2],
        ],
        [],
        { add_space_prefix: ggufValue.bool(false) },
      ),
    );
    expect(texts(tokenizer, tokenizer.encode('aaa'))).toEqual(['aa', 'a']);
  });

  it('gives the unknown token where there are no bytes, one for a character', async () => {
    const tokenizer = await tokenizerOf(sentencePieceKeys(pieces, [], {}, false));
    expect(texts(tokenizer, tokenizer.encode('t😀e'))).toEqual(['▁t', '<unk>', 'e']);
  });

  it('gives back any text without the space symbol', async () => {
    const tokenizer = await tokenizerOf(sentencePieceKeys(pieces, [{ text: '▁▁', type: USER_DEFINED }]));
    fc.assert(
      fc.property(anyText, (text) => {
        fc.pre(!text.includes('▁'));
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(wellFormed(text));
      }),
    );
  });

  it('takes a million characters', async () => {
    const tokenizer = await tokenizerOf(sentencePieceKeys(pieces));
    const text = 'the '.repeat(250_000);
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  });

  it('guesses types where the file has none', async () => {
    const { token_type: _types, ...keys } = sentencePieceKeys(pieces);
    const tokenizer = await tokenizerOf(keys);
    expect([0, 1, 2, 3].map((id) => tokenizer.isControl(id))).toEqual([false, true, true, false]);
    expect(tokenizer.decode(tokenizer.encode('thé'))).toBe('thé');
  });
});

describe('special tokens', () => {
  const extra: ExtraToken[] = [
    { text: '<|im_start|>' },
    { text: '<|im_end|>' },
    { text: '<tool>', type: USER_DEFINED },
    { text: '<tool>s', type: USER_DEFINED },
  ];

  it('are text unless asked for; user-defined ones always count', async () => {
    const tokenizer = await tokenizerOf(byteBpeKeys([], extra));
    const text = '<|im_start|>a<tool>sb<tool>';
    expect(texts(tokenizer, tokenizer.encode(text, { special: true }))).toEqual(['<|im_start|>', 'a', '<tool>s', 'b', '<tool>']);
    const plain = texts(tokenizer, tokenizer.encode(text));
    expect(plain).not.toContain('<|im_start|>');
    expect(plain.slice(-4)).toEqual(['a', '<tool>s', 'b', '<tool>']);
  });

  it('show in decoded text only on demand', async () => {
    const tokenizer = await tokenizerOf(byteBpeKeys([], extra));
    const ids = tokenizer.encode('<|im_start|>hi<|im_end|>', { special: true });
    expect(tokenizer.decode(ids)).toBe('hi');
    expect(tokenizer.decode(ids, { special: true })).toBe('<|im_start|>hi<|im_end|>');
  });

  it('BOS and EOS come where wanted', async () => {
    const ids = { bos_token_id: ggufValue.u32(256), eos_token_id: ggufValue.u32(257) };
    const silent = await tokenizerOf(byteBpeKeys([], extra, ids));
    expect([silent.encode('a'), silent.encode('a', { bos: 'auto', eos: 'auto' })].map((list) => list.length)).toEqual([1, 1]);
    expect(silent.encode('', { bos: true, eos: true })).toEqual([256, 257]);
    const adding = await tokenizerOf(byteBpeKeys([], extra, { ...ids, add_bos_token: ggufValue.bool(true), add_eos_token: ggufValue.bool(true) }));
    expect(adding.encode('', { bos: 'auto', eos: 'auto' })).toEqual([256, 257]);
    expect(adding.encode('')).toEqual([]);
    const none = await tokenizerOf(byteBpeKeys([]));
    expect(() => none.encode('a', { bos: true })).toThrow(expect.objectContaining({ code: 'E_ARGUMENT', argument: 'bos' }));
  });

  it('that end a generation are known by id, by key and by text', async () => {
    const tokenizer = await tokenizerOf(
      byteBpeKeys([], [...extra, { text: '<turn>' }, { text: '</s>', type: 1 }, { text: '<|eot_id|>', type: 1 }], {
        eos_token_id: ggufValue.u32(256),
        eot_token_id: ggufValue.u32(260),
      }),
    );
    expect(texts(tokenizer, tokenizer.eogIds)).toEqual(['<|im_start|>', '<|im_end|>', '<turn>', '<|eot_id|>']);
    expect(tokenizer.isControl(262)).toBe(true);
  });

  it('let <|end|> pass where messages of one turn end with it', async () => {
    const harmony = ['<|return|>', '<|call|>', '<|end|>'].map((text) => ({ text }));
    const tokenizer = await tokenizerOf(byteBpeKeys([], harmony, { eos_token_id: ggufValue.u32(256) }));
    expect(texts(tokenizer, tokenizer.eogIds)).toEqual(['<|return|>', '<|call|>']);
    const phi = await tokenizerOf(byteBpeKeys([], [{ text: '<|end|>' }]));
    expect(texts(phi, phi.eogIds)).toEqual(['<|end|>']);
  });

  it('take white space after them in Phi-3', async () => {
    const keys = (name: string) => sentencePieceKeys(SPACE_AND_A, [{ text: '<|user|>' }], { 'general.name': ggufValue.string(name) });
    const phi = await tokenizerOf(keys('Phi-3-mini'));
    const other = await tokenizerOf(keys('tiny'));
    const text = '<|user|>\na';
    expect(texts(phi, phi.encode(text, { special: true }))).toEqual(['<|user|>', '▁', 'a']);
    expect(phi.decode(phi.encode(text, { special: true }), { special: true })).toBe('<|user|>a');
    expect(other.decode(other.encode(text, { special: true }), { special: true })).toBe(text);
  });
});

describe('decoding', () => {
  it('streams what it decodes as a whole, and never half a character', async () => {
    const tokenizer = await tokenizerOf(byteBpeKeys(['Ã ©'], [{ text: '<s>' }]));
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 257 })), (ids) => {
        const decoder = tokenizer.createDecoder();
        const pushed = ids.map((id) => decoder.push(id));
        const whole = pushed.join('') + decoder.flush();
        expect(whole).toBe(tokenizer.decode(ids));
        const bytes = ids.filter((id) => !tokenizer.isControl(id)).flatMap((id) => [...tokenizer.tokenBytes(id)]);
        expect(whole).toBe(new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes)));
      }),
    );
    const decoder = tokenizer.createDecoder();
    expect([0xf0, 0x9f, 0x98, 0x80].map((byte) => decoder.push(byte))).toEqual(['', '', '', '😀']);
    expect([decoder.push(0xf0), decoder.flush(), decoder.push(0x41), decoder.flush()]).toEqual(['', '\uFFFD', 'A', '']);
  });

  it('drops the space that encoding put there, and no other', async () => {
    const tokenizer = await tokenizerOf(
      sentencePieceKeys([
        ['▁', -1],
        ['a', -2],
        ['▁a', -3],
      ]),
    );
    const word = tokenizer.encode('a');
    expect(texts(tokenizer, word)).toEqual(['▁a']);
    expect(tokenizer.decode([...word, ...word])).toBe('a a');
    expect(tokenizer.decode([1, ...word])).toBe('a');
    expect(tokenizer.decode(word, { after: 1 })).toBe('a');
    expect(tokenizer.decode(word, { after: word[0] ?? -1 })).toBe(' a');
    expect(tokenizer.decode(tokenizer.encode('  a'))).toBe('  a');
  });

  it('takes tokens outside of the byte alphabet as they stand', async () => {
    const tokenizer = await tokenizerOf(byteBpeKeys([], [{ text: '<｜User｜>', type: 1 }]));
    expect(tokenizer.decode([256])).toBe('<｜User｜>');
  });

  it('refuses ids that are none', async () => {
    const tokenizer = await tokenizerOf(byteBpeKeys([]));
    for (const id of [-1, 256, 0.5, Number.NaN]) expect(() => tokenizer.decode([id])).toThrow(expect.objectContaining({ code: 'E_ARGUMENT', argument: 'id' }));
  });
});

describe('loadTokenizer', () => {
  it.each([
    ['an unknown pre-tokenizer', byteBpeKeys([], [], { pre: ggufValue.string('gpt-9') }), 'tokenizer.ggml.pre'],
    ['an unknown kind', byteBpeKeys([], [], { model: ggufValue.string('t5') }), 'tokenizer.ggml.model'],
    ['no vocabulary', {}, 'tokenizer.ggml.tokens'],
  ])('refuses %s', async (_what, keys, key) => {
    const error = await tokenizerOf(keys).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(FormatError);
    expect(error).toMatchObject({ code: 'E_VOCAB', key });
  });

  it.each(['pre', 'merges', 'model'])('without the key %s', async (name) => {
    const { [name]: _absent, ...keys } = byteBpeKeys([]);
    if (name === 'pre') expect((await tokenizerOf(keys)).warnings).toHaveLength(1);
    else await expect(tokenizerOf(keys)).rejects.toMatchObject({ code: 'E_VOCAB', key: `tokenizer.ggml.${name}` });
  });

  it('needs scores for SentencePiece', async () => {
    const { scores: _absent, ...keys } = sentencePieceKeys([]);
    await expect(tokenizerOf(keys)).rejects.toMatchObject({ code: 'E_VOCAB', key: 'tokenizer.ggml.scores' });
  });
});
