/** Vocabulary-only model files, made in memory. */

import type { GgufFile } from '../../src/formats/gguf/file.js';
import { openGguf } from '../../src/formats/gguf/open.js';
import { type GgufValue, ggufValue } from '../../src/formats/gguf/values.js';
import { writeGguf } from '../../src/formats/gguf/writer.js';
import { BYTE_TO_CHARACTER } from '../../src/text/byte-alphabet.js';
import { loadTokenizer, type Tokenizer } from '../../src/text/index.js';

export type Keys = Readonly<Record<string, GgufValue>>;

/** A file with these `tokenizer.ggml.*` keys; a key with a dot is taken whole. */
export function vocabularyFile(keys: Keys): Promise<GgufFile> {
  const metadata: [string, GgufValue][] = [['general.architecture', ggufValue.string('llama')]];
  for (const [key, value] of Object.entries(keys)) metadata.push([key.includes('.') ? key : `tokenizer.ggml.${key}`, value]);
  return openGguf(writeGguf({ metadata, tensors: [] }));
}

export interface ExtraToken {
  readonly text: string;
  /** Control, unless given. */
  readonly type?: number;
}

const CONTROL = 3;

/** A byte-level BPE vocabulary: the 256 bytes, a token for each merge, and `extra`. */
export function byteBpeKeys(merges: readonly string[], extra: readonly ExtraToken[] = [], keys: Keys = {}): Keys {
  const tokens = [...BYTE_TO_CHARACTER, ...merges.map((merge) => merge.replace(' ', '')), ...extra.map(({ text }) => text)];
  const types = tokens.map((_, id) => extra[id - 256 - merges.length]?.type ?? (id < 256 + merges.length ? 1 : CONTROL));
  return {
    model: ggufValue.string('gpt2'),
    pre: ggufValue.string('gpt-2'),
    tokens: ggufValue.strings(tokens),
    token_type: ggufValue.i32s(types),
    merges: ggufValue.strings(merges),
    ...keys,
  };
}

/** A SentencePiece vocabulary: unknown, BOS, EOS, the 256 byte tokens (unless `bytes` is false), `pieces` with their scores, and `extra`. */
export function sentencePieceKeys(
  pieces: readonly (readonly [text: string, score: number])[],
  extra: readonly ExtraToken[] = [],
  keys: Keys = {},
  bytes = true,
): Keys {
  const entries: [string, number, number][] = [
    ['<unk>', 0, 2],
    ['<s>', 0, CONTROL],
    ['</s>', 0, CONTROL],
  ];
  for (let byte = 0; bytes && byte < 256; byte++) entries.push([`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, 0, 6]);
  for (const [text, score] of pieces) entries.push([text, score, 1]);
  for (const { text, type } of extra) entries.push([text, 0, type ?? CONTROL]);
  return {
    model: ggufValue.string('llama'),
    tokens: ggufValue.strings(entries.map(([text]) => text)),
    scores: ggufValue.f32s(entries.map(([, score]) => score)),
    token_type: ggufValue.i32s(entries.map(([, , type]) => type)),
    ...keys,
  };
}

export async function tokenizerOf(keys: Keys): Promise<Tokenizer> {
  return loadTokenizer(await vocabularyFile(keys));
}

/** The tokens as the vocabulary writes them. */
export function texts(tokenizer: Tokenizer, ids: readonly number[]): string[] {
  return ids.map((id) => tokenizer.tokenText(id));
}
