/** What a decoder refuses before anything runs. */

import { ArgumentError, ContextError } from '../core/errors.js';

/** @throws ContextError where so many more tokens do not fit. */
export function checkRoom(tokens: number, position: number, contextLength: number): void {
  if (position + tokens <= contextLength) return;
  throw new ContextError(`${tokens} more tokens after ${position} do not fit into a context of ${contextLength}: use a longer context or a shorter prompt`, {
    tokens: position + tokens,
    contextLength,
  });
}

/** Kernels trust ids, so that none may pass that the embedding has no row for. */
export function checkIds(ids: readonly number[], vocabulary: number): void {
  if (ids.length === 0) throw new ArgumentError('ids', 'at least one token has to be fed');
  const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary);
  if (bad >= 0) throw new ArgumentError('ids', `token ids go from 0 to ${vocabulary - 1}, got ${ids[bad]}`);
}
