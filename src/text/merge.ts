/**
 * The merge loop that byte-level BPE and SentencePiece BPE share: a text starts as one symbol per code point, and the adjacent pair of lowest rank (leftmost
 * first among equals) is joined until no pair has a rank. With a heap: O(n log n) heap work and at most 3n rank look-ups for n symbols.
 */

/** Rank of joining text[start, middle) with text[middle, end): an integer from 0 to 2^23, lower first; negative: never. */
export type PairRank = (start: number, middle: number, end: number) => number;

/** Offsets are below 2^30 (the longest string of any engine), ranks below 2^23: together they fit the 53 bits of a double. */
const OFFSET_SPAN = 2 ** 30;

/** Calls `emit(start, end)` for each final symbol of `text`, in order. */
export function mergeSymbols(text: string, rankOf: PairRank, emit: (start: number, end: number) => void): void {
  const { length } = text;
  /** By the offset where a symbol starts: the offset where the next one starts, where the one before starts (-1: none), the rank of joining it to the next. */
  const next = new Int32Array(length);
  const previous = new Int32Array(length).fill(-1);
  const rank = new Int32Array(length).fill(-1);
  const queue = new MinHeap();

  const update = (start: number): void => {
    const middle = next[start] ?? length;
    const value = middle < length ? rankOf(start, middle, next[middle] ?? length) : -1;
    rank[start] = value;
    if (value >= 0) queue.push(value * OFFSET_SPAN + start);
  };

  let last = -1;
  for (let start = 0; start < length; ) {
    const end = start + ((text.codePointAt(start) ?? 0) > 0xffff ? 2 : 1);
    next[start] = end;
    previous[start] = last;
    last = start;
    start = end;
  }
  for (let start = 0; start < length; start = next[start] ?? length) update(start);

  for (let entry = queue.pop(); entry !== undefined; entry = queue.pop()) {
    const start = entry % OFFSET_SPAN;
    // An entry outlives its pair where a neighbour was merged first.
    if (rank[start] !== (entry - start) / OFFSET_SPAN) continue;
    const middle = next[start] ?? length;
    const end = next[middle] ?? length;
    rank[middle] = -1;
    next[start] = end;
    if (end < length) previous[end] = start;
    update(start);
    const before = previous[start] ?? -1;
    if (before >= 0) update(before);
  }
  for (let start = 0; start < length; start = next[start] ?? length) emit(start, next[start] ?? length);
}

/** A binary heap of numbers, smallest first. */
export class MinHeap {
  private readonly items: number[] = [];

  push(item: number): void {
    const { items } = this;
    let hole = items.length;
    items.push(item);
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      const above = items[parent] ?? item;
      if (above <= item) break;
      items[hole] = above;
      hole = parent;
    }
    items[hole] = item;
  }

  pop(): number | undefined {
    const { items } = this;
    const top = items[0];
    const item = items.pop();
    if (item === undefined || items.length === 0) return top;
    let hole = 0;
    for (let child = 1; child < items.length; child = 2 * hole + 1) {
      let below = items[child] ?? item;
      const sibling = items[child + 1];
      if (sibling !== undefined && sibling < below) {
        below = sibling;
        child++;
      }
      if (item <= below) break;
      items[hole] = below;
      hole = child;
    }
    items[hole] = item;
    return top;
  }
}
