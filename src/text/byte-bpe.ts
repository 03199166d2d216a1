import { defined } from '../core/errors.js';
import { BYTE_TO_CHARACTER, toByteAlphabet } from './byte-alphabet.js';
import { mergeSymbols } from './merge.js';
import { makeSplitter, type PreTokenizer } from './pre-tokenizer.js';
import { KEY, TOKEN_TYPE, type Vocabulary, vocabularyError } from './vocabulary.js';

/** Turns a stretch of plain text into token ids, appended to `out`. */
export type TextModel = (text: string, out: number[]) => void;

/** Words whose ids are remembered: natural text repeats few thousand of them. */
const CACHED_WORDS = 16_384;
/** Longer strings may be views that keep the whole text alive. */
const CACHED_WORD_LENGTH = 12;

/** All but the 13 bytes that no UTF-8 has. Some vocabularies lack the leads of characters that are not assigned yet. */
const UTF8_BYTES = Array.from({ length: 0xf5 }, (_, byte) => byte).filter((byte) => byte !== 0xc0 && byte !== 0xc1);

/**
 * Byte-level BPE: words by the pre-tokenizer, bytes as characters, merges by rank.
 * A character with a byte that is no token becomes U+FFFD; where that is none either, the `unknown` token or, without one, an error. `types`: [vocabSize].
 */
export function makeByteBpe(vocabulary: Vocabulary, types: Uint8Array, unknown: number | undefined, rule: PreTokenizer): TextModel {
  if (vocabulary.merges === undefined) throw vocabularyError(KEY.merges, 'missing, and a "gpt2" vocabulary needs it; convert the model again');
  const { ids, forbidden } = wordTokens(vocabulary.tokens, types);
  const ranks = new Map<string, number>();
  for (const [rank, merge] of vocabulary.merges.entries()) if (!ranks.has(merge)) ranks.set(merge, rank);
  const split = makeSplitter(rule);
  const cache = new Map<string, readonly number[]>();
  const hasBytes = (text: string): boolean => [...toByteAlphabet(text)].every((character) => ids.has(character));
  const complete = UTF8_BYTES.every((byte) => ids.has(defined(BYTE_TO_CHARACTER[byte], 'a character of the byte alphabet')));

  const lookUp = (symbol: string, out: number[]): void => {
    const id = ids.get(symbol) ?? (symbol.length === 1 ? unknown : undefined);
    if (id !== undefined) out.push(id);
    else if (symbol.length > 1) for (const character of symbol) lookUp(character, out);
    else throw vocabularyError(KEY.tokens, `no token for the byte that is written "${symbol}", and no unknown token; the text cannot be tokenized`);
  };

  const encodeWord = (word: string): readonly number[] => {
    const symbols = toByteAlphabet(complete ? word : Array.from(word, (character) => (hasBytes(character) ? character : '\uFFFD')).join(''));
    const whole = rule.wholeWords === true ? ids.get(symbols) : undefined;
    if (whole !== undefined) return [whole];
    const out: number[] = [];
    mergeSymbols(
      symbols,
      (start, middle, end) => {
        const rank = ranks.get(`${symbols.slice(start, middle)} ${symbols.slice(middle, end)}`);
        return rank === undefined || forbidden.has(symbols.slice(start, end)) ? -1 : rank;
      },
      (start, end) => lookUp(symbols.slice(start, end), out),
    );
    return out;
  };

  return (text, out) => {
    for (const word of split(text)) {
      let encoded = cache.get(word);
      if (encoded === undefined) {
        encoded = encodeWord(word);
        if (word.length <= CACHED_WORD_LENGTH) {
          if (cache.size === CACHED_WORDS) cache.delete(defined(cache.keys().next().value, 'the oldest cached word'));
          cache.set(word, encoded);
        }
      }
      for (const id of encoded) out.push(id);
    }
  };
}

/**
 * Tokens that plain text may become, by text in the byte alphabet (of two with one text, the first), and the texts that no merge may make: those of control
 * and other special tokens.
 */
function wordTokens(tokens: readonly string[], types: Uint8Array): { ids: Map<string, number>; forbidden: Set<string> } {
  const ids = new Map<string, number>();
  const forbidden = new Set<string>();
  for (const [id, text] of tokens.entries()) {
    const type = types[id];
    const plain = type === TOKEN_TYPE.normal || type === TOKEN_TYPE.unused || type === TOKEN_TYPE.undefined;
    if (!plain) forbidden.add(text);
    else if (!ids.has(text)) ids.set(text, id);
  }
  for (const text of forbidden) if (ids.has(text)) forbidden.delete(text);
  return { ids, forbidden };
}
