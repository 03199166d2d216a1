/** Which kernels a device gets at the shapes of a typical model, and why; from capabilities alone. */

import type { GpuCapabilities } from '../core/capabilities.js';
import { selectDecode, selectPrefill } from '../kernels/attention/attention.js';
import { selectMatrixAttention } from '../kernels/attention/matrix.js';
import { selectLinear, selectPath } from '../kernels/linear.js';
import { selectNorm } from '../kernels/norm.js';

export interface KernelChoice {
  /** What is computed: the operation and its sizes. */
  readonly problem: string;
  readonly variant: string;
  readonly reason: string;
}

/** Rows of the prompt or of the one token, and rows of the weight: projections, feed-forward and LM head of small and middle-sized models. */
const linearShapes = [
  { rows: 1, outputs: 1024 },
  { rows: 1, outputs: 4096 },
  { rows: 1, outputs: 128_256 },
  { rows: 8, outputs: 4096 },
  { rows: 32, outputs: 4096 },
  { rows: 512, outputs: 4096 },
] as const;

/** Columns of those weights, and their type. */
const linearDepth = 4096;
const linearType = 'q4_k';

/** Grouped-query attention with 32 heads on 8. */
const attentionShapes = [
  { rows: 1, width: 64, capacity: 512 },
  { rows: 1, width: 128, capacity: 4096 },
  { rows: 1, width: 128, capacity: 32_768 },
  { rows: 32, width: 128, capacity: 4096 },
  { rows: 512, width: 128, capacity: 4096 },
] as const;

const normWidths = [512, 4096] as const;

export function kernelChoices(capabilities: GpuCapabilities): readonly KernelChoice[] {
  const linear = linearShapes.map(({ rows, outputs }): KernelChoice => {
    const problem = `linear, ${rows} x ${outputs}`;
    const { path, reason: why } = selectPath({ rows, outputs, depth: linearDepth, dtype: linearType }, capabilities);
    const choice = selectLinear({ rows, outputs }, capabilities);
    if (path !== 'f32')
      return { problem, variant: path, reason: `${why}; ${path === 'f16 matrices' ? 'f32 weights' : 'weights that are not packed'} keep f32 tiles` };
    const variant = choice.family === 'matvec' ? `matvec by ${choice.shape.team}` : `matmul ${choice.tile.schedule}`;
    return { problem, variant, reason: choice.family === 'matvec' ? choice.reason : `${choice.reason}; ${why}` };
  });
  const attention = attentionShapes.map(({ rows, width, capacity }): KernelChoice => {
    const problem = { rows, heads: 32, kvHeads: 8, width, capacity, keys: 'f32', values: 'f32', scale: 1 / Math.sqrt(width) } as const;
    const matrix = rows === 1 ? undefined : selectMatrixAttention(problem, capabilities);
    const { reason } = matrix ?? (rows === 1 ? selectDecode(problem, capabilities) : selectPrefill(problem, capabilities));
    const variant = matrix === undefined ? (rows === 1 ? 'decode' : 'prefill') : 'f16 matrices';
    return { problem: `attention, ${rows} x ${width} over ${capacity}`, variant, reason };
  });
  const norms = normWidths.map(
    (width): KernelChoice => ({ problem: `norm, ${width}`, variant: 'rms_norm', reason: selectNorm(512, width, capabilities).reason }),
  );
  return [...linear, ...attention, ...norms];
}
