/**
 * The session state of a decoder: one u32 tensor [stateWords(maxRows)] that kernels read and `advance` updates, so that a decode step needs no upload.
 *
 * word 0  position: tokens that the KV cache holds before this run
 * word 1  rows: live rows of this run; rows beyond it are padding, whose results nobody reads
 * word 2  token: the token that the last run chose
 * word 3  steps: tokens chosen since the state was written
 * word 64 ids: the token ids of this run's rows (256 bytes in, so that a view of them is a legal storage binding)
 */
export const stateWord = { position: 0, rows: 1, token: 2, steps: 3, ids: 64 } as const;

/** Words of a session state for runs of up to `maxRows` rows. */
export function stateWords(maxRows: number): number {
  return stateWord.ids + maxRows;
}
