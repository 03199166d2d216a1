export type { StreamDecoder } from './detokenizer.js';
export { type DecodeOptions, type EncodeOptions, loadTokenizer, type Tokenizer } from './tokenizer.js';
export { checkVocabulary, type VocabularyMetadata, type VocabularySummary } from './vocabulary.js';
