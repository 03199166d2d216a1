/** WebGPU as a target: a lowering rule for every operation, memory rules from the device's limits. */

import type { GpuCapabilities, GpuLimits } from '../core/capabilities.js';
import type { GpuKernel } from '../core/kernel.js';
import type { OpParams } from '../ops/params.js';
import type { MemoryRules, Target } from '../ops/target.js';
import { argmaxRule } from './argmax.js';
import { attentionRule } from './attention/attention.js';
import { cacheWriteRule } from './attention/cache.js';
import { castRule, compareRule, whereRule } from './compare.js';
import { convRule, tileReduceRule } from './conv.js';
import { cumsumRule } from './cumsum.js';
import { type DecodeTargetOptions, decodeTarget, type PlainDecodeRules } from './decode/rules.js';
import type { ActivationChoice } from './decode/select.js';
import { binaryRule, swigluRule, unaryRule } from './elementwise.js';
import { gatherRule } from './gather.js';
import { matmulRule } from './gemm/rule.js';
import { layerNormRule } from './layer-norm.js';
import { linearKernel, linearRule, linearTakesHalves } from './linear.js';
import { linearSteps } from './linear-steps.js';
import { halfForm } from './matrix/form.js';
import { hasMatrices } from './matrix/linear.js';
import { concatRule, expandRule, gatherAxisRule, permuteRule, sliceRule, stridedRule } from './movement.js';
import { rmsNormRule } from './norm.js';
import { dotRule, reduceRule } from './reduce.js';
import { regionRule } from './region.js';
import { ropeRule } from './rope.js';
import { redrawRule } from './sampling/rule.js';
import { logSoftmaxRule, softmaxRule } from './softmax.js';
import { advanceRule, lastRowRule } from './state.js';
import { topKRule } from './top-k.js';
import { gpuWeightStore } from './weights.js';

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

export interface GpuTargetOptions extends DecodeTargetOptions {
  /** Rows from which products and attention use f16 matrices, where the device has them. Default: what measured best; tests lower it, so that small cases take that path. */
  readonly leastMatrixRows?: number;
  /** How activations meet packed weights, in a decode step and, on devices without f16 matrices, in prefill. Default 'auto'. */
  readonly activations?: ActivationChoice;
}

/** What is fast on a device: f16 numbers, and products of f16 matrices in hardware. */
export function gpuArithmetic(capabilities: GpuCapabilities): { readonly halves: boolean; readonly matrices: boolean } {
  return { halves: capabilities.f16, matrices: hasMatrices(capabilities) };
}

/** How a device with these capabilities runs every operation. Pure: masked capabilities give the kernels of a poorer device. */
export function gpuTarget(capabilities: GpuCapabilities, options: GpuTargetOptions = {}): Target<GpuKernel> {
  const weights = gpuWeightStore(capabilities);
  const plain = {
    linear: linearRule(capabilities, options),
    rmsNorm: rmsNormRule(capabilities),
    swiglu: swigluRule,
    rope: ropeRule,
    cacheWrite: cacheWriteRule,
    attention: attentionRule(capabilities, options),
    argmax: argmaxRule(capabilities),
    advance: advanceRule,
    gatherRows: gatherRule,
  };
  const linearPart: PlainDecodeRules['linearPart'] = (node, first) => linearSteps(node, (problem) => linearKernel(problem, capabilities), { first });
  const decode = decodeTarget(capabilities, weights, { ...plain, linearPart }, options);
  return {
    name: 'webgpu',
    memory: memoryRules(capabilities.limits),
    weights,
    rules: {
      ...plain,
      ...decode.rules,
      unary: unaryRule,
      binary: binaryRule,
      lastRow: lastRowRule,
      redraw: redrawRule(capabilities),
      matmul: matmulRule(capabilities, options),
      reduce: reduceRule,
      dot: dotRule,
      softmax: softmaxRule(capabilities),
      logSoftmax: logSoftmaxRule(capabilities),
      layerNorm: layerNormRule(capabilities),
      region: regionRule,
      compare: compareRule,
      where: whereRule,
      cast: castRule,
      concat: concatRule,
      gather: gatherAxisRule,
      permute: permuteRule,
      expand: expandRule,
      slice: sliceRule,
      strided: stridedRule,
      topK: topKRule,
      cumsum: cumsumRule,
      conv2d: convRule(capabilities),
      tileReduce: tileReduceRule,
    },
    takesForm(node) {
      if (node.op !== 'linear') return decode.takesForm(node);
      const halves = linearTakesHalves(node.params as OpParams['linear'], node.inputs, capabilities, options);
      return halves ? { input: 0, kind: halfForm } : undefined;
    },
    refuses: decode.refuses,
  };
}
