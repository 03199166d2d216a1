/** Decode runs on their way while earlier tokens are still being read: several runs to a submit, several submits to a device, which so never waits for this thread. */

import type { Submission } from '../runtime/backend.js';
import { tokensIn } from './decoder-session.js';

/** Milliseconds of runs that one submit holds: tokens of one submit arrive together, and a reader should not notice. */
const submitMs = 5;
const mostRuns = 8;

/** A read that takes less was there before it was asked for, and says nothing of how long the runs took. */
const promptMs = 0.2;

/** Times of runs that are measured one after another; the shortest counts, since a pause of this thread passes for a long run. */
const measurements = 3;

/** Reads after them that sleep by what was measured and measure nothing: whatever delays them would pass for longer runs, and for longer sleeps. */
const sleepingReads = 48;

/**
 * Sleeps end this much after the runs are expected to. While Dawn is waited for in Node it asks again and again, each time with a function that only a full collection frees: 0.1 MB a millisecond,
 * and a pause of 0.1 s for 100 MB.
 */
const lateMs = 0.3;

/** Where the device has little more to do, sleeps end before the runs do: timers are late by up to a millisecond. */
const earlyMs = 0.5;

interface Submit {
  readonly runs: number;
  readonly submission: Submission;
}

export class RunAhead {
  readonly #patient: boolean;
  /** Submits that have not arrived, oldest first. */
  readonly #submits: Submit[] = [];
  #arrived: readonly number[] = [];
  #taken = 0;
  #waiting = 0;
  /** Milliseconds of a run. */
  #runMs: number | undefined;
  /** What was measured since the last sleep. */
  #times: number[] = [];
  /** Reads that may still sleep before the next measurement. */
  #sleeps = 0;
  #lastRead: number | undefined;
  /** When a submit was last seen to end, and the runs read since. */
  #lastEnd: number | undefined;
  #runsSince = 0;

  /** `patient`: sleep while the next tokens cannot be there yet, rather than keep asking. */
  constructor(patient: boolean) {
    this.#patient = patient;
  }

  /** Runs whose tokens nobody has taken. */
  get runs(): number {
    return this.#waiting + this.#arrived.length - this.#taken;
  }

  /** Submits on their way. */
  get submits(): number {
    return this.#submits.length;
  }

  /**
   * Runs that the next submit should hold. A run is encoded in less time than the device takes for it, if not in much less: a submit of no more runs than are on their way is there before they end.
   */
  get submitRuns(): number {
    if (this.#runMs === undefined) return 1;
    return Math.max(1, Math.min(mostRuns, this.#waiting, Math.round(submitMs / this.#runMs)));
  }

  /** Takes a submit of `runs` runs that reads the first words of the session state after them. */
  add(runs: number, submission: Submission): void {
    // The device was idle: what it is seen to end next says nothing of this submit, and these runs may be others than those measured.
    if (this.#submits.length === 0) this.#measureAnew();
    this.#submits.push({ runs, submission });
    this.#waiting += runs;
  }

  /** The next token; a submit must be on its way, or tokens left of one that arrived. */
  async next(): Promise<number | undefined> {
    if (this.#taken === this.#arrived.length) {
      const [first] = this.#submits;
      if (first === undefined) return undefined;
      await this.#sleep(first.runs);
      this.#submits.shift();
      this.#waiting -= first.runs;
      const asked = performance.now();
      const [bytes] = await first.submission.read();
      this.#note(first.runs, asked, performance.now());
      this.#arrived = tokensIn(bytes, first.runs);
      this.#taken = 0;
    }
    return this.#arrived[this.#taken++];
  }

  forget(): void {
    for (const { submission } of this.#submits) submission.cancel();
    this.#submits.length = 0;
    this.#arrived = [];
    this.#taken = 0;
    this.#waiting = 0;
    this.#measureAnew();
  }

  /** Sleeps until the next `runs` runs are done, or nearly done where little follows them, as far as it is known when that is. */
  async #sleep(runs: number): Promise<void> {
    if (this.#sleeps === 0 || this.#runMs === undefined || this.#lastEnd === undefined) return;
    const left = this.#lastEnd + (this.#runsSince + runs) * this.#runMs - performance.now();
    const wait = this.#submits.length > 2 ? Math.ceil(left + lateMs) : Math.floor(left - earlyMs);
    if (wait >= 1) await new Promise((resolve) => setTimeout(resolve, wait));
  }

  /** Learns from a read of `runs` runs, asked for at one time and there at another. */
  #note(runs: number, asked: number, now: number): void {
    const waited = now - asked >= promptMs;
    const lastRead = this.#lastRead;
    this.#lastRead = now;
    this.#runsSince += runs;
    if (this.#sleeps > 0) {
      this.#sleeps--;
      const behind = now - (this.#lastEnd ?? now) - this.#runsSince * (this.#runMs ?? 0);
      // Much later than meant: the reader was slow, and the device may have been idle since.
      if (this.#sleeps === 0 || behind > submitMs) this.#measureAnew();
    } else if (waited) this.#measure(now);
    else {
      this.#lastEnd = undefined;
      // Where this thread is as slow as the device there is nothing to wait for: a run takes no longer than reading one does.
      if (lastRead !== undefined) this.#runMs ??= (now - lastRead) / runs;
    }
  }

  /** Between two ends that were waited for the device did nothing but the runs in between. */
  #measure(now: number): void {
    if (this.#lastEnd !== undefined) this.#times.push((now - this.#lastEnd) / this.#runsSince);
    this.#lastEnd = now;
    this.#runsSince = 0;
    if (this.#times.length === 0) return;
    const shortest = Math.min(...this.#times);
    this.#runMs = Math.min(this.#runMs ?? shortest, shortest);
    if (this.#times.length < measurements) return;
    this.#runMs = shortest;
    this.#times = [];
    this.#sleeps = this.#patient ? sleepingReads : 0;
  }

  #measureAnew(): void {
    this.#times = [];
    this.#sleeps = 0;
    this.#lastRead = undefined;
    this.#lastEnd = undefined;
  }
}
