import { baseCapabilities, type GpuCapabilities } from '../core/capabilities.js';
import { ArgumentError } from '../core/errors.js';
import type { GpuKernel } from '../core/kernel.js';
import type { Graph } from '../graph/graph.js';
import { kernelFamilies, listKernels, printKernels } from '../kernels/index.js';
import { gpuTarget } from '../kernels/target.js';
import { lower } from '../plan/lower.js';
import { planGraph } from '../plan/plan.js';
import { sampleGraphs, sampleKernels } from './shader-samples.js';

/** What was found so far for a device's capabilities: one kernel a family, and the graphs not looked through yet. */
interface Search {
  readonly found: Map<string, GpuKernel>;
  readonly rest: Iterator<Graph>;
}

const searches = new WeakMap<GpuCapabilities, Search>();

/** A device with everything that kernels can use, for the families that the guaranteed floor does without. */
const everything: GpuCapabilities = {
  ...baseCapabilities,
  limits: { ...baseCapabilities.limits, maxComputeWorkgroupStorageSize: 49_152, maxComputeInvocationsPerWorkgroup: 1024, maxComputeWorkgroupSizeX: 1024 },
  f16: true,
  packedDot: true,
  subgroups: true,
  subgroupMinSize: 32,
  subgroupMaxSize: 32,
  subgroupMatrices: [{ componentType: 'f16', resultComponentType: 'f32', m: 16, n: 16, k: 16 }],
};

/** In the order in which families are looked for where the caller names no device. */
const devices: readonly GpuCapabilities[] = [baseCapabilities, everything, { ...everything, subgroupMatrices: [] }];

/** The WGSL that Centella runs, as text. Nothing here touches a device. */
export const shaders = {
  /** What each kernel family computes, by name. */
  families: kernelFamilies,

  /**
   * The WGSL of one kernel of a family, for a small shape, as a device with these capabilities gets it. Default: WebGPU's guaranteed floor, and for families that it does without a device
   * that has every feature. The first call for a device takes a moment.
   * @throws ArgumentError for a family that there is not, or that such a device does not use.
   */
  source(family: string, capabilities?: GpuCapabilities): string {
    if (!Object.hasOwn(kernelFamilies, family))
      throw new ArgumentError('family', `there is no kernel family "${family}"; there are ${Object.keys(kernelFamilies).join(', ')}`);
    for (const device of capabilities === undefined ? devices : [capabilities]) {
      const kernel = sampleOf(family, device);
      if (kernel !== undefined) return kernel.wgsl();
    }
    throw new ArgumentError('family', `no operation runs "${family}" on a device with these capabilities: leave them out to see it as another device has it`);
  },

  /**
   * The distinct kernels that a graph runs on a device with these capabilities, in the order of their first use. `device.pipelines.warm` compiles them ahead of time. The graph is taken as
   * it is: pass `rewrite(graph).graph` for what `compile` makes of it.
   */
  kernelsOf(graph: Graph, capabilities: GpuCapabilities = baseCapabilities): readonly GpuKernel[] {
    return listKernels(planGraph(graph, gpuTarget(capabilities)).steps).map(({ kernel }) => kernel);
  },

  /** The distinct kernels that a graph runs, each with its WGSL under a comment of key, grid and steps. */
  ofGraph(graph: Graph, capabilities: GpuCapabilities = baseCapabilities): string {
    return printKernels(planGraph(graph, gpuTarget(capabilities)).steps);
  },
} as const;

/** Looks through graphs until one runs the family. */
function sampleOf(family: string, capabilities: GpuCapabilities): GpuKernel | undefined {
  const search = searches.get(capabilities) ?? { found: new Map(sampleKernels().map((kernel) => [kernel.family, kernel])), rest: sampleGraphs() };
  searches.set(capabilities, search);
  const { found, rest } = search;
  for (let next = found.has(family) ? undefined : rest.next(); next?.done === false; next = found.has(family) ? undefined : rest.next()) {
    for (const { kernel } of lower(next.value, gpuTarget(capabilities)).steps) if (!found.has(kernel.family)) found.set(kernel.family, kernel);
  }
  return found.get(family);
}
