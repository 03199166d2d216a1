/** Scale searches for the encoders: both minimise the plain squared error of a group. */

import { valueAt } from './codec.js';

/** Candidate scales move the group's extreme value by up to this many tenths of a quantisation step. */
const searchRadius = 12;

export function roundClamped(value: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, Math.round(value)));
}

/** The scale d (of either sign) for which d * q, q an integer in [low, high], comes nearest to the values [from, from + count). */
export function fitScale(values: Float32Array, from: number, count: number, low: number, high: number): number {
  let extreme = 0;
  for (let i = from; i < from + count; i++) if (Math.abs(valueAt(values, i)) > Math.abs(extreme)) extreme = valueAt(values, i);
  if (extreme === 0) return 0;
  let best = extreme / low;
  let bestGain = -1;
  for (let step = -searchRadius; step <= searchRadius; step++) {
    const inverse = (low + step * 0.1) / extreme;
    let xq = 0;
    let qq = 0;
    for (let i = from; i < from + count; i++) {
      const x = valueAt(values, i);
      const q = roundClamped(x * inverse, low, high);
      xq += x * q;
      qq += q * q;
    }
    // For fixed q the best d is xq / qq, and it removes xq^2 / qq from the squared error.
    if (qq > 0 && xq * xq > bestGain * qq) {
      bestGain = (xq * xq) / qq;
      best = xq / qq;
    }
  }
  return best;
}

export interface AffineFit {
  readonly scale: number;
  readonly min: number;
}

/**
 * The scale and minimum for which scale * q + min, q an integer in [0, high], comes nearest to the values [from, from + count). K-quants store -min unsigned:
 * for them `minAtMostZero` holds.
 */
export function fitAffine(values: Float32Array, from: number, count: number, high: number, minAtMostZero: boolean): AffineFit {
  let low = valueAt(values, from);
  let top = low;
  for (let i = from; i < from + count; i++) {
    low = Math.min(low, valueAt(values, i));
    top = Math.max(top, valueAt(values, i));
  }
  if (minAtMostZero && low > 0) low = 0;
  if (top === low) return { scale: 0, min: low };
  let best: AffineFit = { scale: (top - low) / high, min: low };
  let bestError = affineError(values, from, count, high, best);
  for (let step = -searchRadius; step <= searchRadius; step++) {
    const start: AffineFit = { scale: (top - low) / (high + step * 0.1), min: low };
    const fit = refineAffine(values, from, count, high, refineAffine(values, from, count, high, start, minAtMostZero), minAtMostZero);
    const error = affineError(values, from, count, high, fit);
    if (error < bestError) {
      bestError = error;
      best = fit;
    }
  }
  return best;
}

/** Least squares for scale and min with the integers that `fit` gives. */
function refineAffine(values: Float32Array, from: number, count: number, high: number, fit: AffineFit, minAtMostZero: boolean): AffineFit {
  let x1 = 0;
  let q1 = 0;
  let qq = 0;
  let xq = 0;
  for (let i = from; i < from + count; i++) {
    const x = valueAt(values, i);
    const q = roundClamped((x - fit.min) / fit.scale, 0, high);
    x1 += x;
    q1 += q;
    qq += q * q;
    xq += x * q;
  }
  const determinant = count * qq - q1 * q1;
  if (determinant <= 0) return fit;
  const scale = (count * xq - x1 * q1) / determinant;
  const min = (x1 - scale * q1) / count;
  if (min > 0 && minAtMostZero) return qq > 0 && xq > 0 ? { scale: xq / qq, min: 0 } : fit;
  return scale > 0 ? { scale, min } : fit;
}

function affineError(values: Float32Array, from: number, count: number, high: number, fit: AffineFit): number {
  let error = 0;
  for (let i = from; i < from + count; i++) {
    const x = valueAt(values, i);
    const difference = x - fit.min - fit.scale * roundClamped((x - fit.min) / fit.scale, 0, high);
    error += difference * difference;
  }
  return error;
}
