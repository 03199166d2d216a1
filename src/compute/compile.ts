import type { Graph } from '../graph/graph.js';
import { CompiledGraph, type CompileOptions } from '../runtime/compiled-graph.js';
import type { BackendOptions } from '../runtime/select.js';
import { openTarget, type TargetChoice } from './open.js';

/** Where a graph is to run, and how it is planned. */
export interface CompileGraphOptions extends Omit<CompileOptions, 'ownsBackend'>, Omit<BackendOptions, 'device'> {
  /** Default 'auto': a hardware GPU, else the CPU. A device or backend of the caller's is used as it is. */
  readonly device?: TargetChoice;
}

/**
 * Makes a graph ready to run: fuses, plans, allocates, compiles. The result's `dispose()` ends the device too, where it was opened here.
 * @throws what `openBackend` and `CompiledGraph.compile` throw.
 */
export async function compile(graph: Graph, options: CompileGraphOptions = {}): Promise<CompiledGraph> {
  const { device, rewrite, regions, tensors, ...rest } = options;
  const { backend, owned } = await openTarget(device, rest);
  const known = { ...(rewrite === undefined ? {} : { rewrite }), ...(regions === undefined ? {} : { regions }), ...(tensors === undefined ? {} : { tensors }) };
  try {
    return await CompiledGraph.compile(graph, backend, { ...known, ownsBackend: owned });
  } catch (error) {
    if (owned) backend.dispose();
    throw error;
  }
}
