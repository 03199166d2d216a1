import { describe, expect, test } from 'vitest';
import { ShapeError } from '../../src/core/errors.js';
import { advanceState, chosenTokens, chosenWords, historyLength, noToken, stateWord, stateWords } from '../../src/ops/state.js';
import { reference, session } from './support.js';

/** (cos, sin) of quarter turns: row p turns pair i by p (i + 1) quarters. */
function quarterTurns(positions: number, pairs: number): number[] {
  const cos = [1, 0, -1, 0];
  return Array.from({ length: positions * pairs }, (_, at) => {
    const quarters = Math.floor(at / pairs) * ((at % pairs) + 1);
    return [cos[quarters % 4] ?? 0, cos[(quarters + 3) % 4] ?? 0];
  }).flat();
}

describe('rope', () => {
  const table = [[4, 2, 2], quarterTurns(4, 2)] as const;

  test('pairs neighbours or halves, at the position of the session', () => {
    const x = [
      [1, 1, 4],
      [1, 2, 3, 4],
    ] as const;
    expect(reference('rope', { pairing: 'adjacent' }, x, table, session(1, 1))).toEqual([-2, 1, -3, -4]);
    expect(reference('rope', { pairing: 'halves' }, x, table, session(1, 1))).toEqual([-3, -2, 1, -4]);
    expect(reference('rope', { pairing: 'adjacent' }, x, table, session(0, 1))).toEqual([1, 2, 3, 4]);
  });

  test('turns only the first elements of a head where the table is narrower', () => {
    const narrow = [[2, 1, 2], quarterTurns(2, 1)] as const;
    expect(
      reference(
        'rope',
        { pairing: 'halves' },
        [
          [1, 2, 4],
          [1, 2, 3, 4, 5, 6, 7, 8],
        ],
        narrow,
        session(1, 1),
      ),
    ).toEqual([-2, 1, 3, 4, -6, 5, 7, 8]);
  });

  test('leaves padding rows, and refuses positions beyond the table', () => {
    const rows = [
      [2, 1, 4],
      [1, 2, 3, 4, 5, 6, 7, 8],
    ] as const;
    expect(reference('rope', { pairing: 'adjacent' }, rows, table, session(3, 1, 2)).slice(4)).toEqual([5, 6, 7, 8]);
    expect(() => reference('rope', { pairing: 'adjacent' }, rows, table, session(3, 2))).toThrow(ShapeError);
  });
});

describe('the cache', () => {
  test('is written at the position, by heads, live rows only', () => {
    const x = [
      [2, 2, 1],
      [1, 2, 3, 4],
    ] as const;
    const empty = new Array<number>(6).fill(0);
    expect(reference('cacheWrite', {}, [[2, 3, 1], empty], x, session(1, 2))).toEqual([0, 1, 3, 0, 2, 4]);
    expect(reference('cacheWrite', {}, [[2, 3, 1], empty], x, session(2, 1, 2))).toEqual([0, 0, 1, 0, 0, 2]);
    expect(() => reference('cacheWrite', {}, [[2, 3, 1], empty], x, session(2, 2))).toThrow(ShapeError);
  });

  test('attention uses its scale, groups query heads and sees the past and itself only', () => {
    const keys = [
      [1, 3, 1],
      [0, Math.log(3), 50],
    ] as const;
    const values = [
      [1, 3, 1],
      [1, 5, 1000],
    ] as const;
    // Two query heads over one KV head; at position 1 the third key is the future. softmax(0, ln 3) = (1/4, 3/4).
    const y = reference(
      'attention',
      { scale: 1 },
      [
        [1, 2, 1],
        [1, 0],
      ],
      keys,
      values,
      session(1, 1),
    );
    expect(y[0]).toBeCloseTo(0.25 + 0.75 * 5, 13);
    expect(y[1]).toBeCloseTo(3, 13);
    const halved = reference(
      'attention',
      { scale: 0.5 },
      [
        [1, 2, 1],
        [2, 0],
      ],
      keys,
      values,
      session(1, 1),
    );
    expect(halved[0]).toBeCloseTo(y[0] ?? 0, 13);
  });

  test('attention of fewer rows than positions is causal from the position on', () => {
    const y = reference(
      'attention',
      { scale: 1 },
      [
        [2, 1, 1],
        [0, 0],
      ],
      [
        [1, 4, 1],
        [0, 0, 0, 0],
      ],
      [
        [1, 4, 1],
        [1, 2, 6, 100],
      ],
      session(1, 2),
    );
    expect(y[0]).toBeCloseTo(1.5, 13);
    expect(y[1]).toBeCloseTo(3, 13);
  });

  /** Four positions with equal keys and the values 1, 2, 6 and 100; two rows of one head, at positions 1 and 2. */
  const rows = [
    [2, 1, 1],
    [1, 1],
  ] as const;
  const equalKeys = [
    [1, 4, 1],
    [1, 1, 1, 1],
  ] as const;
  const fourValues = [
    [1, 4, 1],
    [1, 2, 6, 100],
  ] as const;

  test('attention with a window sees that many positions, its own included', () => {
    const seen = (window: number): number[] => [...reference('attention', { scale: 1, window }, rows, equalKeys, fourValues, session(1, 2))];
    expect(seen(1)).toEqual([2, 6]);
    expect(seen(2)).toEqual([1.5, 4]);
    expect(seen(3)).toEqual([1.5, 3]);
    expect(seen(30)).toEqual([1.5, 3]);
  });

  test('attention with a sink gives it the weight of one position more that has no value', () => {
    const y = reference('attention', { scale: 1 }, rows, equalKeys, fourValues, session(1, 2), [[1], [1 + Math.log(2)]]);
    expect(y[0]).toBeCloseTo(3 / 4, 13);
    expect(y[1]).toBeCloseTo(9 / 5, 13);
  });

  test('attention with a softcap bounds the scores after the scale', () => {
    const keys = [
      [1, 2, 1],
      [0, 1000],
    ] as const;
    const values = [
      [1, 2, 1],
      [0, 1],
    ] as const;
    const y = reference('attention', { scale: 2, softcap: 3 }, [[1, 1, 1], [5]], keys, values, session(1, 1));
    expect(y[0]).toBeCloseTo(1 / (1 + Math.exp(-3)), 13);
    const small = reference('attention', { scale: 2, softcap: 3 }, [[1, 1, 1], [0.001]], keys, values, session(1, 1));
    expect(small[0]).toBeCloseTo(1 / (1 + Math.exp(-3 * Math.tanh(2 / 3))), 13);
  });

  test('attention heads may be wider than 128', () => {
    const ones = new Array<number>(160).fill(1);
    expect(reference('attention', { scale: 1 }, [[1, 1, 160], ones], [[1, 1, 160], ones], [[1, 1, 160], ones.map((_, i) => i)], session(0, 1))[159]).toBe(159);
  });
});

describe('the session', () => {
  test('advance moves on by the live rows and feeds the token back', () => {
    const words = reference('advance', {}, session(5, 3), [[1], [123_456_789], 'u32']);
    expect(words[stateWord.position]).toBe(8);
    expect(words[stateWord.rows]).toBe(1);
    expect(words[stateWord.token]).toBe(123_456_789);
    expect(words[stateWord.ids]).toBe(123_456_789);
    expect(words[stateWord.steps]).toBe(1);
  });

  test('remembers the last tokens in order, round the end of its history too', () => {
    const words = new Uint32Array(stateWords(1));
    for (let token = 100; token < 100 + 2 * historyLength + 5; token++) advanceState(words, token);
    const last = 100 + 2 * historyLength + 4;
    expect(chosenTokens(words, 8)).toEqual([7, 6, 5, 4, 3, 2, 1, 0].map((back) => last - back));
    expect(chosenTokens(words.subarray(0, chosenWords), 1)).toEqual([last]);
    words[stateWord.steps] = 0xffff_ffff;
    advanceState(words, 7);
    advanceState(words, 8);
    expect(chosenTokens(words, 2)).toEqual([7, 8]);
  });

  test('feeds back an id that the embedding has where no token was chosen', () => {
    const words = new Uint32Array(stateWords(1)).fill(3);
    advanceState(words, noToken);
    expect([words[stateWord.token], words[stateWord.ids]]).toEqual([noToken, 0]);
  });

  test('chooseNext takes the first of the largest, and no token where a logit is not a number', () => {
    const choose = (...logits: number[]): number | undefined => reference('chooseNext', {}, session(5, 1), [[1, logits.length], logits])[stateWord.token];
    expect(choose(-1, 2, Number.NEGATIVE_INFINITY, 2)).toBe(1);
    expect(choose(1, Number.NaN, 3)).toBe(noToken);
  });

  test('lastRow is the last live row', () => {
    expect(
      reference(
        'lastRow',
        {},
        [
          [3, 2],
          [1, 2, 3, 4, 5, 6],
        ],
        session(0, 2, 3),
      ),
    ).toEqual([3, 4]);
  });
});
