import { defined } from '../core/errors.js';
import type { TextModel } from './byte-bpe.js';
import { mergeSymbols } from './merge.js';
import { KEY, parseByteToken, TOKEN_TYPE, type Vocabulary, vocabularyError } from './vocabulary.js';

/** U+2581, which stands for a space in the vocabulary. */
export const SPACE_SYMBOL = '\u2581';

const utf8 = new TextEncoder();

/**
 * SentencePiece BPE: any two neighbours whose concatenation is a token may join, the best score first; a character without a token becomes byte tokens, or the
 * unknown token where the vocabulary has none.
 */
export function makeSentencePiece(vocabulary: Vocabulary, types: Uint8Array, unknown: number | undefined): TextModel {
  const { tokens, scores } = vocabulary;
  if (scores === undefined) throw vocabularyError(KEY.scores, 'missing, and a "llama" vocabulary needs it; convert the model again');
  const ranks = scoreRanks(scores, tokens.length);
  const { ids, bytes, longest } = pieces(tokens, types);
  const complete = bytes.every((id) => id !== undefined);
  if (!complete && unknown === undefined) throw vocabularyError(KEY.tokens, 'wanted all 256 byte tokens or an unknown token, and neither is there');

  return (text, out) => {
    const escaped = text.replaceAll(' ', SPACE_SYMBOL);
    mergeSymbols(
      escaped,
      (start, _middle, end) => {
        if (end - start > longest) return -1;
        const id = ids.get(escaped.slice(start, end));
        return id === undefined ? -1 : (ranks[id] ?? -1);
      },
      (start, end) => {
        const symbol = escaped.slice(start, end);
        const id = ids.get(symbol);
        if (id !== undefined) out.push(id);
        else if (complete) for (const byte of utf8.encode(symbol)) out.push(defined(bytes[byte], 'a byte token'));
        else out.push(defined(unknown, 'the unknown token'));
      },
    );
  };
}

/** Scores as ranks, 0 for the best; equal scores share a rank, so that the leftmost pair goes first. */
function scoreRanks(scores: ArrayLike<number>, count: number): Int32Array {
  const order = Array.from({ length: count }, (_, id) => id).sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || a - b);
  const ranks = new Int32Array(count);
  let rank = -1;
  let last: number | undefined;
  for (const id of order) {
    if (scores[id] !== last) rank++;
    last = scores[id];
    ranks[id] = rank;
  }
  return ranks;
}

/** Tokens that plain text may become, the ids of the byte tokens [256], and the length of the longest text in UTF-16 units. */
function pieces(tokens: readonly string[], types: Uint8Array): { ids: Map<string, number>; bytes: (number | undefined)[]; longest: number } {
  const ids = new Map<string, number>();
  const bytes = new Array<number | undefined>(256).fill(undefined);
  let longest = 0;
  for (const [id, text] of tokens.entries()) {
    const type = types[id];
    if (type === TOKEN_TYPE.byte) bytes[defined(parseByteToken(text), 'the value of a byte token')] ??= id;
    if (type !== TOKEN_TYPE.normal && type !== TOKEN_TYPE.unused && type !== TOKEN_TYPE.undefined) continue;
    if (!ids.has(text)) ids.set(text, id);
    longest = Math.max(longest, text.length);
  }
  return { ids, bytes, longest };
}
