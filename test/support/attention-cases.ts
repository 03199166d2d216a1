import type { OpCase } from '../../src/ops/case.js';
import { attentionCases } from '../../src/ops/cases/attention.js';

/** Wide heads, whose sums are written out column by column: lavapipe compiles them for many seconds. */
export const wideHeads = ({ inputs }: OpCase<'attention'>): boolean => (inputs[0]?.type.shape[2] ?? 0) >= 64;

/** Turned so that every device gets a cache of several splits when they are dealt out. */
export function attentionCasesToDeal(): readonly OpCase<'attention'>[] {
  const cases = attentionCases();
  return [...cases.slice(3), ...cases.slice(0, 3)];
}
