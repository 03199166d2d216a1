/** What a caller asks of a generation, checked: programs in JavaScript bring values that no type has seen. */

import { ArgumentError, shown } from '../core/errors.js';
import type { GenerationPlan } from './generation.js';
import { type LogitsHook, resolveSampling, type SamplingOptions } from './sampler.js';

/** How a text is written, and when it ends. */
export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to generate. Default: what the context has room for. */
  readonly maxTokens?: number;
  /** Texts at which to stop; none of them is part of the result. */
  readonly stop?: string | readonly string[];
  /** Token ids at which to stop. */
  readonly stopTokens?: readonly number[];
  /** Called with the logits before each choice, which it may change. Each token then waits for its logits to arrive, and the host chooses: leave it out where it is not needed. */
  readonly adjustLogits?: LogitsHook;
  /** Ends the generation with the reason 'aborted'. */
  readonly signal?: AbortSignal;
}

/** A text (BOS is put first where the model wants it), or token ids as they are. */
export type Prompt = string | readonly number[];

type ResolvedOptions = Pick<GenerationPlan, 'maxTokens' | 'sampling' | 'adjustLogits' | 'stops' | 'stopTokens' | 'signal'>;

/** The options with their defaults. @throws ArgumentError for one that is out of range or of another type. */
export function resolveOptions(options: GenerateOptions, vocabulary: number): ResolvedOptions {
  if (typeof options !== 'object' || options === null) throw new ArgumentError('options', `options of a generation are an object, got ${shown(options)}`);
  const { maxTokens = Number.POSITIVE_INFINITY, stop = [], stopTokens = [], adjustLogits, signal } = options;
  if (!(maxTokens === Number.POSITIVE_INFINITY || Number.isInteger(maxTokens)) || maxTokens < 0)
    throw new ArgumentError('maxTokens', `maxTokens must be a whole number from 0, got ${shown(maxTokens)}`);
  if (adjustLogits !== undefined && typeof adjustLogits !== 'function')
    throw new ArgumentError('adjustLogits', `adjustLogits must be a function that changes a row of logits, got ${shown(adjustLogits)}`);
  checkSignal(signal);
  return { maxTokens, sampling: resolveSampling(options), adjustLogits, stops: stopTexts(stop), stopTokens: stopIds(stopTokens, vocabulary), signal };
}

/** @throws ArgumentError for what is there and no AbortSignal. */
export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal !== undefined && typeof signal?.aborted !== 'boolean')
    throw new ArgumentError('signal', `signal must be an AbortSignal, as AbortController makes it, got ${shown(signal)}`);
}

function stopTexts(stop: string | readonly string[]): readonly string[] {
  const texts = typeof stop === 'string' ? [stop] : stop;
  if (!Array.isArray(texts) || texts.some((text) => typeof text !== 'string'))
    throw new ArgumentError('stop', `stop must be a text or a list of texts, got ${shown(stop)}`);
  if (texts.includes('')) throw new ArgumentError('stop', 'an empty stop string would stop everything: leave it out');
  return [...texts];
}

function stopIds(ids: readonly number[], vocabulary: number): ReadonlySet<number> {
  if (!isList(ids)) throw new ArgumentError('stopTokens', `stopTokens must be a list of token ids, got ${shown(ids)}`);
  checkTokenIds('stopTokens', ids, vocabulary);
  return new Set(ids);
}

/** @throws ArgumentError unless every id has a row in the model. */
export function checkTokenIds(argument: string, ids: readonly number[], vocabulary: number): void {
  const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary);
  if (bad >= 0) throw new ArgumentError(argument, `token ids go from 0 to ${vocabulary - 1}, got ${shown(ids[bad])}`);
}

/** A list of the caller's: an array, or a typed one. */
export function isList(value: unknown): value is readonly number[] {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
}
