/** Cuts the tokens that are found as they stand (special and user-defined ones) out of a text, before the model of the vocabulary sees the rest. */

export interface LiteralToken {
  readonly id: number;
  readonly text: string;
  /** Whitespace after the token belongs to it and is dropped. */
  readonly stripAfter: boolean;
}

/** A stretch of text, or the id of a token found in it. */
export type Fragment = string | number;

/** A function that cuts a text at each occurrence of a literal token: the leftmost one, and of several there the longest. Linear in the text. */
export function makePartitioner(literals: readonly LiteralToken[]): (text: string) => Fragment[] {
  /** By first UTF-16 unit; the longest first. */
  const byStart = new Map<number, LiteralToken[]>();
  for (const literal of literals) {
    if (literal.text === '') continue;
    const unit = literal.text.charCodeAt(0);
    const list = byStart.get(unit);
    if (list === undefined) byStart.set(unit, [literal]);
    else list.push(literal);
  }
  for (const list of byStart.values()) list.sort((a, b) => b.text.length - a.text.length || a.id - b.id);

  return (text) => {
    if (text === '') return [];
    if (byStart.size === 0) return [text];
    const fragments: Fragment[] = [];
    let start = 0;
    for (let at = 0; at < text.length; ) {
      const found = byStart.get(text.charCodeAt(at))?.find((literal) => text.startsWith(literal.text, at));
      if (found === undefined) {
        at++;
        continue;
      }
      if (at > start) fragments.push(text.slice(start, at));
      fragments.push(found.id);
      at += found.text.length;
      if (found.stripAfter) while (isSpace(text.charCodeAt(at))) at++;
      start = at;
    }
    if (start < text.length) fragments.push(text.slice(start));
    return fragments;
  };
}

/** ASCII whitespace: tab to carriage return, and space. */
const isSpace = (unit: number): boolean => unit === 0x20 || (unit >= 0x09 && unit <= 0x0d);
