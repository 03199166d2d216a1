/** Decode runs on their way while earlier tokens are still being read: several runs to a submit, several submits to a device, which so never waits for this thread. */

import { chosenTokens } from '../ops/state.js';
import type { Submission } from '../runtime/backend.js';

/** Milliseconds of runs that one submit holds: tokens of one submit arrive together, and a reader should not notice. */
const submitMs = 4;
const mostRuns = 8;

/** A read that takes less was there before it was asked for, and says nothing of how long the runs took. */
const promptMs = 0.2;

/** Sleeps after which the runs were there already, one after another, that make an estimate worthless: the device may have been idle meanwhile. */
const mostOversleeps = 3;

/** Waits end this much before the runs are expected to: timers are late by up to a millisecond. */
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
  /** Smoothed milliseconds of a run, and the measurements in it: one alone may be a pause of this thread. */
  #runMs: number | undefined;
  #measured = 0;
  /** Sleeps in a row after which the runs were there already. */
  #overslept = 0;
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

  /** Runs that the next submit should hold. */
  get submitRuns(): number {
    return this.#runMs === undefined ? 1 : Math.max(1, Math.min(mostRuns, Math.round(submitMs / this.#runMs)));
  }

  /** Takes a submit of `runs` runs that reads the first words of the session state after them. */
  add(runs: number, submission: Submission): void {
    // The device was idle: what it is seen to end next says nothing of this submit.
    if (this.#submits.length === 0) this.#lastEnd = undefined;
    this.#submits.push({ runs, submission });
    this.#waiting += runs;
  }

  /** The next token; a submit must be on its way, or tokens left of one that arrived. */
  async next(): Promise<number | undefined> {
    if (this.#taken === this.#arrived.length) {
      const [first] = this.#submits;
      if (first === undefined) return undefined;
      const slept = await this.#sleep(first.runs);
      this.#submits.shift();
      this.#waiting -= first.runs;
      const asked = performance.now();
      const [bytes] = await first.submission.read();
      this.#measure(first.runs, asked, slept);
      this.#arrived = chosenTokens(new Uint32Array(Uint8Array.from(bytes ?? []).buffer), first.runs);
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
    this.#lastEnd = undefined;
  }

  /** Sleeps until the next `runs` runs are nearly done, where it is known when that is; says whether it did. */
  async #sleep(runs: number): Promise<boolean> {
    if (!this.#patient || this.#runMs === undefined || this.#measured < 2 || this.#lastEnd === undefined) return false;
    const due = this.#lastEnd + (this.#runsSince + runs) * this.#runMs - earlyMs;
    const wait = Math.floor(due - performance.now());
    if (wait < 1) return false;
    await new Promise((resolve) => setTimeout(resolve, wait));
    return true;
  }

  /** Between two ends that were waited for the device did nothing but the runs in between. */
  #measure(runs: number, asked: number, slept: boolean): void {
    const now = performance.now();
    this.#runsSince += runs;
    if (now - asked < promptMs) {
      // It was there already. After a sleep, expect the next ones sooner; else the reader was slow, and the device may have been idle since.
      if (slept && ++this.#overslept < mostOversleeps) {
        this.#runMs = (this.#runMs ?? 0) * 0.98;
        return;
      }
      if (slept) this.#measured = 0;
      this.#overslept = 0;
      this.#lastEnd = undefined;
      return;
    }
    this.#overslept = 0;
    if (this.#lastEnd !== undefined) this.#runMs = this.#smoothed((now - this.#lastEnd) / this.#runsSince);
    this.#lastEnd = now;
    this.#runsSince = 0;
  }

  /** The estimate with one measurement more. A pause of this thread passes for a long run: no measurement more than doubles the estimate, and a much shorter one replaces it. */
  #smoothed(runMs: number): number {
    const before = this.#runMs;
    const replaces = before === undefined || this.#measured === 0 || runMs < before / 2;
    this.#measured++;
    return replaces ? runMs : 0.8 * before + 0.2 * Math.min(runMs, 2 * before);
  }
}
