import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StopText } from '../../src/engine/stop-text.js';

interface Ending {
  readonly text: string;
  readonly stopped: boolean;
}

/** What the caller sees when the text comes in these pieces. */
function stream(stops: readonly string[], pieces: readonly string[]): Ending & { readonly seen: readonly string[] } {
  const stop = new StopText(stops);
  const seen: string[] = [];
  for (const piece of pieces) {
    const { text, stopped } = stop.push(piece);
    seen.push(text);
    if (stopped) return { text: seen.join(''), stopped, seen };
  }
  return { text: seen.join('') + stop.flush(), stopped: false, seen };
}

/** The text up to the stop string that is complete first; of those complete together, before the longest. */
function search(stops: readonly string[], text: string): Ending {
  for (let end = 1; end <= text.length; end++) {
    const complete = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    if (complete.length > 0) return { text: text.slice(0, end - Math.max(...complete.map((stop) => stop.length))), stopped: true };
  }
  return { text, stopped: false };
}

describe('StopText', () => {
  test('finds a stop string across pieces and shows nothing of it', () => {
    expect(stream(['END'], ['one E', 'N', 'D two'])).toEqual({ text: 'one ', stopped: true, seen: ['one ', '', ''] });
  });

  test('holds back what may begin one, and only that', () => {
    expect(stream(['abc'], ['xxab', 'abx', 'a']).seen).toEqual(['xx', 'ababx', '']);
    expect(stream(['abc'], ['xxab', 'abx', 'a']).text).toBe('xxababxa');
  });

  test('a short stop string inside a long one ends the text in any pieces', () => {
    expect(stream(['abcd', 'bc'], ['abcd'])).toMatchObject({ text: 'a', stopped: true });
    expect(stream(['abcd', 'bc'], ['ab', 'c', 'd'])).toMatchObject({ text: 'a', stopped: true });
    expect(stream(['bc', 'abc'], ['abc'])).toMatchObject({ text: '', stopped: true });
  });

  test('without stop strings nothing is held back', () => {
    expect(stream([], ['a', 'b'])).toEqual({ text: 'ab', stopped: false, seen: ['a', 'b'] });
  });

  test('any text in any pieces ends as the whole text does', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '😀'), minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(fc.array(letters, { minLength: 1, maxLength: 4 }), fc.array(letters, { maxLength: 14 }), (stops, pieces) => {
        const { text, stopped } = stream(stops, pieces);
        expect({ text, stopped }).toEqual(search(stops, pieces.join('')));
      }),
      { numRuns: 2000 },
    );
  });
});
