import { penalised } from '../../ops/sampling.js';
import { chooseToken } from '../../ops/sampling-choice.js';
import { isPenalised, readSamplingHeader, type SamplingParameters, samplingWord } from '../../ops/sampling-state.js';
import { noToken, replaceToken } from '../../ops/state.js';
import type { LoweringRule } from '../../ops/target.js';
import type { CpuKernel } from '../kernel.js';
import { axisOf, cpuStep, inputOf } from '../step.js';

/** The draw in f64, as the host samples. It allocates what the filters keep: a decode step on a processor takes a thousand times as long. */
export const redraw: LoweringRule<'redraw', CpuKernel> = (node, context) => {
  const [session, sampling, logits] = [inputOf(node, 0), inputOf(node, 1), inputOf(node, 2)];
  const row = context.scratch({ dtype: 'f32', shape: [axisOf(logits, 1)] });
  const kernel = redrawKernel(axisOf(logits, 1));
  return [cpuStep(node, kernel, [session, 'readwrite'], [sampling, 'readwrite'], [logits, 'read'], [row, 'write'], [node.output, 'write'])];
};

function redrawKernel(vocabulary: number): CpuKernel {
  return {
    key: `redraw:${vocabulary}`,
    family: 'redraw',
    programs: [],
    bind(context) {
      const [session, sampling, logits, row, y] = [context.u32(0), context.u32(1), context.f32(2), context.f32(3), context.u32(4)];
      const counts = sampling.subarray(samplingWord.counts);
      return () => {
        const { parameters, step } = readSamplingHeader(sampling);
        const token = chooseToken(isPenalised(parameters) ? penalise(logits, counts, parameters, row) : logits, parameters, step);
        if (token !== undefined) counts[token] = (counts[token] ?? 0) + 1;
        sampling[samplingWord.step] = step + 1;
        replaceToken(session, token ?? noToken);
        y[0] = token ?? noToken;
      };
    },
  };
}

function penalise(logits: Float32Array, counts: Uint32Array, parameters: SamplingParameters, into: Float32Array): Float32Array {
  into.set(logits);
  for (let token = 0; token < counts.length; token++) {
    const count = counts[token] ?? 0;
    if (count !== 0) into[token] = penalised(logits[token] ?? Number.NaN, count, parameters);
  }
  return into;
}
