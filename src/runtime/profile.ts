import type { ExecutionPlan } from '../plan/execution-plan.js';
import { type LiveRun, planWork } from '../plan/work.js';
import type { Ceilings, StepTiming } from './backend.js';

/** Times of steps with one label, added up. */
export interface ProfileRow {
  readonly label: string;
  readonly count: number;
  readonly microseconds: number;
  /** Part of the whole, 0 to 1. */
  readonly share: number;
  /** Bytes read and written, multiplications and additions; 0 where they were not counted. */
  readonly bytes: number;
  readonly flops: number;
}

/** The timings of a plan's steps with what each of them moves and computes. */
export function withWork(timings: readonly StepTiming[], plan: ExecutionPlan<unknown>, live?: LiveRun): readonly StepTiming[] {
  const work = planWork(plan, live);
  return timings.map((timing, index) => ({ ...timing, ...work[index] }));
}

/** Steps by label, the slowest first; `group` may make one label of many ("blk.3.attn_q" to "attn_q"). */
export function profileRows(timings: readonly StepTiming[], group: (label: string) => string = (label) => label): readonly ProfileRow[] {
  const sums = new Map<string, { count: number; ns: number; bytes: number; flops: number }>();
  for (const { label, ns, bytes = 0, flops = 0 } of timings) {
    const sum = sums.get(group(label)) ?? { count: 0, ns: 0, bytes: 0, flops: 0 };
    sums.set(group(label), { count: sum.count + 1, ns: sum.ns + ns, bytes: sum.bytes + bytes, flops: sum.flops + flops });
  }
  const total = timings.reduce((sum, { ns }) => sum + ns, 0);
  const rows = [...sums].map(([label, { count, ns, bytes, flops }]) => ({
    label,
    count,
    microseconds: ns / 1e3,
    share: total === 0 ? 0 : ns / total,
    bytes,
    flops,
  }));
  return rows.sort((a, b) => b.microseconds - a.microseconds);
}

/** The rows as a table of text, each with its bandwidth and, where it multiplies, its FLOP rate; beside `ceilings` with what that is of the device's. */
export function formatProfile(rows: readonly ProfileRow[], ceilings?: Ceilings): string {
  const all = rows.reduce(added, { label: 'all', count: 0, microseconds: 0, share: rows.length > 0 ? 1 : 0, bytes: 0, flops: 0 });
  const table = [
    ['step', 'runs', 'us', 'share', 'MB', 'GB/s', ...(ceilings ? ['of peak'] : []), 'GFLOP', 'TFLOP/s'],
    ...[...rows, all].map((row) => cells(row, ceilings)),
  ];
  const widths = (table[0] ?? []).map((_, column) => Math.max(...table.map((line) => line[column]?.length ?? 0)));
  const lines = table.map((line) =>
    line
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
  const peaks =
    ceilings &&
    `peaks measured here: reading ${(ceilings.bytesPerSecond / 1e9).toFixed(ceilings.bytesPerSecond < 1e10 ? 2 : 0)} GB/s, f32 ${(ceilings.flopsPerSecond / 1e12).toFixed(ceilings.flopsPerSecond < 1e12 ? 3 : 1)} TFLOP/s`;
  return [...lines, ...(peaks ? [peaks] : [])].join('\n');
}

function added(sum: ProfileRow, row: ProfileRow): ProfileRow {
  const { count, microseconds, bytes, flops } = row;
  return { ...sum, count: sum.count + count, microseconds: sum.microseconds + microseconds, bytes: sum.bytes + bytes, flops: sum.flops + flops };
}

function cells({ label, count, microseconds, share, bytes, flops }: ProfileRow, ceilings: Ceilings | undefined): string[] {
  const bandwidth = microseconds > 0 ? bytes / microseconds / 1e3 : 0;
  const peak = ceilings ? [bytes > 0 ? `${((bandwidth * 1e11) / ceilings.bytesPerSecond).toFixed(0)}%` : ''] : [];
  const products = flops > 0 && microseconds > 0 ? [(flops / 1e9).toFixed(2), (flops / microseconds / 1e6).toFixed(2)] : ['', ''];
  const bytesText = bytes > 0 ? [(bytes / 1e6).toFixed(2), bandwidth.toFixed(bandwidth < 10 ? 2 : 0)] : ['', ''];
  return [label, String(count), microseconds.toFixed(1), `${(share * 100).toFixed(1)}%`, ...bytesText, ...peak, ...products];
}

/** A run of steps for a trace: its name becomes a track. */
export interface TracedRun {
  readonly name: string;
  readonly timings: readonly StepTiming[];
}

/** The timings as a trace in the Chrome trace event format, which browsers' trace viewers and Perfetto open. */
export function chromeTrace(timings: readonly StepTiming[], name = 'device'): string {
  return chromeTraceOfRuns([{ name, timings }]);
}

/** Several runs as one trace: a track each, the steps with their bytes and operations. */
export function chromeTraceOfRuns(runs: readonly TracedRun[]): string {
  const traceEvents = runs.flatMap(({ name, timings }, index): object[] => {
    const place = { pid: 1, tid: index + 1 };
    const steps = timings.map(({ label, startNs, ns, bytes, flops }) => {
      const work = { ...(bytes ? { bytes } : {}), ...(flops ? { flops } : {}) };
      // What is too short for the device's clock has no rate: JSON has no infinity.
      const rates = ns > 0 ? { ...(bytes ? { 'GB/s': bytes / ns } : {}), ...(flops ? { 'TFLOP/s': flops / ns / 1e3 } : {}) } : {};
      return { name: label, ph: 'X', ts: startNs / 1e3, dur: ns / 1e3, ...place, args: { ...work, ...rates } };
    });
    return [{ name: 'thread_name', ph: 'M', ...place, args: { name } }, ...steps];
  });
  return JSON.stringify({ displayTimeUnit: 'ns', traceEvents });
}
