/** Looks for stop strings in streamed text and holds back what may be the beginning of one. */
export class StopText {
  readonly #stops: readonly string[];
  #held = '';

  /** `stops` are not empty. */
  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** Text that is certain to be no part of a stop string, and whether one was found: then the text ends before it. */
  push(text: string): { text: string; stopped: boolean } {
    this.#held += text;
    const start = this.#firstStop();
    if (start !== undefined) {
      const before = this.#held.slice(0, start);
      this.#held = '';
      return { text: before, stopped: true };
    }
    const keep = this.#possibleStart();
    const certain = this.#held.slice(0, this.#held.length - keep);
    this.#held = this.#held.slice(certain.length);
    return { text: certain, stopped: false };
  }

  /** What was held back, when no more text comes. */
  flush(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }

  /** Where the stop string begins that ends first, the longest of those that end there: so the pieces in which text comes make no difference. */
  #firstStop(): number | undefined {
    let first: { start: number; end: number } | undefined;
    for (const stop of this.#stops) {
      const start = this.#held.indexOf(stop);
      const end = start + stop.length;
      if (start >= 0 && (first === undefined || end < first.end || (end === first.end && start < first.start))) first = { start, end };
    }
    return first?.start;
  }

  /** Length of the longest end of the held text that begins a stop string. */
  #possibleStart(): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, this.#held.length); length > longest; length--) {
        if (this.#held.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
