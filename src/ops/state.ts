/**
 * The session state of a decoder: one u32 tensor [stateWords(maxRows)] that kernels read and `advance` updates, so that a decode step needs no upload.
 *
 * word 0  position: tokens that the KV cache holds before this run
 * word 1  rows: live rows of this run; rows beyond it are padding, whose results nobody reads
 * word 2  token: the token that the last run chose, or `noToken`
 * word 3  steps: tokens chosen since the state was written
 * word 8  history: the last `historyLength` tokens chosen, each at its step modulo that, so that one copy reads what several runs chose
 * word 64 ids: the token ids of this run's rows (256 bytes in, so that a view of them is a legal storage binding)
 */
export const stateWord = { position: 0, rows: 1, token: 2, steps: 3, history: 8, ids: 64 } as const;

/** Tokens that `history` holds: a power of two, so that it stays in order when `steps` wraps. */
export const historyLength = 32;

/** The token of a run whose logits are no numbers. What is fed back is id 0, which every embedding has. */
export const noToken = 0xffff_ffff;

/** Words from the start that say what was chosen. */
export const chosenWords = stateWord.history + historyLength;

/** Words of a session state for runs of up to `maxRows` rows. */
export function stateWords(maxRows: number): number {
  return stateWord.ids + maxRows;
}

/** What ends a run: `token` is chosen, and the next run starts from it. */
export function advanceState(words: { [word: number]: number }, token: number): void {
  const steps = words[stateWord.steps] ?? 0;
  words[stateWord.position] = (words[stateWord.position] ?? 0) + (words[stateWord.rows] ?? 0);
  words[stateWord.rows] = 1;
  words[stateWord.token] = token;
  words[stateWord.steps] = steps + 1;
  words[stateWord.history + (steps % historyLength)] = token;
  words[stateWord.ids] = token === noToken ? 0 : token;
}

/** Puts another token in place of the one that the last `advanceState` was given. */
export function replaceToken(words: { [word: number]: number }, token: number): void {
  words[stateWord.token] = token;
  words[stateWord.history + (((words[stateWord.steps] ?? 0) + historyLength - 1) % historyLength)] = token;
  words[stateWord.ids] = token === noToken ? 0 : token;
}

/** The tokens of the last `count` runs, first to last, from the first `chosenWords` words of a state. */
export function chosenTokens(words: Uint32Array, count: number): number[] {
  const steps = words[stateWord.steps] ?? 0;
  return Array.from({ length: count }, (_, i) => words[stateWord.history + (((steps - count + i) >>> 0) % historyLength)] ?? noToken);
}
