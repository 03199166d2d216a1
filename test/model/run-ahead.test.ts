import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { RunAhead } from '../../src/model/run-ahead.js';
import { advanceState, chosenWords, stateWords } from '../../src/ops/state.js';
import type { Submission } from '../../src/runtime/backend.js';

/** A device that takes `runMs` for a run, on a clock of its own that reads and timers move on, and counts its tokens up from 0. */
class FakeDevice {
  readonly #words = new Uint32Array(stateWords(1));
  #token = 0;
  #busyUntil = 0;
  now = 0;
  /** Milliseconds that reads were waited for. */
  waited = 0;
  cancelled = 0;
  /** The read that is answered late, counted from 0, because this thread is busy with something else, and by how many milliseconds. */
  pause = { read: -1, ms: 0 };
  #reads = 0;

  submit(runs: number, runMs: number): Submission {
    for (let run = 0; run < runs; run++) advanceState(this.#words, this.#token++);
    const bytes = new Uint8Array(this.#words.slice(0, chosenWords).buffer);
    this.#busyUntil = Math.max(this.#busyUntil, this.now) + runs * runMs;
    const end = this.#busyUntil;
    return {
      read: () => {
        this.waited += Math.max(0, end - this.now);
        this.now = Math.max(this.now, end) + (this.#reads++ === this.pause.read ? this.pause.ms : 0);
        return Promise.resolve([bytes]);
      },
      cancel: () => {
        this.cancelled++;
      },
    };
  }
}

let device: FakeDevice;
beforeEach(() => {
  device = new FakeDevice();
  vi.spyOn(performance, 'now').mockImplementation(() => device.now);
  vi.spyOn(globalThis, 'setTimeout').mockImplementation(((wake: () => void, ms: number) => {
    // Timers are late.
    device.now += ms + 0.7;
    queueMicrotask(wake);
  }) as unknown as typeof setTimeout);
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** Takes `count` tokens with three submits on their way; gives them and the sizes of the submits. */
async function take(ahead: RunAhead, count: number, runMs: number, pause = 0): Promise<{ tokens: (number | undefined)[]; sizes: number[] }> {
  const tokens: (number | undefined)[] = [];
  const sizes: number[] = [];
  while (tokens.length < count) {
    while (ahead.submits < 3 && tokens.length + ahead.runs < count) {
      const runs = Math.min(ahead.submitRuns, count - tokens.length - ahead.runs);
      sizes.push(runs);
      ahead.add(runs, device.submit(runs, runMs));
    }
    const before = ahead.runs;
    tokens.push(await ahead.next());
    expect(ahead.runs).toBe(before - 1);
    device.now += pause;
  }
  return { tokens, sizes };
}

describe('runs ahead', () => {
  test.each([
    [0.5, 8],
    [1.9, 3],
    [30, 1],
  ])('of %s ms each share submits of about five milliseconds: %s at most', async (runMs, most) => {
    for (const patient of [false, true]) {
      device = new FakeDevice();
      const ahead = new RunAhead(patient);
      const { tokens, sizes } = await take(ahead, 60, runMs);
      expect(tokens).toEqual(Array.from({ length: 60 }, (_, i) => i));
      // Encoding a submit takes no longer than the runs that are on their way.
      expect(sizes.slice(0, 3)).toEqual([1, 1, 1]);
      expect(Math.max(...sizes)).toBe(most);
      expect(sizes.reduce((sum, runs) => sum + runs, 0)).toBe(60);
      expect([ahead.runs, ahead.submits]).toEqual([0, 0]);
    }
  });

  test('are slept through where asking costs something, and the device has work all the same', async () => {
    await take(new RunAhead(true), 400, 0.5);
    expect(device.waited).toBeLessThan(0.1 * 400 * 0.5);
    expect(device.now).toBeLessThan(1.02 * 400 * 0.5 + 4);
  });

  test('are not thought to be slow because their reader is', async () => {
    const ahead = new RunAhead(true);
    await take(ahead, 40, 0.5);
    const { sizes } = await take(ahead, 80, 0.5, 50);
    expect(Math.max(...sizes)).toBe(8);
  });

  test.each([1, 2, 3, 40])('are not slept through for long after this thread paused at read %s', async (read) => {
    device.pause = { read, ms: 3000 };
    await take(new RunAhead(true), 800, 0.5);
    expect(device.now).toBeGreaterThan(3000);
    expect(device.now - 3000).toBeLessThan(2 * 800 * 0.5);
  });

  test('that become shorter are not slept through for long', async () => {
    const ahead = new RunAhead(true);
    await take(ahead, 60, 20);
    const before = device.now;
    await take(ahead, 400, 0.5);
    expect(device.now - before).toBeLessThan(400 * 0.5 + 5 * 20);
  });

  test('are forgotten with all that has arrived of them', async () => {
    const ahead = new RunAhead(false);
    await take(ahead, 20, 0.5);
    ahead.add(4, device.submit(4, 0.5));
    ahead.add(4, device.submit(4, 0.5));
    expect(await ahead.next()).toBe(20);
    ahead.forget();
    expect([ahead.runs, ahead.submits, device.cancelled]).toEqual([0, 0, 1]);
    ahead.add(2, device.submit(2, 0.5));
    expect([await ahead.next(), await ahead.next()]).toEqual([28, 29]);
  });

  test('that fail are told to whoever takes their tokens', async () => {
    const ahead = new RunAhead(false);
    ahead.add(1, { read: () => Promise.reject(new Error('lost')), cancel: () => {} });
    await expect(ahead.next()).rejects.toThrow('lost');
    expect(ahead.runs).toBe(0);
  });
});
