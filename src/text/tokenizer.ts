import { ArgumentError } from '../core/errors.js';
import { fromByteAlphabet } from './byte-alphabet.js';
import { makeByteBpe, type TextModel } from './byte-bpe.js';
import { makeStreamDecoder, type StreamDecoder, type TokenPiece } from './detokenizer.js';
import { type LiteralToken, makePartitioner } from './partition.js';
import { PRE_TOKENIZERS, type PreTokenizer, UNNAMED_PRE_TOKENIZER } from './pre-tokenizer.js';
import { makeSentencePiece, SPACE_SYMBOL } from './sentencepiece.js';
import { type SpecialIds, specialIds, stripsWhitespaceAfter, type TokenKinds, tokenKinds } from './token-kinds.js';
import { KEY, parseByteToken, quote, readVocabulary, specialKey, TOKEN_TYPE, type Vocabulary, type VocabularyMetadata, vocabularyError } from './vocabulary.js';

/** How text becomes ids. */
export interface EncodeOptions {
  /** Put BOS first; "auto": where the model wants it. Default false. */
  bos?: boolean | 'auto';
  /** Put EOS last; "auto": where the model wants it. Default false. */
  eos?: boolean | 'auto';
  /** Read the texts of control tokens, such as "<|im_end|>", as those tokens: for templates, never for what a user typed. Default false. */
  special?: boolean;
}

/** How ids become text. */
export interface DecodeOptions {
  /** Show control tokens as their texts. Default false: they have no text. */
  special?: boolean;
  /** The token before the first one, where the ids go on from others: it decides whether a first space is text. */
  after?: number;
}

/** Text to token ids and back, as the model's own tokenizer does it. Immutable; ids are integers from 0 to `vocabSize` - 1. */
export interface Tokenizer {
  readonly kind: 'gpt2' | 'llama';
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  /** Ids that end a generation (EOS, end of turn and their like), ascending. */
  readonly eogIds: readonly number[];
  /** Whether the model wants BOS before (EOS after) a prompt. */
  readonly addBos: boolean;
  readonly addEos: boolean;
  /** Whether a space is put before each text: the vocabulary knows words with the space before them. */
  readonly addSpacePrefix: boolean;
  /** Doubts about the file, in words; empty for most. */
  readonly warnings: readonly string[];
  /**
   * Token ids of `text`. A lone surrogate counts as U+FFFD, as in UTF-8 encoding everywhere; so does a character that the vocabulary has no bytes for.
   * @throws ArgumentError for BOS or EOS that the vocabulary lacks.
   */
  encode(text: string, options?: EncodeOptions): number[];
  /** The text of `ids`; bytes that are no UTF-8 become U+FFFD. For plain text, decode(encode(text)) is `text`. */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  /** Decodes ids one at a time; see `StreamDecoder`. */
  createDecoder(options?: DecodeOptions): StreamDecoder;
  /** The token as the vocabulary writes it. */
  tokenText(id: number): string;
  /** The bytes that the token stands for; of a control token, those of its text. */
  tokenBytes(id: number): Uint8Array;
  /** Whether the token has no text of its own: it steers. */
  isControl(id: number): boolean;
}

/**
 * Builds the tokenizer of a model file.
 * @throws FormatError E_VOCAB where the vocabulary is missing, malformed, or of a kind that Centella does not know.
 */
export function loadTokenizer(metadata: VocabularyMetadata): Tokenizer {
  const vocabulary = readVocabulary(metadata);
  if (vocabulary === undefined) throw vocabularyError(KEY.tokens, 'missing: the file has no tokenizer; convert the model again with it');
  const ids = specialIds(vocabulary);
  const kinds = tokenKinds(vocabulary, ids);
  const { model } = vocabulary;
  if (model === 'llama') {
    return new VocabularyTokenizer(vocabulary, kinds, ids, {
      kind: 'llama',
      model: makeSentencePiece(vocabulary, kinds.types, unknownText(ids.unknown, kinds.types)),
      addBos: vocabulary.addBos ?? true,
      addSpacePrefix: vocabulary.addSpacePrefix ?? true,
      warnings: [],
    });
  }
  if (model === 'gpt2') {
    const rule = preTokenizer(vocabulary.pre);
    return new VocabularyTokenizer(vocabulary, kinds, ids, {
      kind: 'gpt2',
      // Some files name the end of text as the unknown token: plain text must never become that.
      model: makeByteBpe(vocabulary, kinds.types, unknownText(ids.unknown, kinds.types), rule),
      addBos: vocabulary.addBos ?? rule.addBos ?? false,
      // Byte-level BPE never puts a space first, whatever the key says.
      addSpacePrefix: false,
      warnings: rule.warning === undefined ? [] : [rule.warning],
    });
  }
  throw vocabularyError(
    KEY.model,
    `wanted "gpt2" or "llama", the kinds of tokenizer that Centella knows, got ${model === undefined ? 'nothing' : quote(model)}`,
  );
}

function unknownText(unknown: number | undefined, types: Uint8Array): number | undefined {
  return unknown !== undefined && types[unknown] === TOKEN_TYPE.control ? undefined : unknown;
}

function preTokenizer(name: string | undefined): PreTokenizer {
  if (name === undefined) return UNNAMED_PRE_TOKENIZER;
  const rule = PRE_TOKENIZERS.get(name);
  if (rule !== undefined) return rule;
  throw vocabularyError(
    KEY.pre,
    `${quote(name)} is a pre-tokenizer that Centella does not know, and a guess would give wrong ids; known: ${[...PRE_TOKENIZERS.keys()].join(', ')}`,
  );
}

interface Behaviour {
  readonly kind: 'gpt2' | 'llama';
  readonly model: TextModel;
  readonly addBos: boolean;
  readonly addSpacePrefix: boolean;
  readonly warnings: readonly string[];
}

const utf8 = new TextEncoder();
const NO_BYTES = new Uint8Array(0);

class VocabularyTokenizer implements Tokenizer {
  readonly kind: 'gpt2' | 'llama';
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly eogIds: readonly number[];
  readonly addBos: boolean;
  readonly addEos: boolean;
  readonly addSpacePrefix: boolean;
  readonly warnings: readonly string[];
  readonly #tokens: readonly string[];
  readonly #types: Uint8Array;
  readonly #model: TextModel;
  /** Cuts out user-defined tokens, and (`special`) control tokens too. */
  readonly #partition: Readonly<Record<'plain' | 'special', (text: string) => (string | number)[]>>;

  constructor(vocabulary: Vocabulary, kinds: TokenKinds, ids: SpecialIds, behaviour: Behaviour) {
    this.kind = behaviour.kind;
    this.vocabSize = vocabulary.tokens.length;
    this.bosId = ids.bos;
    this.eosId = ids.eos;
    this.eogIds = kinds.ends;
    this.addBos = behaviour.addBos && ids.bos !== undefined;
    this.addEos = vocabulary.addEos === true && ids.eos !== undefined;
    this.addSpacePrefix = behaviour.addSpacePrefix;
    this.warnings = behaviour.warnings;
    this.#tokens = vocabulary.tokens;
    this.#types = kinds.types;
    this.#model = behaviour.model;
    this.#partition = {
      plain: makePartitioner(this.#literals([TOKEN_TYPE.userDefined], vocabulary.modelName)),
      special: makePartitioner(this.#literals([TOKEN_TYPE.userDefined, TOKEN_TYPE.control, TOKEN_TYPE.unknown], vocabulary.modelName)),
    };
  }

  encode(text: string, options: EncodeOptions = {}): number[] {
    const out: number[] = [];
    if (options.bos === 'auto' ? this.addBos : options.bos) out.push(this.#wanted('bos', this.bosId));
    const wellFormed = text.replace(/\p{Surrogate}/gu, '\uFFFD');
    let fresh = true;
    for (const fragment of this.#partition[options.special === true ? 'special' : 'plain'](wellFormed)) {
      fresh = fresh || typeof fragment === 'number';
      if (typeof fragment === 'number') out.push(fragment);
      else {
        this.#model(this.addSpacePrefix && fresh ? ` ${fragment}` : fragment, out);
        fresh = false;
      }
    }
    if (options.eos === 'auto' ? this.addEos : options.eos) out.push(this.#wanted('eos', this.eosId));
    return out;
  }

  decode(ids: Iterable<number>, options?: DecodeOptions): string {
    const decoder = this.createDecoder(options);
    let text = '';
    for (const id of ids) text += decoder.push(id);
    return text + decoder.flush();
  }

  createDecoder(options: DecodeOptions = {}): StreamDecoder {
    const atStart = options.after === undefined || this.#startsText(options.after);
    return makeStreamDecoder((id) => this.#piece(id, options.special === true), this.addSpacePrefix, atStart);
  }

  tokenText(id: number): string {
    const text = this.#tokens[id];
    if (text === undefined) throw new ArgumentError('id', `wanted a token id from 0 to ${this.vocabSize - 1}, got ${id}`);
    return text;
  }

  tokenBytes(id: number): Uint8Array {
    const text = this.tokenText(id);
    switch (this.#types[id]) {
      case TOKEN_TYPE.byte:
        return Uint8Array.of(parseByteToken(text) ?? 0);
      case TOKEN_TYPE.control:
      case TOKEN_TYPE.unknown:
        return utf8.encode(text);
      case TOKEN_TYPE.userDefined:
        return utf8.encode(this.#literalText(text));
      default:
        // A token with a character outside of the byte alphabet was added as it stands.
        return this.kind === 'llama' ? utf8.encode(text.replaceAll(SPACE_SYMBOL, ' ')) : (fromByteAlphabet(text) ?? utf8.encode(text));
    }
  }

  isControl(id: number): boolean {
    this.tokenText(id);
    return this.#types[id] === TOKEN_TYPE.control;
  }

  /** Spaces in user-defined tokens of SentencePiece files are written either way. */
  #literalText(text: string): string {
    return this.kind === 'llama' ? text.replaceAll(SPACE_SYMBOL, ' ') : text;
  }

  #literals(types: readonly number[], modelName: string | undefined): LiteralToken[] {
    const literals: LiteralToken[] = [];
    for (const [id, type] of this.#types.entries()) {
      if (!types.includes(type)) continue;
      const text = this.tokenText(id);
      literals.push({ id, text: type === TOKEN_TYPE.userDefined ? this.#literalText(text) : text, stripAfter: stripsWhitespaceAfter(modelName, text) });
    }
    return literals;
  }

  #wanted(name: 'bos' | 'eos', id: number | undefined): number {
    if (id !== undefined) return id;
    throw new ArgumentError(name, `wanted a ${name.toUpperCase()} token, but the model file has no ${specialKey(name)}; leave ${name} out`);
  }

  #startsText(id: number): boolean {
    return this.#types[id] === TOKEN_TYPE.control || this.#types[id] === TOKEN_TYPE.userDefined;
  }

  #piece(id: number, special: boolean): TokenPiece {
    const type = this.#types[id];
    const hidden = !special && (type === TOKEN_TYPE.control || type === TOKEN_TYPE.unknown);
    const bytes = this.tokenBytes(id);
    return { bytes: hidden ? NO_BYTES : bytes, startsText: this.#startsText(id) };
  }
}
