/** The codes with which the generator's malformed GGUF files must be refused, by the number in the file's name. */

import type { FormatErrorCode } from '../../src/core/errors.js';

type Range = readonly [from: number, to: number, code: FormatErrorCode];

function byNumber(ranges: readonly Range[]): ReadonlyMap<number, FormatErrorCode> {
  return new Map(ranges.flatMap(([from, to, code]) => Array.from({ length: to - from + 1 }, (_, i) => [from + i, code] as const)));
}

/** What the container is refused for; the files that are not here open. */
export const containerCodes = byNumber([
  [1, 3, 'E_MAGIC'],
  [4, 7, 'E_VERSION'],
  [8, 9, 'E_COUNT'],
  [10, 14, 'E_TRUNCATED'],
  [15, 15, 'E_DATA_BOUNDS'],
  [16, 17, 'E_STRING'],
  [18, 18, 'E_KEY'],
  [19, 19, 'E_DUP_KEY'],
  [20, 20, 'E_KV_TYPE'],
  [21, 21, 'E_STRING'],
  [22, 22, 'E_ARRAY'],
  [23, 23, 'E_TRUNCATED'],
  [24, 24, 'E_ARRAY_TYPE'],
  [25, 26, 'E_DEPTH'],
  [27, 27, 'E_UTF8'],
  [30, 34, 'E_ALIGN'],
  [35, 37, 'E_DIMS'],
  [38, 39, 'E_SHAPE'],
  [40, 42, 'E_OVERFLOW'],
  [43, 43, 'E_DATA_BOUNDS'],
  [44, 45, 'E_TENSOR_TYPE'],
  [46, 46, 'E_BLOCK'],
  [47, 50, 'E_OFFSET'],
  [51, 53, 'E_NAME'],
]);

/** What the vocabulary and the hyperparameters of files that open are refused for. */
export const contentCodes = byNumber([
  [55, 57, 'E_VOCAB'],
  [58, 60, 'E_HPARAM'],
]);
