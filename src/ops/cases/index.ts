import type { OpCase } from '../case.js';
import { argmaxCases } from './argmax.js';
import { attentionCases } from './attention.js';
import { cacheWriteCases } from './cache.js';
import { attendTokenCases, chooseNextCases, gatedProductCases, qkvCases, tokenLinearCases } from './decode.js';
import { binaryCases, swigluCases, unaryCases } from './elementwise.js';
import { gatherCases } from './gather.js';
import { linearCases } from './linear.js';
import { matmulCases } from './matmul.js';
import { rmsNormCases } from './norm.js';
import { dotCases, layerNormCases, logSoftmaxCases, reduceCases, softmaxCases } from './reduce.js';
import { ropeCases } from './rope.js';
import { redrawCases } from './sampling.js';
import { advanceCases, lastRowCases } from './state.js';
import { tensorCases } from './tensor.js';

/** Every case of every operation: what a backend must pass. Made on demand, the same bits on every machine. */
export function allCases(): OpCase[] {
  return [
    ...unaryCases(),
    ...binaryCases(),
    ...swigluCases(),
    ...gatherCases(),
    ...linearCases(),
    ...rmsNormCases(),
    ...ropeCases(),
    ...cacheWriteCases(),
    ...attentionCases(),
    ...lastRowCases(),
    ...argmaxCases(),
    ...advanceCases(),
    ...tokenLinearCases(),
    ...qkvCases(),
    ...gatedProductCases(),
    ...attendTokenCases(),
    ...chooseNextCases(),
    ...redrawCases(),
    ...matmulCases(),
    ...reduceCases(),
    ...dotCases(),
    ...softmaxCases(),
    ...logSoftmaxCases(),
    ...layerNormCases(),
    ...tensorCases(),
  ];
}
