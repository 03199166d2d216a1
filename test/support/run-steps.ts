/** Runs the steps of one lowering rule on the test adapter without a plan: a buffer of its own for every value and shard, a bind group for every step. */

import { type CapabilityMask, type GpuCapabilities, maskCapabilities } from '../../src/core/capabilities.js';
import type { BindingKind, GpuKernel } from '../../src/core/kernel.js';
import type { Step, StepArg } from '../../src/core/step.js';
import { byteLengthOfType, elementCount, roundUp, type TensorType } from '../../src/core/tensor.js';
import { capabilitiesOf, wantedFeatures } from '../../src/gpu/capabilities.js';
import { packedRounding } from '../../src/kernels/dp4a/rounding.js';
import { matrixRounding } from '../../src/kernels/matrix/rounding.js';
import { gpuWeightStore } from '../../src/kernels/weights.js';
import type { CaseInput, OpCase } from '../../src/ops/case.js';
import type { HostTensor, OpDefinition } from '../../src/ops/definition.js';
import type { ComputeOp } from '../../src/ops/params.js';
import { ops } from '../../src/ops/table.js';
import type { LoweringRule, TensorRef, WeightStore } from '../../src/ops/target.js';
import { dequantize } from '../../src/quant/index.js';
import { requestTestAdapter } from './adapters.js';

export interface TestDevice {
  readonly device: GPUDevice;
  readonly capabilities: GpuCapabilities;
  readonly pipelines: Map<string, Promise<Compiled>>;
}

interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** A device with every feature and limit that kernels use. */
export async function openTestDevice(): Promise<TestDevice> {
  const adapter = await requestTestAdapter();
  const features = wantedFeatures.filter((name) => adapter.features.has(name));
  const { limits } = capabilitiesOf(adapter, adapter.info, true);
  const device = await adapter.requestDevice({ requiredFeatures: features as GPUFeatureName[], requiredLimits: { ...limits } });
  return { device, capabilities: capabilitiesOf(device, adapter.info, true), pipelines: new Map() };
}

export interface RunOptions {
  readonly mask?: CapabilityMask;
  /** Use the steps' in-place kernels where they are offered. */
  readonly inPlace?: boolean;
}

export type RuleMaker<K extends ComputeOp> = (capabilities: GpuCapabilities) => LoweringRule<K, GpuKernel>;

export interface StepResult {
  readonly got: ArrayLike<number>;
  /** The same as it lies in memory. */
  readonly bytes: Uint8Array;
  readonly steps: readonly Step<GpuKernel>[];
}

/** The output (or the updated state) of a case as the device computes it. */
export async function runCase<K extends ComputeOp>(test: TestDevice, rule: RuleMaker<K>, opCase: OpCase<K>, options: RunOptions = {}): Promise<StepResult> {
  const capabilities = maskCapabilities(test.capabilities, options.mask ?? {});
  const store = gpuWeightStore(capabilities);
  const buffers = new Map<string, GPUBuffer>();
  const inputs = opCase.inputs.map((input, id) => upload(test.device, buffers, store, input, id));
  const definition = ops[opCase.op] as OpDefinition<K>;
  const type = definition.type(
    inputs.map((ref) => ref.type),
    opCase.params,
  );
  let next = inputs.length;
  const value = (valueType: TensorType, id: number): TensorRef => {
    buffers.set(`${id}.0`, makeBuffer(test.device, byteLengthOfType(valueType)));
    return { id, type: valueType, shards: [{ start: 0, rows: valueType.shape[0] ?? 1 }] };
  };
  const output = typeof definition.updates !== 'number' ? value(type, next++) : { ...requireValue(inputs[definition.updates]), id: definition.updates };
  const scratch = (scratchType: TensorType): TensorRef => value(scratchType, next++);
  const derived = (_source: TensorRef, _form: string, formType: TensorType) => ({ ref: scratch(formType), fresh: true });
  const steps = rule(capabilities)({ op: opCase.op, params: opCase.params, inputs, output, label: opCase.name, id: 0 }, { scratch, derived });
  const found = (arg: StepArg): GPUBuffer => requireValue(buffers.get(`${arg.value}.${arg.shard}`), `value ${arg.value}, shard ${arg.shard}`);
  for (const step of steps) await dispatch(test, step, found, options.inPlace === true);
  const bytes = await readBuffer(test.device, requireValue(buffers.get(`${output.id}.0`)), byteLengthOfType(type));
  for (const buffer of buffers.values()) buffer.destroy();
  return { got: numbers(type, bytes), bytes, steps };
}

/** Largest error as a multiple of what the case accepts, and where: at most 1 passes. `rounding` is what each output may err by beyond that. */
export function caseError<K extends ComputeOp>(
  opCase: OpCase<K>,
  got: ArrayLike<number>,
  rounding?: Float64Array,
): { readonly worst: number; readonly where: string } {
  const definition = ops[opCase.op] as OpDefinition<K>;
  const inputs = opCase.inputs.map(({ type, bytes }): HostTensor => ({ shape: type.shape, data: Float64Array.from(numbers(type, bytes)) }));
  const type = definition.type(
    opCase.inputs.map((input) => input.type),
    opCase.params,
  );
  const wanted = definition.reference(inputs, opCase.params, type);
  const count = opCase.liveRows === undefined ? wanted.length : opCase.liveRows * elementCount(type.shape.slice(1));
  const { absolute = 0, relative = 0, relativeToMax = 0 } = opCase.tolerance;
  const scale = wanted.subarray(0, count).reduce((max, v) => Math.max(max, Math.abs(v)), 0);
  let worst = 0;
  let where = '';
  for (let i = 0; i < count; i++) {
    const [want, have] = [wanted[i] ?? Number.NaN, got[i] ?? Number.NaN];
    if (Object.is(want, have) || want === have) continue;
    const error = Math.abs(have - want) / (absolute + relative * Math.abs(want) + relativeToMax * scale + (rounding?.[i] ?? 0));
    if (error > worst || Number.isNaN(error)) [worst, where] = [Number.isNaN(error) ? Number.POSITIVE_INFINITY : error, `[${i}]: ${have} instead of ${want}`];
  }
  return { worst, where };
}

/** Runs cases one after another; the list of those that fail, empty where all pass. */
export async function failures<K extends ComputeOp>(
  test: TestDevice,
  rule: RuleMaker<K>,
  cases: Iterable<OpCase<K>>,
  options: RunOptions = {},
): Promise<readonly string[]> {
  const failed: string[] = [];
  const capabilities = maskCapabilities(test.capabilities, options.mask ?? {});
  for (const opCase of cases) {
    const { got } = await runCase(test, rule, opCase, options);
    const { worst, where } = caseError(opCase, got, matrixRounding(opCase, capabilities) ?? packedRounding(opCase, capabilities));
    if (!(worst <= 1)) failed.push(`${opCase.name}: ${worst.toFixed(2)} of the accepted error at ${where}`);
  }
  return failed;
}

function requireValue<T>(found: T | undefined, what = 'a value of the case'): T {
  if (found === undefined) throw new Error(`${what} has no buffer`);
  return found;
}

function numbers(type: TensorType, bytes: Uint8Array): ArrayLike<number> & Iterable<number> {
  const copy = Uint8Array.from(bytes);
  const count = elementCount(type.shape);
  if (type.dtype === 'u32') return new Uint32Array(copy.buffer, 0, count);
  if (type.dtype === 'i32') return new Int32Array(copy.buffer, 0, count);
  return dequantize(type.dtype, copy);
}

/** NaN before the first write, so that an element that no kernel writes is seen. */
function makeBuffer(device: GPUDevice, byteLength: number): GPUBuffer {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const buffer = device.createBuffer({ size: Math.max(4, roundUp(byteLength, 4)), usage });
  device.queue.writeBuffer(buffer, 0, new Uint32Array(buffer.size / 4).fill(0x7fc00000));
  return buffer;
}

function write(device: GPUDevice, buffer: GPUBuffer, offset: number, bytes: Uint8Array): void {
  const padded = new Uint8Array(roundUp(bytes.byteLength, 4));
  padded.set(bytes);
  device.queue.writeBuffer(buffer, offset, padded);
}

function upload(device: GPUDevice, buffers: Map<string, GPUBuffer>, store: WeightStore, input: CaseInput, id: number): TensorRef {
  const { type, bytes, role } = input;
  if (role !== 'param') {
    const buffer = makeBuffer(device, bytes.byteLength);
    write(device, buffer, 0, bytes);
    buffers.set(`${id}.0`, buffer);
    return { id, type, shards: [{ start: 0, rows: type.shape[0] ?? 1 }] };
  }
  const shards = store.shards(type);
  const rowBytes = bytes.byteLength / (type.shape[0] ?? 1);
  for (const [index, { start, rows }] of shards.entries()) {
    const part: TensorType = { dtype: type.dtype, shape: [rows, ...type.shape.slice(1)] };
    const buffer = makeBuffer(device, store.byteLength(part));
    // In two pieces where there are enough rows: a stream of rows arrives in pieces too.
    const cut = rows > store.rowGroup ? Math.floor(rows / 2 / store.rowGroup) * store.rowGroup : 0;
    for (const [first, last] of [[0, cut] as const, [cut, rows] as const]) {
      if (first === last) continue;
      for (const piece of store.pack(part, first, bytes.subarray((start + first) * rowBytes, (start + last) * rowBytes)))
        write(device, buffer, piece.offset, piece.bytes);
    }
    buffers.set(`${id}.${index}`, buffer);
  }
  return { id, type, shards };
}

const layoutType: { readonly [B in BindingKind]: GPUBufferBindingType } = { read: 'read-only-storage', read_write: 'storage', uniform: 'uniform' };

/** Compiles a kernel once for each key; what the compiler says is in the error. */
function compile({ device, pipelines }: TestDevice, kernel: GpuKernel): Promise<Compiled> {
  const known = pipelines.get(kernel.key);
  if (known !== undefined) return known;
  const entries = kernel.bindings.map((kind, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: layoutType[kind] } }));
  const layout = device.createBindGroupLayout({ entries });
  const code = kernel.wgsl();
  const module = device.createShaderModule({ label: kernel.key, code });
  const made = device
    .createComputePipelineAsync({ label: kernel.key, layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }), compute: { module } })
    .then((pipeline) => ({ pipeline, layout }))
    .catch((cause: unknown) => {
      throw new Error(`${kernel.key} does not compile: ${String(cause)}\n${code}`);
    });
  pipelines.set(kernel.key, made);
  return made;
}

async function dispatch(test: TestDevice, step: Step<GpuKernel>, found: (arg: StepArg) => GPUBuffer, inPlace: boolean): Promise<void> {
  const variant = inPlace ? step.inPlace : undefined;
  const kernel = variant?.kernel ?? step.kernel;
  const args = step.args.filter((_, index) => index !== variant?.input);
  const encoder = test.device.createCommandEncoder();
  if (variant !== undefined) {
    const [from, to] = [found(requireValue(step.args[variant.input])), found(requireValue(step.args[variant.output]))];
    encoder.copyBufferToBuffer(from, 0, to, 0, to.size);
  }
  const { pipeline, layout } = await compile(test, kernel);
  test.device.pushErrorScope('validation');
  const entries = args.map((arg, binding) => ({ binding, resource: { buffer: found(arg) } }));
  const group = test.device.createBindGroup({ layout, entries });
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(...kernel.workgroups);
  pass.end();
  test.device.queue.submit([encoder.finish()]);
  const error = await test.device.popErrorScope();
  if (error !== null) throw new Error(`${kernel.key}: ${error.message}`);
}

async function readBuffer(device: GPUDevice, buffer: GPUBuffer, byteLength: number): Promise<Uint8Array> {
  const staging = device.createBuffer({ size: buffer.size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, 0, staging, 0, buffer.size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const bytes = new Uint8Array(staging.getMappedRange().slice(0), 0, byteLength);
  staging.destroy();
  return bytes;
}
