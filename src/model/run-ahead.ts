/** Decode runs on their way while earlier tokens are still being read: several runs to a submit, several submits to a device, which so never waits for this thread. */

import { chosenTokens } from '../ops/state.js';

/** Milliseconds of runs that one submit holds: tokens of one submit arrive together, and a reader should not notice. */
const submitMs = 4;
const mostRuns = 8;

interface Submit {
  readonly runs: number;
  readonly tokens: Promise<readonly number[]>;
}

export class RunAhead {
  /** Submits that have not arrived, oldest first. */
  readonly #submits: Submit[] = [];
  #arrived: readonly number[] = [];
  #taken = 0;
  #waiting = 0;
  /** Smoothed milliseconds of a run, once two submits have arrived one after the other. */
  #runMs: number | undefined;
  #lastArrival = Number.NEGATIVE_INFINITY;

  /** Runs whose tokens nobody has taken. */
  get runs(): number {
    return this.#waiting + this.#arrived.length - this.#taken;
  }

  /** Submits on their way. */
  get submits(): number {
    return this.#submits.length;
  }

  /** Runs that the next submit should hold. */
  get submitRuns(): number {
    return this.#runMs === undefined ? 1 : Math.max(1, Math.min(mostRuns, Math.round(submitMs / this.#runMs)));
  }

  /** Takes a submit of `runs` runs; `reads` resolves with the first words of the session state after them. */
  add(runs: number, reads: Promise<readonly Uint8Array[]>): void {
    const begun = performance.now();
    const tokens = reads.then(([bytes]) => {
      this.#measure(runs, begun);
      return chosenTokens(new Uint32Array(Uint8Array.from(bytes ?? []).buffer), runs);
    });
    // Heard by whoever takes these tokens, if somebody does.
    tokens.catch(() => undefined);
    this.#submits.push({ runs, tokens });
    this.#waiting += runs;
  }

  /** The next token; a submit must be on its way, or tokens left of one that arrived. */
  async next(): Promise<number | undefined> {
    if (this.#taken === this.#arrived.length) {
      const [first] = this.#submits;
      const tokens = (await first?.tokens) ?? [];
      this.#submits.shift();
      this.#waiting -= first?.runs ?? 0;
      this.#arrived = tokens;
      this.#taken = 0;
    }
    return this.#arrived[this.#taken++];
  }

  forget(): void {
    this.#submits.length = 0;
    this.#arrived = [];
    this.#taken = 0;
    this.#waiting = 0;
    this.#lastArrival = Number.NEGATIVE_INFINITY;
  }

  /** Between two arrivals the device did nothing but the later one's runs, if that was on its way before the earlier one came. */
  #measure(runs: number, begun: number): void {
    const now = performance.now();
    if (begun < this.#lastArrival) {
      const runMs = (now - this.#lastArrival) / runs;
      this.#runMs = this.#runMs === undefined ? runMs : 0.8 * this.#runMs + 0.2 * runMs;
    }
    this.#lastArrival = now;
  }
}
