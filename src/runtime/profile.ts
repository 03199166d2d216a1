import type { StepTiming } from './backend.js';

/** Times of steps with one label, added up. */
export interface ProfileRow {
  readonly label: string;
  readonly count: number;
  readonly microseconds: number;
  /** Part of the whole, 0 to 1. */
  readonly share: number;
}

/** Steps by label, the slowest first; `group` may make one label of many ("blk.3.attn_q" to "attn_q"). */
export function profileRows(timings: readonly StepTiming[], group: (label: string) => string = (label) => label): readonly ProfileRow[] {
  const sums = new Map<string, { count: number; ns: number }>();
  for (const { label, ns } of timings) {
    const sum = sums.get(group(label)) ?? { count: 0, ns: 0 };
    sums.set(group(label), { count: sum.count + 1, ns: sum.ns + ns });
  }
  const total = timings.reduce((sum, { ns }) => sum + ns, 0);
  const rows = [...sums].map(([label, { count, ns }]) => ({ label, count, microseconds: ns / 1e3, share: total === 0 ? 0 : ns / total }));
  return rows.sort((a, b) => b.microseconds - a.microseconds);
}

/** The rows as a table of text. */
export function formatProfile(rows: readonly ProfileRow[]): string {
  const width = Math.max(4, ...rows.map(({ label }) => label.length));
  const line = (label: string, count: string, time: string, share: string): string =>
    `${label.padEnd(width)} ${count.padStart(6)} ${time.padStart(12)} ${share.padStart(7)}`;
  const total = rows.reduce((sum, { microseconds }) => sum + microseconds, 0);
  const body = rows.map(({ label, count, microseconds, share }) => line(label, String(count), microseconds.toFixed(1), `${(share * 100).toFixed(1)}%`));
  const steps = rows.reduce((sum, { count }) => sum + count, 0);
  return [line('step', 'runs', 'us', 'share'), ...body, line('all', String(steps), total.toFixed(1), '100.0%')].join('\n');
}

/** The timings as a trace in the Chrome trace event format, which browsers' trace viewers and Perfetto open. */
export function chromeTrace(timings: readonly StepTiming[], name = 'device'): string {
  const events = timings.map(({ label, startNs, ns }) => ({ name: label, ph: 'X', ts: startNs / 1e3, dur: ns / 1e3, pid: 1, tid: 1 }));
  return JSON.stringify({ displayTimeUnit: 'ns', traceEvents: [{ name: 'thread_name', ph: 'M', pid: 1, tid: 1, args: { name } }, ...events] });
}
