import { expect, test } from 'vitest';
import { chromeTrace, chromeTraceOfRuns, formatProfile, profileRows } from '../../src/runtime/profile.js';

const timings = [
  { label: 'blk.0.q', startNs: 0, ns: 3000, bytes: 6_000_000, flops: 3e9 },
  { label: 'blk.0.k', startNs: 3000, ns: 1000 },
  { label: 'blk.1.q', startNs: 4000, ns: 4000, bytes: 8_000_000, flops: 4e9 },
];

test('rows add up equal labels, slowest first, with their share', () => {
  const rows = profileRows(timings, (label) => label.replace(/^blk\.\d+\./, ''));
  expect(rows).toEqual([
    { label: 'q', count: 2, microseconds: 7, share: 0.875, bytes: 14_000_000, flops: 7e9 },
    { label: 'k', count: 1, microseconds: 1, share: 0.125, bytes: 0, flops: 0 },
  ]);
  const words = (text: string): string[][] => text.split('\n').map((line) => line.trim().split(/ {2,}/));
  expect(words(formatProfile(rows))).toEqual([
    ['step', 'runs', 'us', 'share', 'MB', 'GB/s', 'GFLOP', 'TFLOP/s'],
    ['q', '2', '7.0', '87.5%', '14.00', '2000', '7.00', '1000.00'],
    ['k', '1', '1.0', '12.5%'],
    ['all', '3', '8.0', '100.0%', '14.00', '1750', '7.00', '875.00'],
  ]);
  const peaks = words(formatProfile(rows, { bytesPerSecond: 4e12, flopsPerSecond: 5e13 }));
  expect(peaks[1]).toEqual(['q', '2', '7.0', '87.5%', '14.00', '2000', '50%', '7.00', '1000.00']);
  expect(peaks.at(-1)).toEqual(['peaks measured here: reading 4000 GB/s, f32 50.0 TFLOP/s']);
  expect(profileRows([])).toEqual([]);
});

test('the trace has one complete event a step, in microseconds', () => {
  const trace = JSON.parse(chromeTrace(timings)) as { traceEvents: { ph: string; name: string; ts?: number; dur?: number }[] };
  const steps = trace.traceEvents.filter(({ ph }) => ph === 'X');
  expect(steps.map(({ name, ts, dur }) => [name, ts, dur])).toEqual([
    ['blk.0.q', 0, 3],
    ['blk.0.k', 3, 1],
    ['blk.1.q', 4, 4],
  ]);
});

test('a trace of several runs has a track for each, and says what steps move', () => {
  const trace = JSON.parse(
    chromeTraceOfRuns([
      { name: 'decode', timings },
      { name: 'prefill', timings: timings.slice(0, 1) },
    ]),
  ) as {
    traceEvents: { ph: string; tid: number; args: { name?: string; 'GB/s'?: number } }[];
  };
  expect(trace.traceEvents.filter(({ ph }) => ph === 'M').map(({ tid, args }) => [tid, args.name])).toEqual([
    [1, 'decode'],
    [2, 'prefill'],
  ]);
  expect(trace.traceEvents.filter(({ ph, tid }) => ph === 'X' && tid === 2).map(({ args }) => args['GB/s'])).toEqual([2000]);
});

test('a step too short for the clock has no rate, in a table or a trace', () => {
  const short = [{ label: 'gate', startNs: 0, ns: 0, bytes: 64, flops: 64 }];
  const trace = JSON.parse(chromeTrace(short)) as { traceEvents: { args: object }[] };
  expect(trace.traceEvents[1]?.args).toEqual({ bytes: 64, flops: 64 });
  expect(formatProfile(profileRows(short), { bytesPerSecond: 1e9, flopsPerSecond: 1e9 })).not.toMatch(/NaN|Infinity/);
});
