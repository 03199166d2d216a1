import { bytesOf } from '../../core/bytes.js';
import type { CaseInput, OpCase } from '../case.js';
import type { RopePairing } from '../params.js';
import { sessionInput } from './session.js';
import { floatInput, seededRandom } from './weight-data.js';

/** Rows, live rows, heads, elements of a head, rotated pairs, position. */
const sizes = [
  [1, 1, 1, 2, 1, 0],
  [1, 1, 4, 64, 32, 17],
  [5, 3, 2, 8, 4, 0],
  [7, 7, 3, 48, 12, 9],
  [16, 10, 2, 80, 40, 5],
  [3, 3, 5, 33, 8, 2],
  [2, 1, 8, 128, 64, 30],
] as const;

/** The same, with a table of one row. */
const singles = [[1, 1, 3, 16, 8, 6]] as const;

/** (cos, sin) of position times 10000^(-i / pairs). */
function angleTable(positions: number, pairs: number): CaseInput {
  const table = new Float32Array(positions * pairs * 2);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < pairs; i++) {
      const angle = p * 10_000 ** (-i / pairs);
      table.set([Math.cos(angle), Math.sin(angle)], (p * pairs + i) * 2);
    }
  }
  return { role: 'param', type: { dtype: 'f32', shape: [positions, pairs, 2] }, bytes: bytesOf(table) };
}

/** The row of a position alone. */
function angleRow(position: number, pairs: number): CaseInput {
  const { role, bytes } = angleTable(position + 1, pairs);
  return { role, type: { dtype: 'f32', shape: [1, pairs, 2] }, bytes: bytes.slice(position * pairs * 8) };
}

/** Both pairings, heads that turn whole and in part, padding rows, positions beyond 0, tables of one row. */
export function ropeCases(): readonly OpCase<'rope'>[] {
  return [...sizes, ...singles].flatMap(([rows, live, heads, width, pairs, position], i) =>
    (['adjacent', 'halves'] as readonly RopePairing[]).map((pairing) => ({
      name: `rope ${pairing} [${rows}, ${heads}, ${width}] pairs ${pairs} position ${position}${i < sizes.length ? '' : ', one row of angles'}`,
      op: 'rope' as const,
      params: { pairing },
      inputs: [
        floatInput('input', [rows, heads, width], seededRandom(500 + i)),
        i < sizes.length ? angleTable(position + live, pairs) : angleRow(position, pairs),
        sessionInput(position, live, rows),
      ],
      tolerance: { absolute: 3e-7 },
      liveRows: live,
    })),
  );
}
