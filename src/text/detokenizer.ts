/** What decoding needs to know of one token. */
export interface TokenPiece {
  /** The bytes of the token's text; none for a control or unknown token that is not to be shown. */
  readonly bytes: Uint8Array;
  /** A token after which, and at the start, the text's first space is the tokenizer's own prefix. */
  readonly startsText: boolean;
}

/** Text from tokens as they come. Concatenated, what `push` and `flush` return is `decode` of all the tokens. */
export interface StreamDecoder {
  /** The text that is complete with this token: possibly empty, never a part of a character. */
  push(id: number): string;
  /** What is left: U+FFFD where the tokens ended within a character. The decoder then starts anew. */
  flush(): string;
}

/**
 * Bytes that are no UTF-8 become U+FFFD as `TextDecoder` would make of the whole; a byte order mark is text.
 * @param stripPrefix drop the one space that the tokenizer put before each text; `atStart`: whether the first token begins one.
 */
export function makeStreamDecoder(pieceOf: (id: number) => TokenPiece, stripPrefix: boolean, atStart: boolean): StreamDecoder {
  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  let fresh = atStart;
  return {
    push(id) {
      const { bytes, startsText } = pieceOf(id);
      const strip = stripPrefix && fresh && !startsText && bytes[0] === 0x20;
      fresh = startsText || (fresh && bytes.length === 0);
      return utf8.decode(strip ? bytes.subarray(1) : bytes, { stream: true });
    },
    flush() {
      fresh = atStart;
      return utf8.decode();
    },
  };
}
