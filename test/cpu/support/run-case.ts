/** Runs op cases and graphs on a CPU device by hand: one allocation for each leaf and bank, the planned steps, the f64 reference. */

import { byteLengthOfType, elementCount } from '../../../src/core/tensor.js';
import type { CpuDevice, CpuExecutable } from '../../../src/cpu/executor.js';
import type { CpuKernel } from '../../../src/cpu/kernel.js';
import type { CpuAllocation } from '../../../src/cpu/memory.js';
import { caseRounding } from '../../../src/cpu/rounding.js';
import { cpuTarget } from '../../../src/cpu/target.js';
import { GraphBuilder } from '../../../src/graph/builder.js';
import { evaluate } from '../../../src/graph/evaluate.js';
import type { Graph } from '../../../src/graph/graph.js';
import type { CaseInput, OpCase } from '../../../src/ops/case.js';
import type { ExecutionPlan, Location } from '../../../src/plan/execution-plan.js';
import { locate, planGraph } from '../../../src/plan/plan.js';
import { dequantize } from '../../../src/quant/index.js';

/** A planned graph on a device, its leaves addressed by name. */
export class CpuRun {
  readonly plan: ExecutionPlan<CpuKernel>;
  readonly #device: CpuDevice;
  readonly #banks: readonly CpuAllocation[];
  readonly #leaves = new Map<number, CpuAllocation>();
  #executable: CpuExecutable | undefined;

  constructor(device: CpuDevice, graph: Graph) {
    this.#device = device;
    this.plan = planGraph(graph, cpuTarget());
    this.#banks = this.plan.memory.banks.map((bytes, i) => device.allocate(`bank ${i}`, 'arena', bytes));
    for (const value of this.plan.values.values()) {
      if (value.root !== value.id || value.storage === 'arena') continue;
      this.#leaves.set(value.id, device.allocate(value.name, value.storage === 'param' ? 'weights' : 'state', value.byteLength));
    }
  }

  /** Writes a leaf's bytes as a model file has them. */
  write(name: string, bytes: Uint8Array): void {
    const value = [...this.plan.values.values()].find((entry) => entry.name === name && entry.root === entry.id);
    if (value === undefined) throw new Error(`no leaf ${name}`);
    const { offset } = this.#at(value.id);
    const writes = value.storage === 'param' ? cpuTarget().weights.pack(value.type, 0, bytes) : [{ offset: 0, bytes }];
    for (const write of writes) this.#device.write(offset + write.offset, write.bytes);
  }

  async run(): Promise<void> {
    this.#executable ??= await this.#device.prepare(
      this.plan.steps.map(({ kernel, args }) => ({
        kernel,
        args: args.map(({ location }) => ({ offset: this.#offset(location), byteLength: location.byteLength })),
      })),
    );
    this.#executable.run();
  }

  /** Bytes of a node's value. */
  read(node: number): Uint8Array<ArrayBuffer> {
    const { offset, byteLength } = this.#at(node);
    return this.#device.read(offset, byteLength);
  }

  free(): void {
    for (const allocation of [...this.#banks, ...this.#leaves.values()]) allocation.free();
  }

  #at(node: number): { offset: number; byteLength: number } {
    const location = locate(node, 0, this.plan.values, this.plan.memory, this.plan.target);
    return { offset: this.#offset(location), byteLength: location.byteLength };
  }

  #offset(location: Location): number {
    const allocation = location.storage === 'arena' ? this.#banks[location.bank] : this.#leaves.get(location.owner);
    if (allocation === undefined) throw new Error('nothing is allocated there');
    return allocation.offset + location.offset;
  }
}

/** Numbers of raw bytes of any type. */
export function decodeBytes(dtype: CaseInput['type']['dtype'], bytes: Uint8Array): Float64Array {
  const copy = Uint8Array.from(bytes);
  if (dtype === 'u32') return Float64Array.from(new Uint32Array(copy.buffer));
  if (dtype === 'i32') return Float64Array.from(new Int32Array(copy.buffer));
  return Float64Array.from(dequantize(dtype, copy));
}

export interface CaseOutcome {
  /** Largest error as a multiple of what is accepted. */
  readonly worst: number;
  readonly where: string;
}

const leafName = (index: number): string => `leaf ${index}`;

export async function runCase(device: CpuDevice, opCase: OpCase): Promise<CaseOutcome> {
  const g = new GraphBuilder();
  const inputs = opCase.inputs.map(({ role, type, bytes }, i) => {
    if (role === 'constant') return g.constant([...decodeBytes(type.dtype, bytes)], type, leafName(i));
    return role === 'input' ? g.input(leafName(i), type) : role === 'param' ? g.param(leafName(i), type) : g.state(leafName(i), type);
  });
  const y = g.add(opCase.op, opCase.params, inputs, 'y');
  if (!['f16', 'q8_planes'].includes(g.typeOf(y).dtype)) g.output('y', y);
  const graph = g.build();
  const values = new Map(opCase.inputs.map(({ type, bytes }, i) => [leafName(i), decodeBytes(type.dtype, bytes)]));
  const evaluated = evaluate(graph, { inputs: values, params: values, states: values });
  const wanted = evaluated.outputs.get('y')?.data ?? evaluated.states.get(leafName(0)) ?? new Float64Array();
  const run = new CpuRun(device, graph);
  try {
    for (const [i, { bytes }] of opCase.inputs.entries()) run.write(leafName(i), bytes);
    await run.run();
    const type = graph.nodes.at(-1)?.type ?? { dtype: 'f32', shape: [] };
    const got = decodeBytes(type.dtype, run.read(graph.nodes.length - 1).subarray(0, byteLengthOfType(type)));
    const rows = type.shape[0] ?? 1;
    const count = opCase.liveRows === undefined ? wanted.length : (opCase.liveRows * elementCount(type.shape)) / rows;
    return compare(wanted.subarray(0, count), got, opCase);
  } finally {
    run.free();
  }
}

function compare(wanted: Float64Array, got: Float64Array, opCase: OpCase): CaseOutcome {
  const { tolerance } = opCase;
  const rounding = caseRounding(opCase);
  const largest = wanted.reduce((max, value) => (Number.isFinite(value) ? Math.max(max, Math.abs(value)) : max), 0);
  let outcome: CaseOutcome = { worst: 0, where: '' };
  wanted.forEach((want, i) => {
    const have = got[i] ?? Number.NaN;
    if (Object.is(want, have) || want === have) return;
    const accepted = (tolerance.absolute ?? 0) + (tolerance.relative ?? 0) * Math.abs(want) + (tolerance.relativeToMax ?? 0) * largest + (rounding?.[i] ?? 0);
    const finite = Number.isFinite(want) && Number.isFinite(have);
    const worst = finite ? Math.abs(have - want) / accepted : Number.POSITIVE_INFINITY;
    if (worst > outcome.worst) outcome = { worst, where: `[${i}]: ${have} instead of ${want}` };
  });
  return outcome;
}
