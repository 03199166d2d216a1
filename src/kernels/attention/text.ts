/** What the attention kernels share: the problem, and how a cache's elements become f32 vectors. */

import type { BindingKind } from '../../core/kernel.js';
import type { KernelParam } from '../template.js';
import { f32Literal } from '../template.js';
import type { CacheType } from './cache.js';

export interface AttentionProblem {
  /** Padded rows T. */
  readonly rows: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** Elements of a head. */
  readonly width: number;
  readonly capacity: number;
  readonly keys: CacheType;
  readonly values: CacheType;
  readonly scale: number;
  /** Positions that a row sees at most, its own included. */
  readonly window?: number | undefined;
  readonly softcap?: number | undefined;
  /** Whether each query head has a logit more in its sum: a binding after the state. */
  readonly sinks?: boolean | undefined;
}

export function problemParams({ window, softcap, sinks, ...always }: AttentionProblem): { readonly [name: string]: KernelParam } {
  return { ...always, ...(window === undefined ? {} : { window }), ...(softcap === undefined ? {} : { softcap }), ...(sinks === true ? { sinks } : {}) };
}

/** Positions that one row may see. */
export function reachOf({ capacity, window }: AttentionProblem): number {
  return Math.min(window ?? capacity, capacity);
}

/** The first position that is seen from the end of `length` positions on. */
export function firstSeenText({ window }: AttentionProblem, length: string): string {
  return window === undefined ? '0u' : `max(${length}, ${window}u) - ${window}u`;
}

/** What q . k is multiplied with: the result counts in units where e^x is exp2, or is what `capped` takes. */
export function scoreScale({ scale, softcap }: AttentionProblem): string {
  return f32Literal(softcap === undefined ? scale * Math.LOG2E : (2 * scale * Math.LOG2E) / softcap);
}

/**
 * `fn capped(x)` of an f32 or a vector: softcap tanh(score / softcap) in units where e^x is exp2, of x = q . k times `scoreScale`; by (1 - e) / (1 + e) with e = e^(-2 |score| / softcap), which
 * cannot overflow. Empty without a softcap.
 */
export function cappedFunction({ softcap }: AttentionProblem, type: string): string {
  if (softcap === undefined) return '';
  return `fn capped(x: ${type}) -> ${type} {
  let e = exp2(-abs(x));
  return sign(x) * (1.0 - e) / (1.0 + e) * ${f32Literal(softcap * Math.LOG2E)};
}
`;
}

/** The call of `capped`, where there is a softcap. */
export function cappedText({ softcap }: AttentionProblem, x: string): string {
  return softcap === undefined ? x : `capped(${x})`;
}

/** Bindings that are read: query, keys, values and state, scales of caches in planes, sinks. */
export function attentionReads({ keys, values, sinks }: AttentionProblem): number {
  return 4 + Number(keys === 'q8_planes') + Number(values === 'q8_planes') + Number(sinks === true);
}

/** The declaration of the sinks for `declareBindings`. */
export function sinksBinding({ sinks }: AttentionProblem): readonly (readonly [name: string, element: string, kind: BindingKind])[] {
  return sinks === true ? [['sinks', 'f32', 'read']] : [];
}

/** The sink of a head, in units where e^x is exp2. */
export function sinkText(head: string): string {
  return `sinks[${head}] * ${f32Literal(Math.LOG2E)}`;
}

/** A score that no real one falls below, in units where e^x is exp2: its weight is 0 against any real score. */
export const maskedScore = '-3e38f';

/** The product of two vectors of one width, summed. */
export function dotText(width: number, a: string, b: string): string {
  return width === 1 ? `${a} * ${b}` : `dot(${a}, ${b})`;
}
