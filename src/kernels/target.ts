/** WebGPU as a target: a lowering rule for every operation, memory rules from the device's limits. */

import type { GpuCapabilities, GpuLimits } from '../core/capabilities.js';
import type { GpuKernel } from '../core/kernel.js';
import type { MemoryRules, Target } from '../ops/target.js';
import { argmaxRule } from './argmax.js';
import { attentionRule } from './attention.js';
import { cacheWriteRule } from './cache.js';
import { decodeTarget } from './decode/rules.js';
import type { ActivationChoice } from './decode/select.js';
import { binaryRule, swigluRule, unaryRule } from './elementwise.js';
import { gatherRule } from './gather.js';
import { linearRule } from './linear.js';
import { rmsNormRule } from './norm.js';
import { ropeRule } from './rope.js';
import { advanceRule, lastRowRule } from './state.js';
import { gpuWeightStore } from './weights.js';

export interface GpuTargetOptions {
  /** How the activations of a decode step are kept between its kernels. Default 'auto'. */
  readonly activations?: ActivationChoice;
}

/** Slots start at multiples of 256 bytes everywhere, so that plans and views are the same on every device that allows it. */
const slotAlignment = 256;

function memoryRules(limits: GpuLimits): MemoryRules {
  return {
    alignment: Math.max(slotAlignment, limits.minStorageBufferOffsetAlignment),
    maxBindingBytes: limits.maxStorageBufferBindingSize,
    maxBankBytes: limits.maxBufferSize,
    maxBindings: limits.maxStorageBuffersPerShaderStage,
    maxGrid: limits.maxComputeWorkgroupsPerDimension,
    exclusiveBuffers: true,
  };
}

/** How a device with these capabilities runs every operation. Pure: masked capabilities give the kernels of a poorer device. */
export function gpuTarget(capabilities: GpuCapabilities, options: GpuTargetOptions = {}): Target<GpuKernel> {
  const weights = gpuWeightStore(capabilities);
  const plain = {
    linear: linearRule(capabilities),
    rmsNorm: rmsNormRule(capabilities),
    swiglu: swigluRule,
    rope: ropeRule,
    cacheWrite: cacheWriteRule,
    attention: attentionRule(capabilities),
    argmax: argmaxRule(capabilities),
    advance: advanceRule,
  };
  const decode = decodeTarget(capabilities, weights, plain, options.activations ?? 'auto');
  return {
    name: 'webgpu',
    memory: memoryRules(capabilities.limits),
    weights,
    rules: {
      ...plain,
      ...decode.rules,
      unary: unaryRule,
      binary: binaryRule,
      gatherRows: gatherRule,
      lastRow: lastRowRule,
    },
    takesForm: decode.takesForm,
    refuses: decode.refuses,
  };
}
