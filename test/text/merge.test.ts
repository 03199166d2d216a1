import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MinHeap, mergeSymbols, type PairRank } from '../../src/text/merge.js';

/** The definition, quadratic: join the leftmost pair of lowest rank until none has a rank. */
function mergeByDefinition(text: string, ranks: ReadonlyMap<string, number>): string[] {
  const symbols = [...text];
  for (;;) {
    let best = -1;
    let bestRank = Number.POSITIVE_INFINITY;
    for (let i = 0; i + 1 < symbols.length; i++) {
      const rank = ranks.get(`${symbols[i]} ${symbols[i + 1]}`) ?? Number.POSITIVE_INFINITY;
      if (rank < bestRank) {
        best = i;
        bestRank = rank;
      }
    }
    if (best < 0) return symbols;
    symbols.splice(best, 2, `${symbols[best]}${symbols[best + 1]}`);
  }
}

function merge(text: string, rankOf: PairRank): { symbols: string[]; lookUps: number } {
  const symbols: string[] = [];
  let lookUps = 0;
  mergeSymbols(
    text,
    (start, middle, end) => {
      lookUps++;
      return rankOf(start, middle, end);
    },
    (start, end) => symbols.push(text.slice(start, end)),
  );
  return { symbols, lookUps };
}

const byTable = (text: string, ranks: ReadonlyMap<string, number>): PairRank => {
  return (start, middle, end) => ranks.get(`${text.slice(start, middle)} ${text.slice(middle, end)}`) ?? -1;
};

describe('mergeSymbols', () => {
  const letters = fc.constantFrom('a', 'b', 'c', '𐀀');
  const symbol = fc.array(letters, { minLength: 1, maxLength: 3 }).map((list) => list.join(''));

  it('does what the definition says', () => {
    fc.assert(
      fc.property(fc.array(letters, { maxLength: 40 }), fc.uniqueArray(fc.tuple(symbol, symbol), { maxLength: 12, selector: String }), (list, pairs) => {
        const text = list.join('');
        // Some ranks are shared: then the leftmost goes first.
        const ranks = new Map(pairs.map(([left, right], i) => [`${left} ${right}`, i >> 1]));
        expect(merge(text, byTable(text, ranks)).symbols).toEqual(mergeByDefinition(text, ranks));
      }),
    );
  });

  it('looks at most three times per symbol at a rank, whatever merges', () => {
    const ranks = new Map([
      ['a a', 3],
      ['aa aa', 2],
      ['aaaa aaaa', 1],
      ['b a', 0],
    ]);
    for (const length of [100, 1_000, 10_000, 100_000]) {
      const text = 'a'.repeat(length - 1).concat('b');
      const { symbols, lookUps } = merge(text, byTable(text, ranks));
      expect(symbols.join('')).toBe(text);
      expect(lookUps).toBeLessThanOrEqual(3 * length);
    }
  });

  it('makes nothing of nothing', () => {
    expect(merge('', () => 0).symbols).toEqual([]);
  });
});

describe('MinHeap', () => {
  it('sorts', () => {
    fc.assert(
      fc.property(fc.array(fc.integer()), (numbers) => {
        const heap = new MinHeap();
        for (const number of numbers) heap.push(number);
        const sorted: number[] = [];
        for (let top = heap.pop(); top !== undefined; top = heap.pop()) sorted.push(top);
        expect(sorted).toEqual(numbers.toSorted((a, b) => a - b));
      }),
    );
  });
});
