import type { GpuCapabilities } from '../../core/capabilities.js';
import { linearRounding } from '../../ops/activation-rounding.js';
import type { OpCase } from '../../ops/case.js';
import type { OpParams } from '../../ops/params.js';
import type { ActivationChoice } from '../decode/select.js';
import { rowBlock } from './activations.js';
import { selectPacked } from './linear.js';

/** What 8-bit activations may add to the error of each output of a case of `linear` that takes them (and no matrices); undefined for every other case. */
export function packedRounding(opCase: OpCase, capabilities: GpuCapabilities, activations?: ActivationChoice): Float64Array | undefined {
  if (opCase.op !== 'linear' || (opCase.params as OpParams['linear']).rounded !== true) return undefined;
  const [[rows = 0, depth = 0] = [], [outputs = 0] = []] = opCase.inputs.map(({ type }) => type.shape);
  return linearRounding(opCase, (dtype) =>
    typeof selectPacked({ rows, outputs, depth, dtype }, capabilities, activations) === 'string' ? undefined : { unit: rowBlock, levels: 127 },
  );
}
