/**
 * GPT-2's alphabet of 256 printable characters, one per byte: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up, in order (so that a
 * space is "Ġ"). Vocabularies and merges of byte-level BPE are written in it.
 */
const printable = (byte: number): boolean => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;

function makeAlphabet(): readonly string[] {
  let extra = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : extra++));
}

/** [256]: byte -> character. */
export const BYTE_TO_CHARACTER = makeAlphabet();

const CHARACTER_TO_BYTE: ReadonlyMap<string, number> = new Map(BYTE_TO_CHARACTER.map((character, byte) => [character, byte]));

const utf8 = new TextEncoder();

/** The UTF-8 bytes of `text` in the byte alphabet: one character per byte. */
export function toByteAlphabet(text: string): string {
  let out = '';
  for (const byte of utf8.encode(text)) out += BYTE_TO_CHARACTER[byte];
  return out;
}

/** The bytes that `text` stands for; `undefined` where it has a character outside of the alphabet. */
export function fromByteAlphabet(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const byte = CHARACTER_TO_BYTE.get(text.charAt(i));
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}
