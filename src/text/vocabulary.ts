import { FormatError } from '../core/errors.js';

/**
 * What a tokenizer needs of a model file; an open GGUF file has it. The getters return `undefined` where the key is absent and throw `FormatError` with code
 * `E_METADATA` where it has another type. A string that is no valid UTF-8 arrives with U+FFFD in the place of the bad bytes.
 */
export interface VocabularyMetadata {
  readonly metadata: { has(key: string): boolean };
  getString(key: string): string | undefined;
  /** An integer of any type, not negative. */
  getUint(key: string): number | undefined;
  getBoolean(key: string): boolean | undefined;
  getStringArray(key: string): readonly string[] | undefined;
  getIntArray(key: string): ArrayLike<number> | undefined;
  getFloatArray(key: string): ArrayLike<number> | undefined;
}

/** Values of `tokenizer.ggml.token_type`. */
export const TOKEN_TYPE = { undefined: 0, normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** Special ids, by the middle of their key: `tokenizer.ggml.NAME_token_id`. "seperator" is spelled so in the format. */
const SPECIAL_NAMES = [
  'bos',
  'eos',
  'eot',
  'eom',
  'unknown',
  'seperator',
  'padding',
  'cls',
  'mask',
  'prefix',
  'suffix',
  'middle',
  'fim_pre',
  'fim_suf',
  'fim_mid',
  'fim_pad',
  'fim_rep',
  'fim_sep',
] as const;

export type SpecialName = (typeof SPECIAL_NAMES)[number];

/** The checked content of the `tokenizer.ggml.*` keys. */
export interface Vocabulary {
  /** `tokenizer.ggml.model`: "gpt2" (byte-level BPE), "llama" (SentencePiece BPE) or a kind that `loadTokenizer` does not know. */
  readonly model: string | undefined;
  /** `tokenizer.ggml.pre`: which pre-tokenizer goes with a "gpt2" vocabulary. */
  readonly pre: string | undefined;
  /** [vocabSize] */
  readonly tokens: readonly string[];
  /** [vocabSize], values of `TOKEN_TYPE`; undefined where the file has none. */
  readonly types: Uint8Array | undefined;
  /** [vocabSize] */
  readonly scores: ArrayLike<number> | undefined;
  /** "LEFT RIGHT", best first. */
  readonly merges: readonly string[] | undefined;
  readonly special: Partial<Readonly<Record<SpecialName, number>>>;
  readonly addBos: boolean | undefined;
  readonly addEos: boolean | undefined;
  readonly addSpacePrefix: boolean | undefined;
  readonly modelName: string | undefined;
}

/** What `inspect` prints of a vocabulary. */
export interface VocabularySummary {
  readonly model: string | undefined;
  readonly pre: string | undefined;
  readonly vocabSize: number;
  readonly merges: number;
  readonly special: Partial<Readonly<Record<SpecialName, number>>>;
}

const PREFIX = 'tokenizer.ggml.';
export const KEY = {
  model: `${PREFIX}model`,
  pre: `${PREFIX}pre`,
  tokens: `${PREFIX}tokens`,
  types: `${PREFIX}token_type`,
  scores: `${PREFIX}scores`,
  merges: `${PREFIX}merges`,
  addBos: `${PREFIX}add_bos_token`,
  addEos: `${PREFIX}add_eos_token`,
  addSpacePrefix: `${PREFIX}add_space_prefix`,
} as const;

export const specialKey = (name: SpecialName): string => `${PREFIX}${name}_token_id`;

/** The merge queue packs a rank and a text offset into one double; see merge.ts. */
const MAX_RANKS = 2 ** 23;

const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;

/** The byte that a token text such as "<0x0A>" stands for. */
export function parseByteToken(text: string): number | undefined {
  const hex = BYTE_TOKEN.exec(text)?.[1];
  return hex === undefined ? undefined : Number.parseInt(hex, 16);
}

export function vocabularyError(key: string, message: string): FormatError {
  return new FormatError('E_VOCAB', `${key}: ${message}`, { key });
}

/** Reads one key; a value of the wrong type is a vocabulary error. */
function read<T>(key: string, get: (key: string) => T): T {
  try {
    return get(key);
  } catch (error) {
    if (error instanceof FormatError && error.code === 'E_METADATA') throw new FormatError('E_VOCAB', error.message, { key, cause: error });
    throw error;
  }
}

/**
 * Reads and checks the vocabulary; `undefined` where the file has no `tokenizer.ggml.*` content at all.
 * @throws FormatError E_VOCAB, with the key at fault.
 */
export function readVocabulary(metadata: VocabularyMetadata): Vocabulary | undefined {
  const string = (key: string) => read(key, (k) => metadata.getString(k));
  const flag = (key: string) => read(key, (k) => metadata.getBoolean(k));
  const strings = (key: string) => read(key, (k) => metadata.getStringArray(k));
  const model = string(KEY.model);
  const tokens = strings(KEY.tokens);
  if (tokens === undefined) {
    const orphan = [KEY.types, KEY.scores, KEY.merges, ...SPECIAL_NAMES.map(specialKey)].find((key) => metadata.metadata.has(key));
    // A file may name a tokenizer without carrying it ("none", "no_vocab").
    if (orphan !== undefined) throw vocabularyError(orphan, `present, but ${KEY.tokens} is missing; convert the model again with its tokenizer`);
    return undefined;
  }
  if (tokens.length === 0 || tokens.length > MAX_RANKS) throw vocabularyError(KEY.tokens, `wanted 1 to ${MAX_RANKS} tokens, got ${tokens.length}`);
  const vocabulary: Vocabulary = {
    model,
    tokens,
    pre: string(KEY.pre),
    types: readTypes(metadata, tokens),
    scores: readScores(metadata, tokens.length),
    merges: checkMerges(strings(KEY.merges)),
    special: readSpecialIds(metadata, tokens.length),
    addBos: flag(KEY.addBos),
    addEos: flag(KEY.addEos),
    addSpacePrefix: flag(KEY.addSpacePrefix),
    modelName: metadata.getString('general.name'),
  };
  checkAdded(vocabulary);
  return vocabulary;
}

/**
 * Checks the vocabulary of a model file without building a tokenizer; `undefined` where there is none. Kinds of tokenizer that Centella cannot run pass:
 * `loadTokenizer` refuses them.
 * @throws FormatError E_VOCAB, with the key at fault.
 */
export function checkVocabulary(metadata: VocabularyMetadata): VocabularySummary | undefined {
  const vocabulary = readVocabulary(metadata);
  if (vocabulary === undefined) return undefined;
  const { model, pre, tokens, merges, special } = vocabulary;
  return { model, pre, vocabSize: tokens.length, merges: merges?.length ?? 0, special };
}

function checkCount(key: string, count: number, wanted: number): void {
  if (count !== wanted) throw vocabularyError(key, `wanted one entry for each of the ${wanted} tokens, got ${count}`);
}

function readTypes(metadata: VocabularyMetadata, tokens: readonly string[]): Uint8Array | undefined {
  const values = read(KEY.types, (key) => metadata.getIntArray(key));
  if (values === undefined) return undefined;
  checkCount(KEY.types, values.length, tokens.length);
  const types = new Uint8Array(tokens.length);
  for (const [id, text] of tokens.entries()) {
    const type = values[id];
    if (type === undefined || !(type >= 0 && type <= TOKEN_TYPE.byte))
      throw vocabularyError(KEY.types, `token ${id} has type ${type}, wanted 0 to ${TOKEN_TYPE.byte}`);
    if (type === TOKEN_TYPE.byte && parseByteToken(text) === undefined) {
      throw vocabularyError(KEY.tokens, `token ${id} is a byte token, wanted a text like "<0x0A>", got ${quote(text)}`);
    }
    types[id] = type;
  }
  return types;
}

function readScores(metadata: VocabularyMetadata, count: number): ArrayLike<number> | undefined {
  const scores = read(KEY.scores, (key) => metadata.getFloatArray(key));
  if (scores === undefined) return undefined;
  checkCount(KEY.scores, scores.length, count);
  for (let id = 0; id < count; id++) {
    if (Number.isNaN(scores[id])) throw vocabularyError(KEY.scores, `token ${id} has a score that is no number`);
  }
  return scores;
}

function checkMerges(merges: readonly string[] | undefined): readonly string[] | undefined {
  if (merges === undefined) return undefined;
  if (merges.length > MAX_RANKS) throw vocabularyError(KEY.merges, `wanted at most ${MAX_RANKS} merges, got ${merges.length}`);
  for (const [rank, merge] of merges.entries()) {
    const space = merge.indexOf(' ', 1);
    if (space < 1 || space === merge.length - 1)
      throw vocabularyError(KEY.merges, `merge ${rank} should be two texts with a space between them, got ${quote(merge)}`);
  }
  return merges;
}

function readSpecialIds(metadata: VocabularyMetadata, count: number): Partial<Record<SpecialName, number>> {
  const special: Partial<Record<SpecialName, number>> = {};
  for (const name of SPECIAL_NAMES) {
    const key = specialKey(name);
    const id = read(key, (k) => metadata.getUint(k));
    if (id === undefined) continue;
    if (id >= count) throw vocabularyError(key, `wanted an id below the vocabulary size ${count}, got ${id}`);
    special[name] = id;
  }
  return special;
}

/** The file asks for BOS or EOS around every text: then they must exist. The "llama" kind has default ids. */
function checkAdded({ model, addBos, addEos, special }: Vocabulary): void {
  if (model === 'llama') return;
  if (addBos === true && special.bos === undefined) throw vocabularyError(KEY.addBos, `true, but ${specialKey('bos')} is missing`);
  if (addEos === true && special.eos === undefined) throw vocabularyError(KEY.addEos, `true, but ${specialKey('eos')} is missing`);
}

/** JSON text, shortened: what a file carries may be long. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text);
}
