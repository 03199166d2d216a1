/** Decode runs on their way while earlier tokens are still being read: several runs to a submit, several submits to a device, which so never waits for this thread. */

import { chosenTokens } from '../ops/state.js';
import type { Submission } from '../runtime/backend.js';

/** Milliseconds of runs that one submit holds: tokens of one submit arrive together, and a reader should not notice. */
const submitMs = 6;
const mostRuns = 8;

/** A read that takes less was there before it was asked for, and says nothing of how long the runs took. */
const promptMs = 0.2;

/** Sleeps after which the runs were there already, one after another, that make an estimate worthless: the device may have been idle meanwhile. */
const mostOversleeps = 3;

/** Waits for a measurement end this much before the runs are expected to: timers are late by up to a millisecond. */
const earlyMs = 0.5;

/**
 * Other waits end this much after: then the runs are there. While Dawn is waited for in Node it asks again and again, each time with a function that only a full collection frees: 0.1 MB a
 * millisecond, and a pause of 0.1 s for 100 MB.
 */
const lateMs = 0.3;

/** Waits without a measurement, one after another. */
const mostLate = 7;

/** Measurements that differ from the estimate by a smaller part of it agree with it; when so many have, one after another, the runs are regular enough to be read late. */
const agreement = 0.05;
const leastAgreed = 3;

/** How a read was waited for before it was asked for: to see it end, to find it done, or not at all. */
type Sleep = 'early' | 'late' | 'none';

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
  /** Sleeps for a measurement, in a row, after which the runs were there already. */
  #overslept = 0;
  /** Reads since the last measurement that were late on purpose. */
  #late = 0;
  /** Measurements in a row that agreed with the estimate. */
  #agreed = 0;
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
    // The device was idle: what it is seen to end next says nothing of this submit, and these runs may be others than before.
    if (this.#submits.length === 0) {
      this.#lastEnd = undefined;
      this.#late = mostLate;
    }
    this.#submits.push({ runs, submission });
    this.#waiting += runs;
  }

  /** The next token; a submit must be on its way, or tokens left of one that arrived. */
  async next(): Promise<number | undefined> {
    if (this.#taken === this.#arrived.length) {
      const [first] = this.#submits;
      if (first === undefined) return undefined;
      const sleep = await this.#sleep(first.runs);
      this.#submits.shift();
      this.#waiting -= first.runs;
      const asked = performance.now();
      const [bytes] = await first.submission.read();
      this.#measure(first.runs, asked, sleep);
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

  /** Sleeps until the next `runs` runs are nearly done, to see them end, or until they are done for sure, where the device has more to do; as far as it is known when that is. */
  async #sleep(runs: number): Promise<Sleep> {
    if (!this.#patient || this.#runMs === undefined || this.#measured < 2 || this.#lastEnd === undefined) return 'none';
    const late = this.#submits.length > 1 && this.#late < mostLate && this.#agreed >= leastAgreed;
    const left = this.#lastEnd + (this.#runsSince + runs) * this.#runMs - performance.now();
    const wait = late ? Math.ceil(left + lateMs) : Math.floor(left - earlyMs);
    if (wait >= 1) await new Promise((resolve) => setTimeout(resolve, wait));
    return late ? 'late' : wait >= 1 ? 'early' : 'none';
  }

  /** Between two ends that were waited for the device did nothing but the runs in between. */
  #measure(runs: number, asked: number, sleep: Sleep): void {
    const now = performance.now();
    this.#runsSince += runs;
    if (now - asked < promptMs) {
      this.#wasThere(now, sleep);
      return;
    }
    this.#overslept = 0;
    if (this.#lastEnd !== undefined) {
      this.#runMs = this.#smoothed((now - this.#lastEnd) / this.#runsSince);
      this.#late = 0;
    }
    this.#lastEnd = now;
    this.#runsSince = 0;
  }

  /** The runs were there before they were asked for. */
  #wasThere(now: number, sleep: Sleep): void {
    const runMs = this.#runMs ?? 0;
    if (sleep === 'late') {
      this.#late++;
      // Much later than meant: the reader was slow, and the device may have been idle since.
      if (now - (this.#lastEnd ?? now) - this.#runsSince * runMs > submitMs) this.#lastEnd = undefined;
      return;
    }
    this.#agreed = 0;
    // After a sleep, expect the next ones sooner; else the reader was slow.
    if (sleep === 'early' && ++this.#overslept < mostOversleeps) {
      this.#runMs = runMs * 0.98;
      return;
    }
    if (sleep === 'early') this.#measured = 0;
    this.#overslept = 0;
    this.#lastEnd = undefined;
  }

  /** The estimate with one measurement more. A pause of this thread passes for a long run: no measurement more than doubles the estimate, and a much shorter one replaces it. */
  #smoothed(runMs: number): number {
    const before = this.#runMs;
    this.#agreed = before !== undefined && Math.abs(runMs - before) < agreement * before ? this.#agreed + 1 : 0;
    const replaces = before === undefined || this.#measured === 0 || runMs < before / 2;
    this.#measured++;
    return replaces ? runMs : 0.8 * before + 0.2 * Math.min(runMs, 2 * before);
  }
}
