/** Arrays of strings (a vocabulary has 262,144), decoded when first read and all at once: one decoder call and slices of its text. */

// ignoreBOM: a token may be the byte order mark, and the decoder would drop it.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** Text of a metadata value: bytes that are not UTF-8 become U+FFFD. */
export function decodeText(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** `ends[i]` is where string i ends in `bytes`; string i + 1 begins there. */
export function decodeStrings(bytes: Uint8Array, ends: Uint32Array): readonly string[] {
  const textEnds = new Uint32Array(ends.length);
  if (!measureText(bytes, ends, textEnds)) return decodeOneByOne(bytes, ends);
  const text = decodeText(bytes);
  const strings = new Array<string>(ends.length);
  let from = 0;
  for (let i = 0; i < ends.length; i++) {
    const to = textEnds[i] ?? 0;
    strings[i] = text.slice(from, to);
    from = to;
  }
  return strings;
}

function decodeOneByOne(bytes: Uint8Array, ends: Uint32Array): readonly string[] {
  const strings: string[] = [];
  let from = 0;
  for (const to of ends) {
    strings.push(decodeText(bytes.subarray(from, to)));
    from = to;
  }
  return strings;
}

/** Fills `textEnds` with the strings' ends in UTF-16 units; false where a string is not valid UTF-8 by itself, so that lengths cannot be foretold. */
function measureText(bytes: Uint8Array, ends: Uint32Array, textEnds: Uint32Array): boolean {
  let at = 0;
  let units = 0;
  for (let i = 0; i < ends.length; i++) {
    const end = ends[i] ?? 0;
    while (at < end) {
      if ((bytes[at] ?? 0) < 0x80) {
        at++;
        units++;
        continue;
      }
      const length = sequenceLength(bytes, at, end);
      if (length === 0) return false;
      at += length;
      units += length === 4 ? 2 : 1;
    }
    textEnds[i] = units;
  }
  return true;
}

/** Bytes of the multi-byte UTF-8 sequence at `at`, 0 where there is no valid one before `end`. */
function sequenceLength(bytes: Uint8Array, at: number, end: number): number {
  const lead = bytes[at] ?? 0;
  const length = lead >= 0xc2 && lead <= 0xdf ? 2 : (lead & 0xf0) === 0xe0 ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
  if (length === 0 || at + length > end) return 0;
  for (let i = 1; i < length; i++) if (((bytes[at + i] ?? 0) & 0xc0) !== 0x80) return 0;
  const second = bytes[at + 1] ?? 0;
  // Overlong forms, surrogates, and what lies beyond U+10FFFF.
  if ((lead === 0xe0 && second < 0xa0) || (lead === 0xed && second > 0x9f) || (lead === 0xf0 && second < 0x90) || (lead === 0xf4 && second > 0x8f)) return 0;
  return length;
}
