import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { RunAhead } from '../../src/model/run-ahead.js';
import { advanceState, chosenWords, stateWords } from '../../src/ops/state.js';

/** A device that takes `runMs` for a run, on a clock of its own, and counts its tokens up from 0. */
class FakeDevice {
  readonly #words = new Uint32Array(stateWords(1));
  #token = 0;
  #busyUntil = 0;
  now = 0;
  readonly #pending: { readonly at: number; deliver(): void }[] = [];

  submit(runs: number, runMs: number): Promise<readonly Uint8Array[]> {
    for (let run = 0; run < runs; run++) advanceState(this.#words, this.#token++);
    const bytes = new Uint8Array(this.#words.slice(0, chosenWords).buffer);
    this.#busyUntil = Math.max(this.#busyUntil, this.now) + runs * runMs;
    const at = this.#busyUntil;
    return new Promise((resolve) => {
      this.#pending.push({ at, deliver: () => resolve([bytes]) });
    });
  }

  /** Time passes until the oldest submit has arrived. */
  deliver(): void {
    const first = this.#pending.shift();
    if (first === undefined) return;
    this.now = Math.max(this.now, first.at);
    first.deliver();
  }
}

let device: FakeDevice;
beforeEach(() => {
  device = new FakeDevice();
  vi.spyOn(performance, 'now').mockImplementation(() => device.now);
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** Takes `count` tokens with two submits on their way; gives them and the sizes of the submits. */
async function take(ahead: RunAhead, count: number, runMs: number): Promise<{ tokens: (number | undefined)[]; sizes: number[] }> {
  const tokens: (number | undefined)[] = [];
  const sizes: number[] = [];
  while (tokens.length < count) {
    while (ahead.submits < 2 && tokens.length + ahead.runs < count) {
      const runs = Math.min(ahead.submitRuns, count - tokens.length - ahead.runs);
      sizes.push(runs);
      ahead.add(runs, device.submit(runs, runMs));
    }
    const before = ahead.runs;
    const next = ahead.next();
    device.deliver();
    tokens.push(await next);
    expect(ahead.runs).toBe(before - 1);
  }
  return { tokens, sizes };
}

describe('runs ahead', () => {
  test.each([
    [0.5, 8],
    [1.9, 2],
    [30, 1],
  ])('of %s ms each share submits of about four milliseconds: %s at most', async (runMs, most) => {
    const ahead = new RunAhead();
    const { tokens, sizes } = await take(ahead, 50, runMs);
    expect(tokens).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(sizes[0]).toBe(1);
    expect(Math.max(...sizes)).toBe(most);
    expect(sizes.reduce((sum, runs) => sum + runs, 0)).toBe(50);
    expect([ahead.runs, ahead.submits]).toEqual([0, 0]);
  });

  test('are forgotten with all that has arrived of them', async () => {
    const ahead = new RunAhead();
    await take(ahead, 20, 0.5);
    ahead.add(4, device.submit(4, 0.5));
    device.deliver();
    expect(await ahead.next()).toBe(20);
    ahead.forget();
    expect([ahead.runs, ahead.submits]).toEqual([0, 0]);
    ahead.add(2, device.submit(2, 0.5));
    device.deliver();
    expect([await ahead.next(), await ahead.next()]).toEqual([24, 25]);
  });

  test('that fail are told to whoever takes their tokens, and to nobody else', async () => {
    const ahead = new RunAhead();
    ahead.add(1, Promise.reject(new Error('lost')));
    await expect(ahead.next()).rejects.toThrow('lost');
    const forgotten = new RunAhead();
    forgotten.add(1, Promise.reject(new Error('unheard')));
    forgotten.forget();
  });
});
