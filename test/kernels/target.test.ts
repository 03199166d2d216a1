import { describe, expect, it } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import type { GpuKernel } from '../../src/core/kernel.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { kernelFamilies, listKernels, printKernels } from '../../src/kernels/index.js';
import { gpuTarget } from '../../src/kernels/target.js';
import type { OpCase } from '../../src/ops/case.js';
import { allCases } from '../../src/ops/cases/index.js';
import type { ExecutionPlan } from '../../src/plan/execution-plan.js';
import { planGraph } from '../../src/plan/plan.js';

const rich: GpuCapabilities = { ...baseCapabilities, f16: true, packedDot: true, subgroups: true, subgroupMinSize: 8, subgroupMaxSize: 64 };

function stepsOf(opCase: OpCase, capabilities: GpuCapabilities): ExecutionPlan<GpuKernel>['steps'] {
  const g = new GraphBuilder();
  const inputs = opCase.inputs.map(({ role, type }, index) => {
    const name = `input ${index}`;
    return role === 'input' ? g.input(name, type) : role === 'state' ? g.state(name, type) : g.param(name, type);
  });
  g.output('y', g.add(opCase.op, opCase.params, inputs, 'y'));
  return planGraph(g.build(), gpuTarget(capabilities)).steps;
}

describe.each([
  ['the guaranteed limits', baseCapabilities],
  ['subgroups of 8 to 64', rich],
])('every case lowered for %s', (_name, capabilities) => {
  const steps = allCases().flatMap((opCase) => stepsOf(opCase, capabilities));
  const { limits } = capabilities;

  it('keeps to the limits', () => {
    for (const { kernel } of steps) {
      expect(kernel.workgroupBytes).toBeLessThanOrEqual(limits.maxComputeWorkgroupStorageSize);
      expect(kernel.workgroupSize.reduce((a, b) => a * b)).toBeLessThanOrEqual(limits.maxComputeInvocationsPerWorkgroup);
      expect(Math.max(...kernel.workgroups)).toBeLessThanOrEqual(limits.maxComputeWorkgroupsPerDimension);
      expect(kernel.bindings.length).toBeLessThanOrEqual(limits.maxStorageBuffersPerShaderStage);
      expect(kernel.features.includes('subgroups') && !capabilities.subgroups).toBe(false);
    }
  });

  it('gives kernels with equal keys equal text', () => {
    const texts = new Map<string, string>();
    for (const { kernel } of steps) {
      const text = kernel.wgsl();
      expect(texts.get(kernel.key) ?? text).toBe(text);
      texts.set(kernel.key, text);
    }
    expect(texts.size).toBeGreaterThan(100);
  });

  it('uses families that are described', () => {
    expect(steps.map(({ kernel }) => kernel.family).filter((family) => kernelFamilies[family] === undefined)).toEqual([]);
  });

  it('lists each kernel once, with its text', () => {
    const listings = listKernels(steps);
    expect(new Set(listings.map(({ kernel }) => kernel.key)).size).toBe(listings.length);
    const some = printKernels(steps.slice(0, 2));
    expect(some).toContain('// unary: a function of each element');
    expect(some).toContain('fn main(');
  });
});
