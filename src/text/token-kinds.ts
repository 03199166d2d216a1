import { parseByteToken, TOKEN_TYPE, type Vocabulary } from './vocabulary.js';

/**
 * Texts of tokens that end a generation in released models. Files mark them unevenly, so the text decides, whatever the type in the file; but a text without
 * bars may also be a plain piece of HTML or code, and then its type decides.
 */
const END_OF_GENERATION: ReadonlySet<string> = new Set([
  '<|eot_id|>',
  '<|eom_id|>',
  '<|im_end|>',
  '<|end|>',
  '<|return|>',
  '<|call|>',
  '<|calls|>',
  '<|flush|>',
  '<end_of_turn>',
  '<|endoftext|>',
  '<|end_of_text|>',
  '<EOT>',
  '_<EOT>',
  '[EOT]',
  '[EOS]',
  '<end_of_utterance>',
  '<\uFF5Cend\u2581of\u2581sentence\uFF5C>',
  '</s>',
  '<eos>',
]);

const BARRED = /^<[|\uFF5C]/;

/** Fill-in-the-middle tokens that end a generation: padding, and the start of another file or repository. */
const FIM_ENDS: ReadonlySet<string> = new Set(['<|fim_pad|>', '<fim-pad>', '<fim_pad>', '<|fim_repo|>', '<fim-repo>', '<|repo_name|>', '<|file_sep|>']);

export interface SpecialIds {
  readonly bos: number | undefined;
  readonly eos: number | undefined;
  readonly unknown: number | undefined;
}

export interface TokenKinds {
  /** [vocabSize], values of `TOKEN_TYPE`: the file's, corrected. */
  readonly types: Uint8Array;
  /** Ids that end a generation, ascending. */
  readonly ends: readonly number[];
}

/** BOS, EOS and the unknown token; the "llama" kind has ids for them where the file says nothing. */
export function specialIds({ model, special, tokens }: Vocabulary): SpecialIds {
  const usual = (id: number) => (model === 'llama' && id < tokens.length ? id : undefined);
  return { bos: special.bos ?? usual(1), eos: special.eos ?? usual(2), unknown: special.unknown ?? usual(0) };
}

/** Settles what each token is, and which ones end a generation. */
export function tokenKinds(vocabulary: Vocabulary, ids: SpecialIds): TokenKinds {
  const { tokens, special } = vocabulary;
  const types = vocabulary.types?.slice() ?? guessTypes(vocabulary, ids);
  const ends = new Set<number>();
  for (const id of [ids.eos, special.eot, special.eom, special.fim_pad, special.fim_rep, special.fim_sep]) if (id !== undefined) ends.add(id);
  for (const [id, text] of tokens.entries()) {
    if (END_OF_GENERATION.has(text) && (types[id] !== TOKEN_TYPE.normal || BARRED.test(text))) {
      ends.add(id);
      types[id] = TOKEN_TYPE.control;
    } else if (FIM_ENDS.has(text) && types[id] === TOKEN_TYPE.control) ends.add(id);
  }
  // Harmony's channels: there <|end|> closes a message of several, and the turn ends with one of the others.
  const has = (text: string) => [...ends].some((id) => tokens[id] === text);
  const messageEndsGoOn = (has('<|return|>') && has('<|call|>')) || (has('<|calls|>') && has('<|flush|>'));
  const kept = [...ends].filter((id) => !(messageEndsGoOn && tokens[id] === '<|end|>' && id !== ids.eos));
  return { types, ends: kept.sort((a, b) => a - b) };
}

/** A file without types: the special ids are control tokens, texts such as "<0x0A>" are bytes in a "llama" vocabulary, the rest is text. */
function guessTypes({ model, tokens }: Vocabulary, ids: SpecialIds): Uint8Array {
  const types = new Uint8Array(tokens.length).fill(TOKEN_TYPE.normal);
  if (model === 'llama') for (const [id, text] of tokens.entries()) if (parseByteToken(text) !== undefined) types[id] = TOKEN_TYPE.byte;
  if (ids.unknown !== undefined) types[ids.unknown] = TOKEN_TYPE.unknown;
  for (const id of [ids.bos, ids.eos]) if (id !== undefined) types[id] = TOKEN_TYPE.control;
  return types;
}

/** In Phi-3's tokenizer the special tokens, but for these three, take the whitespace after them; a GGUF file cannot say so, but its name tells. */
export function stripsWhitespaceAfter(modelName: string | undefined, text: string): boolean {
  return /phi-?3/i.test(modelName ?? '') && text !== '<unk>' && text !== '<s>' && text !== '<|endoftext|>';
}
