import { baseCapabilities, type GpuCapabilities } from '../core/capabilities.js';
import { ArgumentError } from '../core/errors.js';
import type { GpuKernel } from '../core/kernel.js';
import { GraphBuilder } from '../graph/builder.js';
import type { Graph } from '../graph/graph.js';
import { kernelFamilies, listKernels, printKernels } from '../kernels/index.js';
import { gpuTarget } from '../kernels/target.js';
import type { OpCase } from '../ops/case.js';
import { allCases } from '../ops/cases/index.js';
import { lower } from '../plan/lower.js';

/** The WGSL that Centella runs, as text. Nothing here touches a device. */
export const shaders = {
  /** What each kernel family computes, by name. */
  families: kernelFamilies,

  /**
   * The WGSL of one kernel of a family, for small shapes, as a device with these capabilities gets it (default: WebGPU's guaranteed floor).
   * @throws ArgumentError for a family that there is not, or that such a device does not use.
   */
  source(family: string, capabilities: GpuCapabilities = baseCapabilities): string {
    if (kernelFamilies[family] === undefined)
      throw new ArgumentError('family', `there is no kernel family "${family}"; there are ${Object.keys(kernelFamilies).join(', ')}`);
    for (const opCase of allCases()) {
      const kernel = kernelsOf(caseGraph(opCase), capabilities).find((candidate) => candidate.family === family);
      if (kernel !== undefined) return kernel.wgsl();
    }
    throw new ArgumentError('family', `no operation runs "${family}" on a device with these capabilities`);
  },

  /** The distinct kernels that a graph runs, each with its WGSL under a comment of key, grid and steps. */
  ofGraph(graph: Graph, capabilities: GpuCapabilities = baseCapabilities): string {
    return printKernels(lower(graph, gpuTarget(capabilities)).steps);
  },
} as const;

function kernelsOf(graph: Graph, capabilities: GpuCapabilities): readonly GpuKernel[] {
  return listKernels(lower(graph, gpuTarget(capabilities)).steps).map(({ kernel }) => kernel);
}

function caseGraph(opCase: OpCase): Graph {
  const g = new GraphBuilder();
  const inputs = opCase.inputs.map(({ role, type }, index) =>
    role === 'param' ? g.param(`x${index}`, type) : role === 'state' ? g.state(`x${index}`, type) : g.input(`x${index}`, type),
  );
  g.add(opCase.op, opCase.params, inputs, 'y');
  return g.build();
}
