import { expect, test } from 'vitest';
import { chromeTrace, formatProfile, profileRows } from '../../src/runtime/profile.js';

const timings = [
  { label: 'blk.0.q', startNs: 0, ns: 3000 },
  { label: 'blk.0.k', startNs: 3000, ns: 1000 },
  { label: 'blk.1.q', startNs: 4000, ns: 4000 },
];

test('rows add up equal labels, slowest first, with their share', () => {
  const rows = profileRows(timings, (label) => label.replace(/^blk\.\d+\./, ''));
  expect(rows).toEqual([
    { label: 'q', count: 2, microseconds: 7, share: 0.875 },
    { label: 'k', count: 1, microseconds: 1, share: 0.125 },
  ]);
  expect(
    formatProfile(rows)
      .split('\n')
      .map((line) => line.split(/ +/)),
  ).toEqual([
    ['step', 'runs', 'us', 'share'],
    ['q', '2', '7.0', '87.5%'],
    ['k', '1', '1.0', '12.5%'],
    ['all', '3', '8.0', '100.0%'],
  ]);
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
