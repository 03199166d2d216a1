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
    const found = this.#stops.map((stop) => this.#held.indexOf(stop)).filter((index) => index >= 0);
    if (found.length > 0) {
      const before = this.#held.slice(0, Math.min(...found));
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
