import { bytesOf } from '../../core/bytes.js';
import type { OpCase } from '../case.js';
import { sessionInput } from './session.js';
import { floatInput, seededRandom } from './weight-data.js';

/** Rows, live rows, width. */
const lastRows = [
  [1, 1, 1],
  [5, 3, 7],
  [4, 4, 64],
  [16, 1, 1030],
] as const;

/** The last live row, padding after it. */
export function lastRowCases(): readonly OpCase<'lastRow'>[] {
  return lastRows.map(([rows, live, width], i) => ({
    name: `lastRow ${live} of [${rows}, ${width}]`,
    op: 'lastRow',
    params: {},
    inputs: [floatInput('input', [rows, width], seededRandom(850 + i)), sessionInput(11, live, rows)],
    tolerance: { absolute: 0 },
  }));
}

/** The end of a prefill and of a decode step. */
export function advanceCases(): readonly OpCase<'advance'>[] {
  return [
    [0, 13, 16],
    [4095, 1, 1],
  ].map(([position = 0, live = 1, rows = 1]) => ({
    name: `advance position ${position} rows ${live}`,
    op: 'advance',
    params: {},
    inputs: [sessionInput(position, live, rows), { role: 'input', type: { dtype: 'u32', shape: [1] }, bytes: bytesOf(Uint32Array.of(128_255)) }],
    tolerance: { absolute: 0 },
  }));
}
