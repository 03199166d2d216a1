/** What a model file holds and what it needs, for people; nothing is loaded. */

import type { GpuCapabilities } from '../core/capabilities.js';
import type { DType } from '../core/dtype.js';
import { CentellaError } from '../core/errors.js';
import { byteLengthOfType, elementCount, type TensorType } from '../core/tensor.js';
import { gpuTarget } from '../kernels/target.js';
import { stateWords } from '../ops/state.js';
import { estimateMemory } from '../runtime/estimate.js';
import { decoderNames } from './decoder-graph.js';
import { type DecoderOptions, decoderRuns, runsAtLoad } from './decoder-runs.js';
import { describeModel, type ModelDescription, type ModelFile } from './describe.js';
import { drawGraph } from './draw-program.js';
import { type Hyperparameters, readHyperparameters } from './hyperparameters.js';

export interface TypeUse {
  readonly dtype: DType;
  readonly tensors: number;
  readonly elements: number;
  readonly bytes: number;
}

/** Bytes on one kind of device, once a model is loaded; loading takes up to some tens of MiB more for what streams in. */
export interface MemoryNeeded {
  readonly weights: number;
  readonly kv: number;
  readonly arena: number;
  /** The RoPE table, the session and the sampling state. */
  readonly other: number;
  readonly total: number;
}

/** The hyperparameters of any architecture; `undefined` where the file does not even name one. */
export function inspectHyperparameters(file: ModelFile): Hyperparameters | undefined {
  return file.getString('general.architecture') === undefined ? undefined : readHyperparameters(file);
}

/** How many bytes each type takes, the largest share first. */
export function bytesByType(tensors: Iterable<TensorType>): readonly TypeUse[] {
  const uses = new Map<DType, TypeUse>();
  for (const type of tensors) {
    const before = uses.get(type.dtype) ?? { dtype: type.dtype, tensors: 0, elements: 0, bytes: 0 };
    const elements = before.elements + elementCount(type.shape);
    uses.set(type.dtype, { ...before, tensors: before.tensors + 1, elements, bytes: before.bytes + byteLengthOfType(type) });
  }
  return [...uses.values()].sort((a, b) => b.bytes - a.bytes);
}

/** A file that this build can run, or why it cannot. */
export function runnable(file: ModelFile): { readonly model: ModelDescription } | { readonly reason: string } {
  try {
    return { model: describeModel(file) };
  } catch (error) {
    // A file that cannot be run can still be looked at; what is missing is said.
    if (error instanceof CentellaError) return { reason: error.message };
    throw error;
  }
}

/** Bytes that a decoder with these options takes once it is loaded, planned for a device; no device is asked. */
export function memoryNeeded({ config, weights }: ModelDescription, options: DecoderOptions, device: 'cpu' | GpuCapabilities): MemoryNeeded {
  const runs = device === 'cpu' ? decoderRuns('cpu', config, weights, options) : decoderRuns('webgpu', config, weights, options, gpuTarget(device).refuses);
  const graphs = runsAtLoad(runs).map(({ graph }) => graph);
  const { arena, params, states } = estimateMemory(graphs, device);
  const sum = (sizes: ReadonlyMap<string, number>): number => [...sizes.values()].reduce((total, bytes) => total + bytes, 0);
  const table = params.get(decoderNames.ropeTable) ?? 0;
  const session = states.get(decoderNames.session) ?? 0;
  const draw = estimateMemory([drawGraph(stateWords(1), config.vocabulary)], device);
  const sampling = draw.states.get(decoderNames.sampling) ?? 0;
  const needed = { weights: sum(params) - table, kv: sum(states) - session, arena: arena + draw.arena, other: table + session + sampling };
  return { ...needed, total: needed.weights + needed.kv + needed.arena + needed.other };
}
