/** What a benchmark measured, in one form for all of them: printed, saved, compared, and drawn in docs/performance.md. */

import type { Backend } from '../../src/runtime/backend.js';

/** Rates are better high, times, bytes and divergences low. */
export type Unit = 'tok/s' | 'TFLOP/s' | 'GB/s' | 'us' | 'ms' | 's' | 'MiB' | 'count' | 'nats';

export interface Figure {
  /** What was done, sizes included: "llama-3.1-8b:q4_k_m after 512". Equal names with equal `by` and `checks` are the same figure of two days. */
  readonly name: string;
  readonly value: number;
  readonly unit: Unit;
  /** Fastest and slowest, in the same unit, of as many samples as `samples` says. */
  readonly least?: number;
  readonly most?: number;
  readonly samples?: number;
  /** Who did it. Default: this project. */
  readonly by?: string;
  /** Robustness checks of the device: 'checked', 'unchecked', 'host'; absent where they mean nothing. */
  readonly checks?: string;
  /** Further numbers of the same measurement, for readers of the JSON. */
  readonly details?: Readonly<Record<string, unknown>>;
}

export interface BenchResult {
  /** The device's name; the CPU backend's where that was measured. */
  readonly adapter: string;
  readonly figures: readonly Figure[];
}

/** A result with what it takes to measure it again. */
export interface BenchReport extends BenchResult {
  readonly bench: string;
  readonly command: string;
  readonly date: string;
  readonly machine: Readonly<Record<string, string>>;
}

export const ownName = 'centella';

/** Whether a larger value is the better one. */
export function higherIsBetter(unit: Unit): boolean {
  return unit === 'tok/s' || unit === 'TFLOP/s' || unit === 'GB/s';
}

/** The middle of some samples, with their extremes. */
export function spread(samples: readonly number[]): { readonly value: number; readonly least: number; readonly most: number; readonly samples: number } {
  const sorted = samples.toSorted((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1] ?? Number.NaN, sorted[sorted.length >> 1] ?? Number.NaN];
  return { value: (low + high) / 2, least: sorted[0] ?? Number.NaN, most: sorted.at(-1) ?? Number.NaN, samples: sorted.length };
}

/** Rates of one amount of work done in each of these times. */
export function rates(work: number, times: readonly number[]): ReturnType<typeof spread> {
  return spread(times.map((time) => work / time));
}

export function resultOf({ name }: Pick<Backend, 'name'>, figures: readonly Figure[]): BenchResult {
  return { adapter: name, figures };
}

/** What makes two figures of different days the same figure. */
export function figureKey({ name, by = ownName, checks = '' }: Figure): string {
  return [name, by, checks].join(' | ');
}

/** "1,234 tok/s (1,200 to 1,240)" */
export function formatFigure({ value, unit, least, most }: Figure): string {
  const range = least === undefined || most === undefined ? '' : ` (${formatNumber(least)} to ${formatNumber(most)})`;
  return `${formatNumber(value)} ${unit}${range}`;
}

/** Three significant digits at least, and none after the point from 100 on; powers of ten below a thousandth. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(2);
  const digits = Math.abs(value) >= 100 || value === 0 ? 0 : Math.min(6, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
