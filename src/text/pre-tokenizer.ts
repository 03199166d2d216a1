/**
 * Pre-tokenizers of byte-level BPE: how a text is cut into words before any merge. `tokenizer.ggml.pre` names one; each is a list of regular expressions from
 * the model's own tokenizer, applied in turn: every match becomes a piece of its own, and what lies between matches stays a piece too. A later expression sees
 * one piece at a time, as if it were the whole text.
 *
 * The sources below are written for a Unicode-aware engine (Oniguruma, Rust): `\s` and `\S` are the Unicode property White_Space, which differs from
 * JavaScript's `\s` in U+0085 and U+FEFF, and are replaced when compiled. Case-insensitive groups are spelled out.
 */

export interface PreTokenizer {
  /** Sources of the splits, in order. */
  readonly splits: readonly string[];
  /** A word that is a token is taken whole, whatever the merges would make of it. */
  readonly wholeWords?: true;
  /** BOS is added where the file does not say. */
  readonly addBos?: true;
  /** Why this choice deserves a second look. */
  readonly warning?: string;
}

const CONTRACTIONS = `'s|'t|'re|'ve|'m|'ll|'d`;
const ANY_CASE_CONTRACTIONS = `'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]`;
const GPT2 = String.raw`${CONTRACTIONS}| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const SPACES = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const llama3 = (numbers: string): string => String.raw`${ANY_CASE_CONTRACTIONS}|[^\r\n\p{L}\p{N}]?\p{L}+|${numbers}| ?[^\s\p{L}\p{N}]+[\r\n]*|${SPACES}`;
const UP_TO_3_DIGITS = String.raw`\p{N}{1,3}`;
const ONE_DIGIT = String.raw`\p{N}`;
/** Words of capitals first and small letters after, each kind optional once; `suffix` may follow. */
const cased = (suffix: string, numbers: string): string =>
  String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+${suffix}|` +
  String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*${suffix}|` +
  String.raw`${numbers}| ?[^\s\p{L}\p{N}]+[\r\n/]*|${SPACES}`;
/** U+0800 to U+9FA5 and the Hangul syllables. */
const DEEPSEEK_CJK = String.raw`[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+`;
/** The letters with case that DeepSeek LLM's tokenizer lists by range. */
const DEEPSEEK_LETTERS = [
  String.raw`A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F`,
  String.raw`\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD`,
  String.raw`\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57`,
  String.raw`\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC`,
  String.raw`\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F`,
  String.raw`\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787`,
  String.raw`\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A`,
  String.raw`\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}`,
].join('');
const BLOOM = String.raw` ?[^(\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+`;
const ASCII_PUNCTUATION = String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_${'`'}{|}~]`;

const gpt2: PreTokenizer = { splits: [GPT2] };
const digitsThenGpt2: PreTokenizer = { splits: [ONE_DIGIT, GPT2] };
const llama3Whole: PreTokenizer = { splits: [llama3(UP_TO_3_DIGITS)], wholeWords: true, addBos: true };
const llama3Merged: PreTokenizer = { splits: [llama3(UP_TO_3_DIGITS)] };
const qwen2: PreTokenizer = { splits: [llama3(ONE_DIGIT)] };
const gpt4o: PreTokenizer = { splits: [cased(`(?:${ANY_CASE_CONTRACTIONS})?`, UP_TO_3_DIGITS)] };
const bloom: PreTokenizer = { splits: [BLOOM] };
const deepseek3: PreTokenizer = {
  splits: [
    UP_TO_3_DIGITS,
    String.raw`[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+`,
    String.raw`${ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|${SPACES}`,
  ],
};
const bailing: PreTokenizer = {
  splits: [String.raw`'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`],
};

const named = (names: string, rule: PreTokenizer): [string, PreTokenizer][] => names.split(' ').map((name) => [name, rule]);

/** Rules by `tokenizer.ggml.pre`; the names are those that llama.cpp's converter writes. */
export const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([
  ...named('gpt-2 phi-2 mpt olmo jais trillion granite-docling gigachat exaone4 mellum a.x-4.0 modern-bert', gpt2),
  ...named('starcoder refact command-r smollm codeshell exaone minerva-7b mellum2', digitsThenGpt2),
  ...named('llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2', llama3Whole),
  ...named('smaug-bpe dbrx chatglm-bpe glm4', llama3Merged),
  ...named('qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan grok-2 solar-open kormo', qwen2),
  ...named('gpt-4o llama4 kanana2 minimax-m2', gpt4o),
  ...named('tekken', { splits: [cased('', ONE_DIGIT)], wholeWords: true, addBos: true }),
  ...named('qwen35', {
    splits: [String.raw`${ANY_CASE_CONTRACTIONS}|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|${SPACES}`],
  }),
  ...named('deepseek-llm', {
    splits: [
      String.raw`[\r\n]`,
      String.raw`\s?[${DEEPSEEK_LETTERS}]+`,
      String.raw`\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+`,
      // The look-behind changes no match; it spares a run of n spaces n attempts of n steps.
      String.raw`(?<!\s)\s+$`,
      DEEPSEEK_CJK,
      String.raw`\p{N}+`,
    ],
  }),
  ...named('deepseek-coder', { splits: [String.raw`[\r\n]`, String.raw`\s?\p{L}+`, String.raw`\s?\p{P}+`, DEEPSEEK_CJK, ONE_DIGIT] }),
  ...named('deepseek-v3 hunyuan-dense joyai-llm', deepseek3),
  ...named('falcon', { splits: [String.raw`[\p{P}$+<=>^~|${'`'}]+`, GPT2, '[0-9][0-9][0-9]'] }),
  ...named('bloom poro-chat gpt3-finnish', bloom),
  ...named('viking', { splits: [BLOOM, ONE_DIGIT] }),
  ...named('bailingmoe bailingmoe2 llada-moe', bailing),
  ...named('seed-coder', {
    splits: [String.raw`${ANY_CASE_CONTRACTIONS}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|${SPACES}`],
  }),
  ...named('default', {
    splits: [String.raw`[\p{P}$+<=>^~|]+`, GPT2, String.raw`\p{N}+`, '[0-9][0-9][0-9]'],
    warning:
      'tokenizer.ggml.pre is "default": the converter did not know how this model splits text, so the ids may differ from those that it was trained on; convert it again',
  }),
]);

/** The rule for a "gpt2" vocabulary that names none: files from before the key existed, which were GPT-2's kind. */
export const UNNAMED_PRE_TOKENIZER: PreTokenizer = {
  ...gpt2,
  warning: 'tokenizer.ggml.pre is missing: text is split as GPT-2 does, which may differ from how the model was trained; convert it again',
};

/** A function that cuts text into words; their concatenation is the text. */
export function makeSplitter(rule: PreTokenizer): (text: string) => string[] {
  const patterns = rule.splits.map(compile);
  return (text) => {
    let pieces = text === '' ? [] : [text];
    for (const pattern of patterns) pieces = pieces.flatMap((piece) => isolate(piece, pattern));
    return pieces;
  };
}

function compile(source: string): RegExp {
  return new RegExp(source.replaceAll(String.raw`\s`, String.raw`\p{White_Space}`).replaceAll(String.raw`\S`, String.raw`\P{White_Space}`), 'gu');
}

/** Matches of `pattern` and the stretches between them, in order. */
function isolate(text: string, pattern: RegExp): string[] {
  const pieces: string[] = [];
  let end = 0;
  for (const { 0: match, index } of text.matchAll(pattern)) {
    if (index > end) pieces.push(text.slice(end, index));
    if (match !== '') pieces.push(match);
    end = index + match.length;
  }
  if (end < text.length) pieces.push(text.slice(end));
  return pieces;
}
