/** A byte-level BPE vocabulary of any size that every text can be written in: 256 bytes, pairs of letters, and names that stand for nothing. */

import { type GgufValue, ggufValue } from '../../src/gguf.js';

/** The characters by which GPT-2's vocabularies write bytes: printable ones stand for themselves, the others for characters from U+0100 on. */
function byteCharacters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCharCode(printable ? byte : next++);
  });
}

/** Words that BPE builds: a space before a letter, then two letters in a row. */
function pairMerges(): [string, string][] {
  const letters = Array.from('etaoinshrdlucmfwypvbgkjqxz');
  const space = String.fromCharCode(256 + 32);
  return [...letters.map((letter): [string, string] => [space, letter]), ...letters.flatMap((a) => letters.map((b): [string, string] => [a, b]))];
}

const tokenType = { normal: 1, control: 3, unused: 5 } as const;

/** The tokenizer's metadata; the last id begins and ends texts. */
export function vocabularyMetadata(size: number, preTokenizer: string): [string, GgufValue][] {
  const merges = pairMerges();
  const known = [...byteCharacters(), ...merges.map(([a, b]) => a + b)];
  const tokens = Array.from({ length: size }, (_, id) => (id === size - 1 ? '<|end|>' : (known[id] ?? `<|unused ${id}|>`)));
  const types = Int32Array.from(tokens, (_, id) => (id === size - 1 ? tokenType.control : id < known.length ? tokenType.normal : tokenType.unused));
  return [
    ['tokenizer.ggml.model', ggufValue.string('gpt2')],
    ['tokenizer.ggml.pre', ggufValue.string(preTokenizer)],
    ['tokenizer.ggml.tokens', ggufValue.strings(tokens)],
    ['tokenizer.ggml.token_type', ggufValue.i32s(types)],
    ['tokenizer.ggml.merges', ggufValue.strings(merges.map(([a, b]) => `${a} ${b}`))],
    ['tokenizer.ggml.bos_token_id', ggufValue.u32(size - 1)],
    ['tokenizer.ggml.eos_token_id', ggufValue.u32(size - 1)],
  ];
}
